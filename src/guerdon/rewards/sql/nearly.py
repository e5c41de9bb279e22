"""Rows of which floats are nearly equal."""

from __future__ import annotations

import math
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from guerdon.rewards.sql.columns import Rows, near
from guerdon.rewards.sql.settling import settled, special_cells


def far(
    expected: Rows, rows: Rows, *, ordered: bool, tolerance: float
) -> tuple[tuple[Any, ...], tuple[Any, ...]] | None:
    """The first two rows in like places that are not nearly equal, if there are any: what is expected, and the other.

    In any order rows are sorted by what is exact of them, and only among the same by their floats.

    Args:
        expected: the rows.
        rows: as many others.
        ordered: whether they have to come in the same order.
        tolerance: how far two numbers may differ, |a − b| ≤ tolerance · max(1, |b|), where one of them is a float.

    >>> far([(1, 0.5), (2, 0.5)], [(2, 0.5), (1, 0.51)], ordered=False, tolerance=0.001)
    ((1, 0.5), (1, 0.51))
    """
    columns = list(zip(zip(*expected, strict=True), zip(*rows, strict=True), strict=True))
    if any(special_cells(wanted) for wanted, _ in columns):
        return far(settled(expected), settled(rows), ordered=ordered, tolerance=tolerance)
    if not ordered:
        floats = [k for k, (one, other) in enumerate(columns) if float in {*map(type, one), *map(type, other)}]
        expected, rows = _ranked(expected, rows, floats)
    first = len(rows)
    for wanted, found in zip(zip(*expected, strict=True), zip(*rows, strict=True), strict=True):
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


def _ranked(expected: Rows, rows: Rows, floats: list[int]) -> tuple[Rows, Rows]:
    """Both in an order in which those that are nearly equal stand in like places."""
    exact = [k for k in range(len(rows[0])) if k not in floats]
    try:
        key: Any = itemgetter(*exact, *floats)
        return sorted(expected, key=key), sorted(rows, key=key)
    except TypeError:  # NULL, or another mixture
        key = partial(_rank, places=exact + floats)
        return sorted(expected, key=key), sorted(rows, key=key)


def _rank(row: tuple[Any, ...], places: list[int]) -> list[tuple[int, Any]]:
    return [_cell(row[place]) for place in places]


def _cell(cell: Any) -> tuple[int, Any]:
    if cell is None:
        return (0, 0)
    if isinstance(cell, (int, float)):
        return (1, cell)
    return (2, repr(cell))
