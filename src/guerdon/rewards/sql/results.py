"""Whether two results are the same rows."""

from __future__ import annotations

import marshal
from collections import Counter, deque
from collections.abc import Iterator
from enum import Enum
from itertools import chain, islice, repeat
from operator import itemgetter, ne
from typing import Any

from guerdon.core.parsing import shown
from guerdon.rewards.sql.columns import Columns, Result, Rows, as_rows
from guerdon.rewards.sql.counting import as_often, some

MOST = 64 << 20  # characters and bytes of a result that is not compared row by row as it comes
SOON_SORTED = 64  # rows that are sorted sooner than hashed

_NUMBERS: set[type] = {int, float}
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
        if expected.equal(result):
            return None
        if not tolerance:
            return _unlike_columns(expected, result, ordered)
    rows, other = as_rows(expected), as_rows(result)
    if rows == other or (not ordered and not tolerance and _soon_same(rows, other)):
        return None
    return _unlike(rows, 0, iter([other]), ordered, tolerance)


def difference_of_pieces(
    expected: Rows, pieces: Iterator[Rows], *, ordered: bool, tolerance: float = 0.0, settled: bool = False
) -> str | None:
    """The same of a result that comes some rows at a time.

    Not much more is fetched than it takes to see a difference: where the first row is not among those expected the
    rest is not asked for, and never many more rows than are expected.

    Args:
        expected: the rows.
        pieces: the other result.
        ordered: see `difference`.
        tolerance: see `difference`.
        settled: whether all cells equal themselves and can be hashed.
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
    return _unlike(expected, alike, others, ordered, tolerance, settled)


def _unlike_columns(expected: Columns, result: Columns, ordered: bool) -> str | None:
    """How columns differ that are as long."""
    if ordered:
        return f"differs in row {expected.unequal(result) + 1}"
    found = expected.stray(result)
    return None if found is None else _stray(result.row(found[0]), found[1])


def _soon_same(expected: Rows, rows: Rows) -> bool:
    """Whether as many rows are the same, each as often; False may also mean that this cannot tell."""
    if len(rows) <= SOON_SORTED:
        try:
            if sorted(rows) == sorted(expected):
                return True
        except TypeError:  # NULL, or another mixture
            pass
    try:
        return as_often(expected, rows)
    except TypeError:  # lists and structures, of DuckDB
        pass
    try:
        return as_often(_dumped(expected), _dumped(rows))
    except ValueError:  # dates and the like in them
        return as_often(list(map(repr, expected)), list(map(repr, rows)))


def _dumped(rows: Rows) -> list[bytes]:
    """Rows as bytes that are only the same where the rows are; made in half the time of their `repr`.

    Raises:
        ValueError: if a cell is of a type that has none.
    """
    return list(map(marshal.dumps, rows, repeat(2)))  # of this version no other object bears on it


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


def _unlike(
    expected: Rows, alike: int, pieces: Iterator[Rows], ordered: bool, tolerance: float, settled: bool = False
) -> str | None:
    """How a result differs of which so many rows at the beginning do not.

    Where NaN or something nested may be to blame it is settled what such cells are, and looked at again.
    """
    rest = expected[alike:]
    seen: list[Rows] = []
    if not tolerance:
        try:
            why, blamed = (_misplaced if ordered else _unmatched)(rest, _noted(pieces, seen), alike)
            if settled or not any(map(_special, blamed)):
                return why
        except TypeError:
            if settled:
                return "has cells that cannot be compared"
    elif settled or not any(map(_special, rest)):
        return _far(rest, pieces, ordered, tolerance)
    begun = chain([expected[:alike]], seen, pieces)
    return difference_of_pieces(
        _settled(expected), map(_settled, begun), ordered=ordered, tolerance=tolerance, settled=True
    )


def _noted(pieces: Iterator[Rows], seen: list[Rows]) -> Iterator[Rows]:
    for piece in pieces:
        seen.append(piece)
        yield piece


def _special(row: tuple[Any, ...]) -> bool:
    """Whether a cell does not equal itself, or is nested."""
    return any(map(ne, row, row)) or not _NESTED.isdisjoint(map(type, row))


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
        size += sum([len(cell) for row in piece for cell in row if type(cell) is str or type(cell) is bytes])
        if len(rows) > most or size > MOST:
            return rows, False
    return rows, True


def _settled(rows: Rows) -> Rows:
    """Rows of cells that equal themselves and can be hashed."""
    return [tuple(map(_settle, row)) for row in rows]


def _settle(cell: Any) -> Any:
    if isinstance(cell, dict):
        cell = sorted(cell.items(), key=repr)
    if isinstance(cell, (list, tuple)):
        return _Parts(map(_settle, cell))
    return _Special.NAN if cell != cell else cell


def _far(expected: Rows, pieces: Iterator[Rows], ordered: bool, tolerance: float) -> str | None:
    rows, whole = _gathered(pieces, len(expected))
    if not whole:
        return "has too many rows, or too long ones"
    if len(rows) != len(expected):
        return f"lacks {len(expected) - len(rows)} rows"
    if not ordered:
        floats = {k for row in chain(rows, expected) for k, cell in enumerate(row) if isinstance(cell, float)}
        rows, expected = (sorted(some, key=lambda row: _rank(row, floats)) for some in (rows, expected))
    for row, other in zip(rows, expected, strict=True):
        if not all(_near(a, b, tolerance) for a, b in zip(row, other, strict=True)):
            return f"has {shown(row)} where {shown(other)} is expected"
    return None


def _near(value: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(value, (int, float)) and isinstance(expected, (int, float)):
        return value == expected or (
            (isinstance(value, float) or isinstance(expected, float))
            and abs(value - expected) <= tolerance * max(1.0, abs(expected))
        )
    return bool(value == expected)


def _rank(row: tuple[Any, ...], floats: set[int]) -> tuple[Any, ...]:
    """An order of rows in which those that are nearly equal stand in like places: floats count last."""
    exact = [_cell(cell) for k, cell in enumerate(row) if k not in floats]
    return (exact, [_cell(row[k]) for k in sorted(floats)])


def _cell(cell: Any) -> tuple[int, Any]:
    if cell is None:
        return (0, 0)
    if isinstance(cell, (int, float)):
        return (1, cell)
    return (2, repr(cell))
