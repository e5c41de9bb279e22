"""Rows of which floats are nearly equal."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np

from guerdon.rewards.sql.columns import Rows, near, ordinals
from guerdon.rewards.sql.settling import columns_of, settled, special_cells


def far(
    expected: Rows, rows: Rows, *, ordered: bool, tolerance: float
) -> tuple[tuple[Any, ...], tuple[Any, ...]] | None:
    """The first two rows in like places that are not nearly equal, if there are any: what is expected, and the other.

    In any order rows are sorted by what is exact of them, and only among the same by their floats; of which what is
    nearly equal counts as the same before the next is looked at.

    Args:
        expected: the rows.
        rows: as many others.
        ordered: whether they have to come in the same order.
        tolerance: how far two numbers may differ, |a − b| ≤ tolerance · max(1, |b|), where one of them is a float.

    >>> far([(1, 0.5), (2, 0.5)], [(2, 0.5), (1, 0.51)], ordered=False, tolerance=0.001)
    ((1, 0.5), (1, 0.51))
    """
    columns = list(zip(columns_of(expected), columns_of(rows), strict=True))
    if any(special_cells(wanted) for wanted, _ in columns):
        return far(settled(expected), settled(rows), ordered=ordered, tolerance=tolerance)
    if not ordered:
        expected, rows = _ranked(expected, rows, columns, tolerance)
    first = len(rows)
    for wanted, found in zip(columns_of(expected), columns_of(rows), strict=True):
        if wanted == found:
            continue
        if {*map(type, wanted), *map(type, found)} == {float}:
            places = np.flatnonzero(~near(np.array(found), np.array(wanted), tolerance)[:first])
            first = int(places[0]) if len(places) else first
        else:
            pairs = enumerate(zip(found[:first], wanted, strict=False))
            first = next((k for k, (one, other) in pairs if not _near(one, other, tolerance)), first)
    return (expected[first], rows[first]) if first < len(rows) else None


def _near(value: Any, expected: Any, tolerance: float) -> bool:
    if value == expected:
        return True
    if not isinstance(value, (int, float)) or not isinstance(expected, (int, float)):
        return False
    if not isinstance(value, float) and not isinstance(expected, float):
        return False
    return abs(value - expected) <= tolerance * max(1.0, abs(expected)) < math.inf


def _ranked(expected: Rows, rows: Rows, columns: list[tuple[Any, Any]], tolerance: float) -> tuple[Rows, Rows]:
    """Both in an order in which those that are nearly equal stand in like places."""
    floats: list[tuple[Any, Any]] = []
    ranks: list[tuple[Any, Any]] = []
    for wanted, found in columns:
        (floats if float in {*map(type, wanted), *map(type, found)} else ranks).append((wanted, found))
    for wanted, found in floats[:-1]:
        ranks.append(([cell is None for cell in wanted], [cell is None for cell in found]))
        ours, theirs = ordinals(_numbers(wanted), _numbers(found), tolerance)
        ranks.append((ours.tolist(), theirs.tolist()))
    ranks += floats[-1:]
    try:
        return _sorted(expected, [pair[0] for pair in ranks]), _sorted(rows, [pair[1] for pair in ranks])
    except TypeError:  # NULL, or another mixture
        cells = [(map(_cell, wanted), map(_cell, found)) for wanted, found in ranks]
        return _sorted(expected, [pair[0] for pair in cells]), _sorted(rows, [pair[1] for pair in cells])


def _numbers(cells: tuple[Any, ...]) -> np.ndarray:
    return np.array([cell if isinstance(cell, (int, float)) else math.nan for cell in cells], np.float64)


def _sorted(rows: Rows, ranks: list[Any]) -> Rows:
    keys = list(zip(*ranks, strict=True))
    return [rows[place] for place in sorted(range(len(rows)), key=keys.__getitem__)]


def _cell(cell: Any) -> tuple[int, Any]:
    if cell is None:
        return (0, 0)
    if isinstance(cell, (int, float, Decimal)):
        return (1, cell)
    return (2, repr(cell))
