"""Whether two results are the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import chain
from types import NoneType
from typing import Any

from guerdon.core.parsing import shown
from guerdon.rewards.sql.columns import Columns, Result, Rows, as_rows, with_floats
from guerdon.rewards.sql.counting import excess
from guerdon.rewards.sql.nearly import far
from guerdon.rewards.sql.settling import columns_of, look_alike, looks, nested, parts, settled, special

MOST = 64 << 20  # characters and bytes of a result, or what is expected has if that is more
SOON_SORTED = 64  # rows that are sorted sooner than hashed

_LONG: set[type] = {str, bytes}


def difference(expected: Result, result: Result, *, ordered: bool, tolerance: float = 0.0) -> str | None:
    """How a whole result differs from what is expected; None if it does not.

    Cells are equal as in Python (1 == 1.0 == True, None == None); NaN equals NaN, and a decimal beside floats the one
    that is nearest to it, as databases have it.

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
        return _counted(len(result), len(expected))
    if isinstance(expected, Columns) and isinstance(result, Columns) and len(expected):
        if not (alike := expected.like(result)):
            expected, result = expected.beside(result), result.beside(expected)
            alike = expected.like(result)
        if alike and not expected.nested:
            return _unlike_columns(expected, result, ordered, tolerance)
        if alike and expected.plainly_equal(result):
            return None
        if expected.nested and not ordered and not tolerance and (alike or expected.fields == result.fields):
            return _unlike_structures(expected, result)
    elif isinstance(expected, Columns) and expected.decimals:
        expected = expected.beside(result)
    elif isinstance(result, Columns) and result.decimals:
        result = result.beside(expected)
    wanted, rows = as_rows(expected), as_rows(result)
    if rows == wanted:
        return None
    told = _unlike_rows(wanted, rows, ordered, tolerance)
    if told and _decimals_beside_floats(wanted[0], rows[0]):
        ours, theirs = with_floats(wanted, rows), with_floats(rows, wanted)
        if ours is not wanted or theirs is not rows:
            told = _unlike_rows(ours, theirs, ordered, tolerance)
    return told


def difference_of_pieces(
    expected: Rows, pieces: Iterator[Rows], *, ordered: bool, tolerance: float = 0.0
) -> str | None:
    """The same of a result that comes some rows at a time.

    The rest is not asked for where the first row that is not in its place is not expected at all, or where there are
    more rows than expected, or longer ones.
    """
    alike = 0
    for piece in pieces:
        if piece != expected[alike : alike + len(piece)]:
            break
        alike += len(piece)
    else:
        return None if alike == len(expected) else _counted(alike, len(expected))
    unsettled = special(piece[:1]) or _decimals_beside_floats(*piece[:1], *expected[:1])
    if not ordered and not tolerance and not unsettled and piece[0] not in expected[alike:]:
        return _stray(piece[0], piece[0] in expected)
    rows = expected[:alike]
    size, most = 0, MOST
    for more in chain([piece], pieces):
        rows += more
        if len(rows) > len(expected):
            break
        size += _size(more)
        if size > most and size > (most := max(most, _size(expected))):
            return "has longer rows than are expected"
    return difference(expected, rows, ordered=ordered, tolerance=tolerance)


def _unlike_columns(expected: Columns, result: Columns, ordered: bool, tolerance: float) -> str | None:
    """How columns differ that are as long."""
    if expected.equal(result):
        return None
    if tolerance:
        pair = expected.far(result, ordered=ordered, tolerance=tolerance)
        return pair and _displaced(expected.row(pair[0]), result.row(pair[1]))
    if ordered:
        return f"differs in row {expected.unequal(result) + 1}"
    found = expected.stray(result)
    return found and _stray(result.row(found.place), found.expected)


def _unlike_rows(expected: Rows, rows: Rows, ordered: bool, tolerance: float) -> str | None:
    """How rows differ, of which there are as many."""
    if tolerance:
        if not ordered and _soon_same(expected, rows):
            return None
        pair = far(expected, rows, ordered=ordered, tolerance=tolerance)
        return pair and _displaced(*pair)
    return _misplaced(expected, rows) if ordered else _unmatched(expected, rows)


