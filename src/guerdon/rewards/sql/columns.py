"""Results that came as columns, which DuckDB hands over and NumPy compares sooner than rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from functools import cached_property, reduce
from itertools import repeat
from operator import and_, itemgetter, or_
from typing import Any

import numpy as np

from guerdon.rewards.sql.counting import SOME, Excess, excess

Rows = list[tuple[Any, ...]]

FIRST, LAST = (int(np.datetime64(moment, "us").astype(np.int64)) for moment in (datetime.min, datetime.max))
MANY = 700  # rows that come sooner as columns than as rows
STRUCTURES, DECIMALS = 300, 70  # of these rows, as what they have is made one by one
DIGITS = 15  # which a float keeps of a decimal
WHOLE = 2.0**53  # below which each whole number is a float
NULL = -(2**63)  # in place of it, among whole numbers
MIXING = -7046029254386353131  # odd; its bits are those of the golden ratio

STRUCTURE, DECIMAL = "STRUCT(", "DECIMAL("  # how the names of their types begin
_FLOATS = {"FLOAT", "DOUBLE"}
_INTEGERS = {"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}


class NoColumns(Exception):
    """A result cannot be compared by columns, and has to come as rows."""


class Columns:
    """The first rows of a result, of plain cells: truth values, numbers, texts, dates, timestamps, NULL; or structures.

    Args:
        columns: what DuckDB gives as arrays.
        kinds: the names of their types.
        most: how many rows are the first.

    Raises:
        NoColumns: if a date or a time is none that Python has, or a decimal has more digits than a float.
    """

    def __init__(self, columns: list[np.ndarray], kinds: list[str], most: int) -> None:
        self._columns = columns if len(columns[0]) <= most else [column[:most] for column in columns]
        self.kinds = kinds
        self._made: list[np.ndarray] = []
        self.width = len(columns)
        for column, kind in zip(self._columns, kinds, strict=True):
            if column.dtype.kind == "M" and not _pythonic(column):
                raise NoColumns("a date or a time that Python has not")
            if kind.startswith(DECIMAL) and not _exact(column, 10.0 ** (DIGITS - _behind(kind))):
                raise NoColumns("a decimal of which a float has not all digits")

    def __len__(self) -> int:
        return len(self._columns[0])

    @property
    def nested(self) -> bool:
        """Whether there are structures."""
        return any(map(str.startswith, self.kinds, repeat(STRUCTURE)))

    @property
    def fields(self) -> list[tuple[str, ...] | None]:
        """For each column the names of its fields, sorted, or None if it has none; where there is a row."""
        return [tuple(sorted(cell)) if isinstance(cell, dict) else None for cell in self.row(0)]

    @property
    def _keys(self) -> list[np.ndarray]:
        """What is compared of the columns; made when there is another result, as two in a row are made sooner."""
        if not self._made:
            self._made = list(map(_key, self._columns))
        return self._made

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """The rows that the database gives where it is asked for rows."""
        return self._rows(slice(None))

    @cached_property
    def rows(self) -> Rows:
        """All of these."""
        return list(self)

    def row(self, place: int) -> tuple[Any, ...]:
        """One of them."""
        return next(self._rows(slice(place, place + 1)))

    def parted(self) -> Iterator[tuple[Any, ...]]:
        """Its rows with the fields of structures in place of these, which cannot be hashed.

        Raises:
            TypeError: if a structure is NULL.
        """
        columns: list[Any] = []
        for column, kind in zip(self._columns, self.kinds, strict=True):
            cells = _cells(column, kind)
            if kind.startswith(STRUCTURE):
                columns += [map(itemgetter(name), cells) for name in sorted(cells[0])]
            else:
                columns.append(cells)
        return zip(*columns, strict=True)

    def _rows(self, which: slice) -> Iterator[tuple[Any, ...]]:
        columns = zip(self._columns, self.kinds, strict=True)
        return zip(*[_cells(column[which], kind) for column, kind in columns], strict=True)

    def beside(self, other: Result) -> Columns:
        """The same with floats where another result has floats, in place of decimals and of numbers that equal one."""
        columns, kinds = list(self._columns), list(self.kinds)
        for place in _floats(other):
            kind = kinds[place]
            if kind.startswith(DECIMAL) or (kind in _INTEGERS and _exact(columns[place], WHOLE)):
                columns[place], kinds[place] = columns[place].astype(np.float64), "DOUBLE"
        return Columns(columns, kinds, len(self))

    @property
    def decimals(self) -> bool:
        """Whether there are decimals."""
        return any(map(str.startswith, self.kinds, repeat(DECIMAL)))

    def like(self, other: Columns) -> bool:
        """Whether columns are of such types that they are equal where rows are, one by one; others may not be."""
        return self.kinds == other.kinds or list(map(_family, self.kinds)) == list(map(_family, other.kinds))

    def plainly_equal(self, other: Columns) -> bool:
        """Whether all cells are equal in Python to those of another result as long, one by one: NaN is not."""
        for ours, theirs in zip(self._columns, other._columns, strict=True):
            if ours[:SOME].tolist() != theirs[:SOME].tolist() or ours.tolist() != theirs.tolist():
                return False
        return True

    def equal(self, other: Columns) -> bool:
        """Whether all rows are equal to those of another result as long, one by one."""
        ours, theirs = self._keys[0][:SOME].tolist(), other._keys[0][:SOME].tolist()
        return ours == theirs and all(map(same, self._keys, other._keys))

    def unequal(self, other: Columns) -> int:
        """The place of the first row that is not equal, where there is one."""
        return int(reduce(or_, [a != b for a, b in zip(self._keys, other._keys, strict=True)]).argmax())

    def stray(self, other: Columns) -> Excess | None:
        """A row of another result as long that is not here as often, if there is one.

        Rows are sorted by their numbers, or by all of their cells if numbers do not tell many apart; those that then
        are not equal, one by one, are counted.
        """
        if self.width == 1 and self._keys[0].dtype == object:
            return self._stray_text(other)
        if self.width == 1 and same(np.sort(self._keys[0]), np.sort(other._keys[0])):
            return None
        places = [place for place, key in enumerate(self._keys) if key.dtype != object]
        ours, here = self._sorted(places)
        if len(places) < self.width and np.count_nonzero(ours[1:] != ours[:-1]) < len(self) // 3:
            places = list(range(self.width))
            ours, here = self._sorted(places)
        theirs, there = other._sorted(places)
        if not same(ours, theirs):
            more = _more_often(ours, theirs)
            return self._excess(other, *_of(more, ours, theirs, here, there), list(range(self.width)))
        beside = [place for place in range(self.width) if [place] != places]  # of one column numbers are its own
        unlike = reduce(or_, [self._keys[k].take(here) != other._keys[k].take(there) for k in beside])
        rest = ours[unlike]
        if not len(rest):
            return None
        if rest[0] != rest[-1]:  # not all of these have one number there
            beside = list(range(self.width))
            if (first := self._excess(other, *_of(rest[0], ours, theirs, here, there), beside)) is not None:
                return first
        here, there = here[unlike], there[unlike]
        return self._excess(other, here, there, beside)

    def _excess(self, other: Columns, here: np.ndarray, there: np.ndarray, places: list[int]) -> Excess | None:
        """The same of some rows of both, which some columns tell apart."""
        as_many = len(here) == len(there)
        found = excess(self._items(here, places), other._items(there, places), as_many=as_many)
        if found is None:
            return None
        place = int(there[found.place])
        equal = reduce(and_, [ours == theirs[place] for ours, theirs in zip(self._keys, other._keys, strict=True)])
        return Excess(place, found.times, bool(equal.any()))

    def far(self, other: Columns, *, ordered: bool, tolerance: float) -> tuple[int, int] | None:
        """Two rows in like places, here and in another result as long, that are not nearly equal, if there are any.

        In any order rows are sorted by what is exact of them, and only among the same by their floats; of which what is
        nearly equal counts as the same before the next is looked at.
        """
        floats = [k for k, kind in enumerate(self.kinds) if kind in _FLOATS]
        exact = [k for k in range(self.width) if k not in floats]
        here = there = np.arange(len(self))
        if not ordered:
            keys = [(self._keys[k], other._keys[k]) for k in floats]
            pairs = [(ours.view(np.float64), theirs.view(np.float64)) for ours, theirs in keys]
            ranks = [(ours == NULL, theirs == NULL) for ours, theirs in keys]
            ranks += [ordinals(*pair, tolerance) for pair in pairs[:-1]] + pairs[-1:]
            if exact:
                ranks.insert(0, (_mixed([self._keys[k] for k in exact]), _mixed([other._keys[k] for k in exact])))
            here, there = (np.lexsort([pair[side] for pair in reversed(ranks)]) for side in (0, 1))
        unlike = np.zeros(len(self), bool)
        for place, (key, theirs) in enumerate(zip(self._keys, other._keys, strict=True)):
            wanted, found = key.take(here), theirs.take(there)
            alike = wanted == found
            if place in floats:
                both = (found != NULL) & (wanted != NULL)
                alike |= both & near(found.view(np.float64), wanted.view(np.float64), tolerance)
            unlike |= ~alike
        if not unlike.any():
            return None
        first = unlike.argmax()
        return int(here[first]), int(there[first])

    def _sorted(self, places: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """A number for each row, of some columns or else all, in ascending order; and the rows in this order."""
        numbers = _mixed([self._keys[place] for place in places or range(self.width)])
        order = numbers.argsort()
        return numbers.take(order), order

    def _items(self, rows: np.ndarray, places: list[int]) -> list[Any]:
        """What stands for some rows: a tuple of some of their cells, or the cell if it is but one."""
        cells: list[list[Any]] = [self._keys[place][rows].tolist() for place in places]
        return list(zip(*cells, strict=True)) if len(cells) > 1 else cells[0]

    def _stray_text(self, other: Columns) -> Excess | None:
        """The same where there is one column, of texts."""
        here = there = np.arange(len(self))
        null, nil = np.ma.getmask(self._columns[0]), np.ma.getmask(other._columns[0])
        nulls = np.count_nonzero(null)
        if nulls > 1 and nulls == np.count_nonzero(nil):  # which would repeat, and counting takes longer than a set
            here, there = np.flatnonzero(~null), np.flatnonzero(~nil)
        return self._excess(other, here, there, [0])


Result = Rows | Columns


def as_rows(result: Result) -> Rows:
    """The rows of a result, however it came."""
    return result.rows if isinstance(result, Columns) else result


def with_floats(rows: Rows, other: Result) -> Rows:
    """Rows with floats in place of decimals where another result has floats; the same list if there are none."""
    columns = list(zip(*rows, strict=True))
    decimals = [place for place in _floats(other) if Decimal in {*map(type, columns[place])}]
    for place in decimals:
        columns[place] = tuple(float(cell) if isinstance(cell, Decimal) else cell for cell in columns[place])
    return list(zip(*columns, strict=True)) if decimals else rows


def _floats(result: Result) -> list[int]:
    """The columns that have floats."""
    if isinstance(result, Columns):
        return [place for place, kind in enumerate(result.kinds) if kind in _FLOATS]
    return [place for place, cells in enumerate(zip(*result, strict=True)) if float in {*map(type, cells)}]


def near(numbers: np.ndarray, expected: np.ndarray, tolerance: float) -> Any:
    """Which floats are those that are expected, |a − b| ≤ tolerance · max(1, |b|).

    >>> near(np.array([1.0, 2.0, np.inf]), np.array([1.1, 2.0, 1.0]), 0.01)
    array([False,  True, False])
    """
    with np.errstate(invalid="ignore", over="ignore"):
        most = tolerance * np.maximum(1.0, abs(expected))
        return (numbers == expected) | ((abs(numbers - expected) <= most) & (most < math.inf))


def ordinals(numbers: np.ndarray, others: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Which place floats have among all of both, in ascending order; one that is near to the last has the same.

    >>> ordinals(np.array([3.0, 1.0]), np.array([1.001, np.nan]), 0.01)
    (array([1, 0]), array([0, 2]))
    """
    both = np.concatenate([numbers, others])
    order = both.argsort()
    last, these = both[order[:-1]], both[order[1:]]
    places = np.zeros(len(both), np.int64)
    places[order[1:]] = (~(near(these, last, tolerance) | ((these != these) & (last != last)))).cumsum()
    return places[: len(numbers)], places[len(numbers) :]


