"""Whether two results are the same rows."""

from __future__ import annotations

import marshal
import math
from collections import Counter, deque
from collections.abc import Iterator
from enum import Enum
from functools import partial
from itertools import chain, islice, repeat
from operator import itemgetter, ne
from typing import Any

import numpy as np

from guerdon.core.parsing import shown
from guerdon.rewards.sql.columns import Columns, Result, Rows, as_rows, near_to
from guerdon.rewards.sql.counting import as_often, excess, some

MOST = 64 << 20  # characters and bytes of a result that is not compared row by row as it comes
SOON_SORTED = 64  # rows that are sorted sooner than hashed

_NUMBERS: set[type] = {int, float}
_LONG: set[type] = {str, bytes}
_NESTED = {list, tuple, dict}  # lists, arrays, structures and maps, of DuckDB


class _Special(Enum):
    NAN = "nan"  # which equals itself, as databases have it

    def __repr__(self) -> str:
        return self.value


class _Parts(tuple[Any, ...]):
    """What was nested, and can be hashed."""


def difference(expected: Result, result: Result, *, ordered: bool, tolerance: float = 0.0) -> str | None:
    """How a whole result differs from what is expected; None if it does not.

    Cells are equal as in Python (1 == 1.0 == True, None == None), and NaN equals NaN, as databases have it.

    Args:
        expected: the rows.
        result: the other result. Of one that has more rows one more than expected will do.
        ordered: whether rows have to come in the same order. Otherwise each has to come as often.
        tolerance: how far two numbers may differ, |a − b| ≤ tolerance · max(1, |b|), where one of them is a float.

    >>> difference([(1,), (1,), (2,)], [(2,), (1,), (1,)], ordered=False)
    >>> difference([(1,), (1,), (2,)], [(2,), (2,), (1,)], ordered=False)
    'has a row too often: (2,)'
    """
    if len(result) != len(expected):
        more = len(result) > len(expected)
        return f"has more than {len(expected)} rows" if more else f"has {len(result)} rows, not {len(expected)}"
    if isinstance(expected, Columns) and isinstance(result, Columns) and expected.like(result):
        return _unlike_columns(expected, result, ordered, tolerance)
    rows, other = as_rows(expected), as_rows(result)
    if rows == other:
        return None
    if not ordered:
        try:
            if _soon_same(rows, other):
                return None
        except TypeError:
            if not tolerance:
                return _unlike_looks(rows, other)
    if tolerance:
        return _far(rows, other, ordered, tolerance)
    return _unlike(rows, 0, iter([other]), ordered)


def difference_of_pieces(
    expected: Rows, pieces: Iterator[Rows], *, ordered: bool, tolerance: float = 0.0
) -> str | None:
    """The same of a result that comes some rows at a time.

    Not much more is fetched than it takes to see a difference: where the first row is not among those expected the
    rest is not asked for, and never many more rows than are expected.

    Args:
        expected: the rows.
        pieces: the other result.
        ordered: see `difference`.
        tolerance: see `difference`.
    """
    alike = 0
    for piece in pieces:
        if piece != expected[alike : alike + len(piece)]:
            break
        alike += len(piece)
    else:
        return _lacking(len(expected) - alike)
    rest, others = expected[alike:], chain([piece], pieces)
    # Sorted lists are compared sooner than sets are made, and in half the time of counting where rows repeat.
    if not ordered and not tolerance and piece[0] in rest and (place := _telling(some(rest))) is not None:
        rows, whole = _gathered(others, len(rest))
        if whole and _sorted_alike(rest, rows, place):
            return None
        others = chain([rows], others)
    if tolerance:
        rows, whole = _gathered(others, len(rest))
        if not whole:
            return "has too many rows, or too long ones"
        return _lacking(len(rest) - len(rows)) or _far(rest, rows, ordered, tolerance)
    return _unlike(expected, alike, others, ordered)


def _unlike_columns(expected: Columns, result: Columns, ordered: bool, tolerance: float) -> str | None:
    """How columns differ that are as long."""
    if expected.equal(result):
        return None
    if tolerance:
        pair = expected.far(result, ordered=ordered, tolerance=tolerance)
        return pair and _displaced(result.row(pair[1]), expected.row(pair[0]))
    if ordered:
        return f"differs in row {expected.unequal(result) + 1}"
    found = expected.stray(result)
    return found and _stray(result.row(found[0]), found[1])


def _soon_same(expected: Rows, rows: Rows) -> bool:
    """Whether as many rows are the same, each as often; False may also mean that this cannot tell.

    Raises:
        TypeError: if cells cannot be hashed, as lists and structures of DuckDB cannot.
    """
    if len(rows) <= SOON_SORTED:
        try:
            if sorted(rows) == sorted(expected):
                return True
        except TypeError:  # NULL, or another mixture
            pass
    return as_often(expected, rows)


