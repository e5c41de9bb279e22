"""Results that came as columns, which DuckDB hands over and NumPy compares sooner than rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

Rows = list[tuple[Any, ...]]

MIXING = -7046029254386353131  # odd; its bits are those of the golden ratio


class Columns:
    """The first rows of a result, of plain cells: truth values, numbers, texts and NULL."""

    def __init__(self, columns: list[np.ndarray], most: int) -> None:
        self._columns = columns if len(columns[0]) <= most else [column[:most] for column in columns]
        self.width = len(columns)
        self.parts = [part for column in self._columns for part in _parts(column)]  # which equal rows have in common

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
        return list(zip(*[column[which].tolist() for column in self._columns], strict=True))

    def some(self, count: int) -> Rows:
        """So many rows from the beginning, and at most as many from all over the rest."""
        apart = len(self) // count + 1
        return list(zip(*[part[:count].tolist() + part[count::apart].tolist() for part in self.parts], strict=True))

    def items(self) -> list[Any]:
        """What stands for the rows: a tuple of cells, or the cell where there is but one."""
        cells = [part.tolist() for part in self.parts]
        return list(zip(*cells, strict=True)) if len(cells) > 1 else list(cells[0])

    def like(self, other: Columns) -> bool:
        """Whether columns are of the same types, with NULL or without: others may be equal where rows are not."""
        ours, theirs = ([(column.dtype, type(column)) for column in each._columns] for each in (self, other))
        return ours == theirs

    def equal(self, other: Columns) -> bool:
        """Whether all rows are equal, one by one."""
        return _equal(self.parts, other.parts)

    def equal_in_any_order(self, other: Columns, place: int | None) -> bool | None:
        """Whether rows are the same if sorted by a part, or by all; None if that leaves open which rows to compare."""
        keys = slice(None) if place is None else slice(place, place + 1)
        ours, theirs = _mixed(self.parts[keys]), _mixed(other.parts[keys])
        here, there = ours.argsort(), theirs.argsort()
        if not (ours.take(here) == theirs.take(there)).all():
            return False
        return _equal((part.take(here) for part in self.parts), (part.take(there) for part in other.parts)) or None


Result = Rows | Columns


def as_rows(result: Result) -> Rows:
    """The rows of a result, however it came."""
    return result.rows if isinstance(result, Columns) else result


def _parts(column: np.ndarray) -> tuple[np.ndarray, ...]:
    """A column as arrays that can be compared: one of its cells and, if NULL is among numbers, one of where it is."""
    if not isinstance(column, np.ma.MaskedArray):
        return (column,)
    cells, missing = column.data, np.ma.getmaskarray(column)
    if cells.dtype == object:
        return (cells,)  # None
    cells[missing] = 0
    return cells, missing


def _equal(parts: Iterable[np.ndarray], others: Iterable[np.ndarray]) -> bool:
    return all((part == other).all() for part, other in zip(parts, others, strict=True))


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