def sooner(result: Result) -> tuple[bool, bool]:
    """Whether one like it comes sooner as columns than as rows, to judge by its first row; and whether an answer may.

    Decimals may stand beside its floats. What is not plain comes as rows, however many.
    """
    rows = len(result)
    if isinstance(result, Columns):
        bulky = sooner_of(result.kinds, rows)
        return bulky, bulky or (rows >= DECIMALS and not _FLOATS.isdisjoint(result.kinds))
    if rows < DECIMALS or rows >= MANY:
        return rows >= MANY, False
    kinds = set(map(type, result[0]))
    bulky = Decimal in kinds or (dict in kinds and rows >= STRUCTURES)
    return bulky, bulky or float in kinds


def sooner_of(kinds: list[str], rows: int) -> bool:
    """Whether so many rows of plain cells of some types come sooner as columns."""
    if rows < DECIMALS or rows >= MANY:
        return rows >= MANY
    return any(map(str.startswith, kinds, repeat((DECIMAL, STRUCTURE) if rows >= STRUCTURES else DECIMAL)))


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether keys as long are the same."""
    if one.dtype == object:
        return bool(one.tolist() == other.tolist())
    return one.tobytes() == other.tobytes()


def _pythonic(column: np.ndarray) -> bool:
    """Whether Python has a date or a time for each of these moments."""
    moments = np.where(np.ma.getmaskarray(column), 0, np.asarray(column).view(np.int64))
    return not len(moments) or bool(moments.min() >= FIRST and moments.max() <= LAST)


def _family(kind: str) -> str:
    """What types have in common that are compared by the same numbers."""
    if kind in _INTEGERS:
        return "BIGINT"
    if kind in _FLOATS:
        return "DOUBLE"
    return DECIMAL if kind.startswith(DECIMAL) else kind


def _exact(column: np.ndarray, below: float) -> bool:
    """Whether all numbers are below one, and above its opposite."""
    numbers = column.compressed() if isinstance(column, np.ma.MaskedArray) else column
    return bool(abs(numbers).max(initial=0.0) < below)


def _key(column: np.ndarray) -> np.ndarray:
    """What is compared of a column: its texts, or for each cell that is none a whole number.

    Raises:
        NoColumns: if a number is the one that stands for NULL.
    """
    cells, missing = column, None
    if isinstance(column, np.ma.MaskedArray):
        cells, missing = np.asarray(column.data), np.ma.getmaskarray(column)
    if cells.dtype == object:
        return cells  # NULL is None
    numbers: np.ndarray
    if cells.dtype.kind == "f":  # by their bits, where 0.0 is added to -0.0: its bits would be NULL's
        floats = np.add(cells, 0.0, dtype=np.float64)
        floats[floats != floats] = math.nan  # which equals itself, as databases have it, but has many
        numbers = floats.view(np.int64)
    else:
        numbers = cells.astype(np.int64)  # microseconds of moments, and the bits of what has no sign
        taken = numbers == NULL
        if (taken if missing is None else taken & ~missing).any():
            raise NoColumns("a number that stands for NULL")
    if missing is not None:
        np.putmask(numbers, missing, NULL)
    return numbers


def _cells(column: np.ndarray, kind: str) -> list[Any]:
    """The cells of a column as Python's."""
    if kind == "DATE":
        return list(column.astype("M8[D]").tolist())
    cells: list[Any] = column.tolist()
    if kind.startswith(DECIMAL):
        behind = _behind(kind)
        return [cell if cell is None else Decimal(f"{cell:.{behind}f}") for cell in cells]
    return cells