def _unlike_looks(expected: Rows, rows: Rows) -> str | None:
    """How rows differ that have NaN or something nested: it is settled what those are that do not look the same."""
    ours, theirs = _looks(expected, rows)
    if len(ours) == len(theirs) and as_often(ours, theirs):
        return None
    found = excess(ours, theirs)
    if found is None:
        return _lacking(len(ours) - len(theirs))
    row = rows[found[0]]
    if "nan" not in repr(row) and rows.count(row) > expected.count(row):
        return _stray(row, row in expected)
    less, more = Counter(ours), Counter(theirs)
    left = list(map(dict(zip(ours, expected, strict=True)).__getitem__, (less - more).elements()))
    over = list(map(dict(zip(theirs, rows, strict=True)).__getitem__, (more - less).elements()))
    found = excess(_settled(left), _settled(over))
    if found is None:
        return _lacking(len(left) - len(over))
    (row,) = _settled([over[found[0]]])
    return _stray(row, row in _settled(expected))


def _looks(expected: Rows, rows: Rows) -> tuple[list[Any], list[Any]]:
    """For all rows of both results what is only the same where they are, though 1 and 1.0 look different."""
    try:  # in half the time of `repr`; of this version no other object bears on it
        return list(map(marshal.dumps, expected, repeat(2))), list(map(marshal.dumps, rows, repeat(2)))
    except ValueError:  # dates and the like in them
        return list(map(repr, expected)), list(map(repr, rows))


def _kinds(items: list[Any]) -> int:
    """How many are not the same, as far as can be told."""
    try:
        return len(set(items))
    except TypeError:  # lists and structures, of DuckDB
        return len(items)


def _telling(rows: Rows) -> int | None:
    """The first column of numbers that tells rows apart which are not the same, if there is one."""
    kinds = _kinds(rows)
    for place, cells in enumerate(zip(*rows, strict=True)):
        if _NUMBERS.issuperset(map(type, cells)) and len(set(cells)) == kinds:
            return place
    return None


def _sorted_alike(expected: Rows, rows: Rows, place: int) -> bool:
    """Whether rows are the same, one by one, when sorted by a column; if not, they may still be the same."""
    key = itemgetter(place)
    try:
        return sorted(rows, key=key) == sorted(expected, key=key)
    except TypeError:  # NULL among numbers
        return False


def _unlike(expected: Rows, alike: int, pieces: Iterator[Rows], ordered: bool) -> str | None:
    """How a result differs of which so many rows at the beginning do not.

    Where NaN or something nested may be to blame it is settled what such cells are, and looked at again.
    """
    rest = expected[alike:]
    seen: list[Rows] = []
    try:
        why, blamed = (_misplaced if ordered else _unmatched)(rest, _noted(pieces, seen), alike)
        if not _special(blamed):
            return why
    except TypeError:
        pass
    pieces = chain(seen, pieces)
    if not ordered:
        rows, whole = _gathered(pieces, len(rest))
        if whole:
            return _unlike_looks(rest, rows)
        pieces = chain([rows], pieces)
    begun = map(_settled, chain([expected[:alike]], pieces))
    return difference_of_pieces(_settled(expected), begun, ordered=ordered)


def _noted(pieces: Iterator[Rows], seen: list[Rows]) -> Iterator[Rows]:
    for piece in pieces:
        seen.append(piece)
        yield piece


def _special(rows: Rows) -> bool:
    """Whether a cell does not equal itself, or is nested."""
    return any(
        any(map(ne, cells, cells)) or not _NESTED.isdisjoint(map(type, cells)) for cells in zip(*rows, strict=True)
    )


def _misplaced(expected: Rows, pieces: Iterator[Rows], alike: int) -> tuple[str | None, Rows]:
    """What is not the same in two lists, of which the first piece is not; and the rows that show it."""
    piece = next(pieces)
    pairs = enumerate(zip(piece, expected, strict=False))
    place = next((k for k, (one, other) in pairs if one != other), len(expected))
    return f"differs in row {alike + place + 1}", piece[place : place + 1] + expected[place : place + 1]


def _unmatched(expected: Rows, pieces: Iterator[Rows], alike: int) -> tuple[str | None, Rows]:
    """The same of two multisets."""
    left = set(expected)
    return _missing(expected, left, pieces) if len(left) == len(expected) else _miscounted(expected, pieces)


def _missing(expected: Rows, left: set[Any], pieces: Iterator[Rows]) -> tuple[str | None, Rows]:
    """The same where no row repeats: those that come are taken from the set of those that are expected."""
    count = 0
    for piece in pieces:
        try:
            deque(map(left.remove, piece), maxlen=0)  # without a loop in Python, and hashing each row once
        except KeyError as error:
            row = error.args[0]
            return _stray(row, row in set(expected)), [row]
        count += len(piece)
    return _lacking(len(expected) - count), []