def _decimals_beside_floats(*firsts: tuple[Any, ...]) -> bool:
    """Whether there may be some, to judge by the first rows of both; NULL may hide them."""
    kinds = {*map(type, chain(*firsts))}
    return NoneType in kinds or kinds >= {Decimal, float}


def _misplaced(expected: Rows, rows: Rows) -> str | None:
    """How lists differ that are not the same in Python."""
    place = _first_unlike(expected, rows)
    if place is not None and special([expected[place], rows[place]]):
        place = _first_unlike(settled(expected), settled(rows))
    return None if place is None else f"differs in row {place + 1}"


def _first_unlike(expected: Rows, rows: Rows) -> int | None:
    return next((k for k, (one, other) in enumerate(zip(expected, rows, strict=True)) if one != other), None)


def _soon_same(expected: Rows, rows: Rows) -> bool:
    """Whether multisets are the same; False may also mean that this cannot tell."""
    try:
        if len(rows) <= SOON_SORTED:
            return sorted(rows) == sorted(expected)
        return excess(expected, rows) is None
    except TypeError:  # NULL or another mixture, or what is nested
        return False


def _unmatched(expected: Rows, rows: Rows) -> str | None:
    """How multisets differ."""
    if nested(rows[0]):
        return _unlike_nested(expected, rows)
    try:
        if len(rows) <= SOON_SORTED and sorted(rows) == sorted(expected):
            return None
    except TypeError:  # NULL, or another mixture
        pass
    try:
        found = excess(expected, rows)
    except TypeError:  # NULL was the first, and what is nested cannot be hashed
        return _unlike_nested(expected, rows)
    if found is None:
        return None
    if not special([rows[found.place]]):
        return _stray(rows[found.place], found.expected)
    return _unlike_nested(expected, rows)


def _unlike_structures(expected: Columns, result: Columns) -> str | None:
    """How multisets differ where there are structures."""
    try:
        return _unlike_by(Columns.parted, expected, result)
    except TypeError:  # one is NULL, or what is in it cannot be hashed
        return _unlike_nested(expected, result)


def _unlike_nested(expected: Result, result: Result) -> str | None:
    """How multisets differ where there is NaN or what is nested."""
    wanted, rows = as_rows(expected), as_rows(result)
    if not look_alike(wanted[0], rows[0]):
        try:
            return _unlike_by(parts, wanted, rows)
        except (TypeError, KeyError):  # NULL, maps, or what is nested further
            pass
    try:
        return _unlike_by(looks, wanted, rows)
    except ValueError:  # dates and the like are in it
        return _unlike_by(_printed, wanted, rows)


def _printed(rows: Rows) -> Iterator[str]:
    return map(repr, rows)


def _unlike_by(look: Callable[[Any], Iterator[Any]], expected: Result, result: Result) -> str | None:
    """The same, where what rows look like is only the same where they are.

    Of those that do not look the same it is settled what they are.
    """
    found = excess(expected, result, look)
    if found is None:
        return None
    wanted, row = as_rows(expected), result.row(found.place) if isinstance(result, Columns) else result[found.place]
    if "nan" not in repr(row) and (often := wanted.count(row)) < found.times:
        return _stray(row, often > 0)
    rows, ours, theirs = as_rows(result), list(look(expected)), list(look(result))
    less, more = Counter(ours), Counter(theirs)
    left = list(map(dict(zip(ours, wanted, strict=True)).__getitem__, (less - more).elements()))
    over = list(map(dict(zip(theirs, rows, strict=True)).__getitem__, (more - less).elements()))
    items = settled(over)
    found = excess(settled(left), items)
    return found and _stray(over[found.place], items[found.place] in settled(wanted))


def _counted(rows: int, expected: int) -> str:
    return f"has more than {expected} rows" if rows > expected else f"has {rows} rows, not {expected}"


def _stray(row: Any, expected: bool) -> str:
    return f"has a row {'too often' if expected else 'that is not expected'}: {shown(row)}"


def _displaced(expected: Any, row: Any) -> str:
    return f"has {shown(row)} where {shown(expected)} is expected"


def _size(rows: Rows) -> int:
    """The characters and bytes of rows."""
    size = 0
    for cells in columns_of(rows):
        kinds = {*map(type, cells)}
        if not kinds.isdisjoint(_LONG):
            size += sum(map(len, cells if kinds <= _LONG else [cell for cell in cells if type(cell) in _LONG]))
    return size