def _behind(kind: str) -> int:
    """The digits of a decimal behind its point."""
    return int(kind.rstrip(")").split(",")[1])


def _more_often(ours: np.ndarray, theirs: np.ndarray) -> Any:
    """A number that stands more often in the second of two ascending arrays, which are as long and not the same."""
    often = ours.searchsorted(theirs, "right") - ours.searchsorted(theirs, "left")
    return theirs[(np.arange(len(theirs)) - theirs.searchsorted(theirs, "left") >= often).argmax()]


def _of(
    number: Any, ours: np.ndarray, theirs: np.ndarray, here: np.ndarray, there: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that have a number, of both results, where numbers ascend."""
    one = slice(ours.searchsorted(number), ours.searchsorted(number, "right"))
    other = slice(theirs.searchsorted(number), theirs.searchsorted(number, "right"))
    return here[one], there[other]


def _mixed(keys: list[np.ndarray]) -> np.ndarray:
    """A number for each row: the same where rows are the same, and seldom where they are not."""
    mixed = _hashed(keys[0])
    for key in keys[1:]:
        mixed = mixed * MIXING + _hashed(key)
    return mixed


def _hashed(key: np.ndarray) -> np.ndarray:
    return np.fromiter(map(hash, key.tolist()), np.int64, len(key)) if key.dtype == object else key