def _miscounted(expected: Rows, pieces: Iterator[Rows]) -> tuple[str | None, Rows]:
    """The same where rows repeat: those that come are counted on top of those that are expected."""
    counts = Counter(expected)
    wanted = list(counts.values())
    lacking = len(expected)
    for piece in pieces:
        counts.update(piece)
        lacking -= len(piece)
        if lacking < 0 or len(counts) > len(wanted):
            break
    for row in islice(counts, len(wanted), None):
        return _stray(row, False), [row]
    for row, count, once in zip(counts, counts.values(), wanted, strict=True):
        if count > 2 * once:
            return _stray(row, True), [row]
    return _lacking(lacking), []


def _stray(row: Any, expected: bool) -> str:
    return f"has a row {'too often' if expected else 'that is not expected'}: {shown(row)}"


def _lacking(rows: int) -> str | None:
    return f"lacks {rows} rows" if rows else None


def _gathered(pieces: Iterator[Rows], most: int) -> tuple[Rows, bool]:
    """The rows of a result, and whether these are all; it is left off where it has more, or is too long to be kept."""
    rows: Rows = []
    size = 0
    for piece in pieces:
        rows += piece
        size += sum(map(_size, zip(*piece, strict=True)))
        if len(rows) > most or size > MOST:
            return rows, False
    return rows, True


def _size(cells: tuple[Any, ...]) -> int:
    """The characters and bytes of a column."""
    kinds = {*map(type, cells)}
    if kinds.isdisjoint(_LONG):
        return 0
    return sum(map(len, cells if kinds <= _LONG else [cell for cell in cells if type(cell) in _LONG]))


def _settled(rows: Rows) -> Rows:
    """Rows of cells that equal themselves and can be hashed."""
    return [tuple(map(_settle, row)) for row in rows]


def _settle(cell: Any) -> Any:
    if isinstance(cell, dict):
        cell = sorted(cell.items(), key=repr)
    if isinstance(cell, (list, tuple)):
        return _Parts(map(_settle, cell))
    if cell != cell:
        return _Special.NAN
    return repr(cell) if type(cell).__hash__ is None else cell


def _far(expected: Rows, rows: Rows, ordered: bool, tolerance: float) -> str | None:
    """How as many rows differ by more than a tolerance."""
    columns = list(zip(zip(*rows, strict=True), zip(*expected, strict=True), strict=True))
    kinds = [{*map(type, ours), *map(type, theirs)} for ours, theirs in columns]
    floats = [k for k, types in enumerate(kinds) if float in types]
    if any(any(map(ne, columns[k][1], columns[k][1])) for k in floats) or not _NESTED.isdisjoint(chain(*kinds)):
        return _far(_settled(expected), _settled(rows), ordered, tolerance)
    if not ordered:
        rows, expected = _ranked(rows, expected, floats)
    place = _first_far(rows, expected, tolerance)
    return None if place is None else _displaced(rows[place], expected[place])


def _displaced(row: Any, expected: Any) -> str:
    return f"has {shown(row)} where {shown(expected)} is expected"


def _first_far(rows: Rows, expected: Rows, tolerance: float) -> int | None:
    """The place of the first row that is not nearly equal, if there is one."""
    first = len(rows)
    for ours, theirs in zip(zip(*rows, strict=True), zip(*expected, strict=True), strict=True):
        if ours == theirs:
            continue
        if {*map(type, ours), *map(type, theirs)} == {float}:
            far = np.flatnonzero(~near_to(np.array(ours), np.array(theirs), tolerance)[:first])
            first = int(far[0]) if len(far) else first
        else:
            pairs = enumerate(zip(ours[:first], theirs, strict=False))
            first = next((k for k, (one, other) in pairs if not _near(one, other, tolerance)), first)
    return first if first < len(rows) else None


def _near(value: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(value, (int, float)) and isinstance(expected, (int, float)):
        return value == expected or (
            (isinstance(value, float) or isinstance(expected, float))
            and abs(value - expected) <= tolerance * max(1.0, abs(expected)) < math.inf
        )
    return bool(value == expected)


def _ranked(rows: Rows, expected: Rows, floats: list[int]) -> tuple[Rows, Rows]:
    """Both in an order in which those that are nearly equal stand in like places: floats count last."""
    places = [k for k in range(len(rows[0])) if k not in floats] + floats
    try:
        key: Any = itemgetter(*places)
        return sorted(rows, key=key), sorted(expected, key=key)
    except TypeError:  # NULL, or another mixture
        key = partial(_rank, floats=floats)
        return sorted(rows, key=key), sorted(expected, key=key)


def _rank(row: tuple[Any, ...], floats: list[int]) -> tuple[Any, ...]:
    exact = [_cell(cell) for k, cell in enumerate(row) if k not in floats]
    return (exact, [_cell(row[k]) for k in floats])


def _cell(cell: Any) -> tuple[int, Any]:
    if cell is None:
        return (0, 0)
    if isinstance(cell, (int, float)):
        return (1, cell)
    return (2, repr(cell))
