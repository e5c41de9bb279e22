"""Results that came as columns, which DuckDB hands over and NumPy compares sooner than rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

Rows = list[tuple[Any, ...]]

MIXING = -7046029254386353131  # odd; its bits are those of the golden ratio


class Columns:
    """A whole result of plain cells: truth values, numbers, texts and NULL."""

    def __init__(self, columns: list[np.ndarray]) -> None:
        self._columns = columns
        self.parts = [part for column in columns for part in _parts(column)]  # all of which equal rows have in common

    def __len__(self) -> int:
        return len(self._columns[0])

    @cached_property
    def rows(self) -> Rows:
        """The same as the database gives where it is asked for rows."""
        return list(zip(*[column.tolist() for column in self._columns], strict=True))

    def some(self, count: int) -> Rows:
        """So many rows from the beginning, and at most as many from all over the rest."""
        apart = len(self) // count + 1
        return list(zip(*[part[:count].tolist() + part[count::apart].tolist() for part in self.parts], strict=True))

    def items(self) -> list[Any]:
        """What stands for the rows: a tuple of cells, or the cell where there is but one."""
        cells = [part.tolist() for part in self.parts]
        return list(zip(*cells, strict=True)) if len(cells) > 1 else list(cells[0])

    def like(self, other: Columns) -> bool:
        """Whether cells are of the same types, so that arrays are equal where Python's cells are: 2**53 + 1 is equal
        to a float as arrays have it."""
        return [part.dtype for part in self.parts] == [part.dtype for part in other.parts]

    def equal(self, other: Columns) -> bool:
        """Whether all rows are equal, one by one."""
        return _equal(self.parts, other.parts)

    def equal_when_sorted(self, other: Columns, place: int | None) -> bool:
        """The same of rows that are sorted by a part, or by all. False may also mean that this does not tell rows apart
        which are not the same."""
        keys = slice(None) if place is None else slice(place, place + 1)
        return _equal(_sorted(self.parts, keys), _sorted(other.parts, keys))


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


def _equal(parts: Any, others: Any) -> bool:
    return all((part == other).all() for part, other in zip(parts, others, strict=True))


def _sorted(parts: list[np.ndarray], keys: slice) -> Iterator[np.ndarray]:
    """All parts in the order of a number for each row: the same where the keys are, and seldom where they are not."""
    mixed = np.zeros(len(parts[0]), np.int64)
    for part in parts[keys]:
        if part.dtype == object:
            part = np.fromiter(map(hash, part.tolist()), np.int64, len(part))
        elif part.dtype.kind == "f":
            part = np.add(part, 0.0, dtype=np.float64).view(np.int64)  # -0.0 + 0.0 is 0.0
        mixed = mixed * MIXING + part.astype(np.int64)
    order = mixed.argsort()
    return (part.take(order) for part in parts)
