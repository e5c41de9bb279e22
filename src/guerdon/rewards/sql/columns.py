"""Results that came as columns, which DuckDB hands over and NumPy compares sooner than rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np

from guerdon.rewards.sql.counting import SOME, as_often, some

Rows = list[tuple[Any, ...]]

FIRST, LAST = (int(np.datetime64(moment, "us").astype(np.int64)) for moment in (datetime.min, datetime.max))
MIXING = -7046029254386353131  # odd; its bits are those of the golden ratio


class Columns:
    """The first rows of a result, of plain cells: truth values, numbers, texts, dates, times and NULL.

    Args:
        columns: what DuckDB gives as arrays.
        kinds: the names of their types.
        most: how many rows are the first.

    Raises:
        ValueError: if a date or a time is none that Python has.
    """

    def __init__(self, columns: list[np.ndarray], kinds: list[str], most: int) -> None:
        self._columns = columns if len(columns[0]) <= most else [column[:most] for column in columns]
        self._kinds = kinds
        self.width = len(columns)
        self._split = [_split(column) for column in self._columns]
        self._parts = [part for cells, missing in self._split for part in _parts(cells, missing)]

    def __len__(self) -> int:
        return len(self._columns[0])

    @cached_property
    def rows(self) -> Rows:
        """The same as the database gives where it is asked for rows."""
        return self._rows(slice(None))

    def pieces(self, size: int) -> Iterator[Rows]:
        """The rows, some at a time."""
        for first in range(0, len(self), size):
            yield self._rows(slice(first, first + size))

    def _rows(self, which: slice) -> Rows:
        columns = zip(self._columns, self._kinds, strict=True)
        return list(zip(*[_cells(column[which], kind) for column, kind in columns], strict=True))

    def like(self, other: Columns) -> bool:
        """Whether columns are of the same types, with NULL or without: others may be equal where rows are not."""
        ours, theirs = ([missing is None for _, missing in each._split] for each in (self, other))
        return self._kinds == other._kinds and ours == theirs

    def equal(self, other: Columns) -> bool:
        """Whether all rows are equal, one by one."""
        ours, theirs = self._parts[0][:SOME].tolist(), other._parts[0][:SOME].tolist()
        return ours == theirs and all((a == b).all() for a, b in zip(self._parts, other._parts, strict=True))

    def equal_in_any_order(self, other: Columns) -> bool:
        """Whether the rows are the same, each as often; False may also mean that NaN hides it.

        Rows are sorted by what seems to tell them apart; those that then are not equal, one by one, are counted.
        """
        if self.width == 1:
            return self._equal_cells(other)
        place = self._telling()
        ours, here = self._sorted(place)
        if place is not None and np.count_nonzero(ours[1:] != ours[:-1]) < len(self) // 3:
            place = None
            ours, here = self._sorted(place)
        theirs, there = other._sorted(place)
        if not (ours == theirs).all():
            return False
        unlike = np.zeros(len(self), bool)
        for part, another in zip(self._parts, other._parts, strict=True):
            unlike |= part.take(here) != another.take(there)
        return as_often(self._items(here[unlike]), other._items(there[unlike]))

    def _telling(self) -> int | None:
        """The part with numbers that seems to tell most rows apart; None if none seems to tell two thirds."""
        kinds = [len(set(some(part))) if part.dtype.kind in "iuf" else 0 for part in self._parts]
        most = max(kinds)
        return kinds.index(most) if 3 * most > 2 * 2 * SOME else None

    def _sorted(self, place: int | None) -> tuple[np.ndarray, np.ndarray]:
        """A number for each row, of one part or of all of them, in ascending order; and the rows in this order."""
        mixed = _mixed(self._parts if place is None else [self._parts[place]])
        order = mixed.argsort()
        return mixed.take(order), order

    def _items(self, rows: np.ndarray) -> list[Any]:
        return list(zip(*[part[rows].tolist() for part in self._parts], strict=True))

    def _equal_cells(self, other: Columns) -> bool:
        """Whether the one column of both has the same cells, each as often."""
        (ours, null), (theirs, nil) = self._split[0], other._split[0]
        if null is not None and nil is not None:
            if np.count_nonzero(null) != np.count_nonzero(nil):
                return False
            if ours.dtype == object:
                ours, theirs = ours[~null], theirs[~nil]
        if ours.dtype == object:
            return as_often(ours.tolist(), theirs.tolist())
        return bool((np.sort(ours) == np.sort(theirs)).all())  # each NULL is one 0 more on both sides


Result = Rows | Columns


def as_rows(result: Result) -> Rows:
    """The rows of a result, however it came."""
    return result.rows if isinstance(result, Columns) else result


def _split(column: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The cells of a column, and where NULL is if it is anywhere: of numbers it is a 0, of objects None."""
    cells, missing = column, None
    if isinstance(column, np.ma.MaskedArray):
        cells, missing = np.asarray(column.data), np.ma.getmaskarray(column)
    moments = cells.dtype.kind == "M"
    if moments:
        cells = cells.view(np.int64)
    if missing is not None and cells.dtype != object:
        cells[missing] = 0
    if moments and len(cells) and not FIRST <= cells.min() <= cells.max() <= LAST:
        raise ValueError("a date or a time that Python has not")
    return cells, missing


def _parts(cells: np.ndarray, missing: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """What is compared of a column: equal rows have equal parts."""
    return (cells,) if missing is None or cells.dtype == object else (cells, missing)


def _cells(column: np.ndarray, kind: str) -> list[Any]:
    """The cells of a column as Python's."""
    if kind == "DATE":
        return list(column.astype("M8[D]").tolist())
    cells: list[Any] = column.tolist()
    if kind.startswith("DECIMAL"):
        digits = int(kind.rstrip(")").split(",")[1])
        return [cell if cell is None else Decimal(f"{cell:.{digits}f}") for cell in cells]
    return cells


def _mixed(parts: list[np.ndarray]) -> np.ndarray:
    """A number for each row: the same where rows are the same, and seldom where they are not."""
    mixed = np.zeros(len(parts[0]), np.int64)
    for part in parts:
        if part.dtype == object:
            part = np.fromiter(map(hash, part.tolist()), np.int64, len(part))
        elif part.dtype.kind == "f":
            part = np.add(part, 0.0, dtype=np.float64).view(np.int64)  # -0.0 + 0.0 is 0.0
        mixed = mixed * MIXING + part.astype(np.int64)
    return mixed
