"""Whether two results are the same rows."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from itertools import chain
from typing import Any

from guerdon.core.parsing import shown
from guerdon.rewards.sql.databases import Rows

MOST = 64 << 20  # characters and bytes of a result that is not compared row by row as it comes
SOME = 16  # rows at the beginning, and as many behind them, that are looked at to see whether first cells repeat


def difference(expected: Rows, pieces: Iterator[Rows], *, ordered: bool, tolerance: float = 0.0) -> str | None:
    """How a result differs from what is expected; None if it does not.

    Cells are equal as in Python (1 == 1.0 == True, None == None). No more is fetched than it takes to see a
    difference: at the first row that is not among those expected the rest is not asked for.

    Args:
        expected: the rows.
        pieces: the other result, some rows at a time.
        ordered: whether rows have to come in the same order. Otherwise each has to come as often.
        tolerance: how far two numbers may differ, |a − b| ≤ tolerance · max(1, |b|), where one of them is a float.

    >>> difference([(1,), (1,), (2,)], iter([[(2,), (1,), (1,)]]), ordered=False)
    >>> difference([(1,), (1,), (2,)], iter([[(2,), (2,), (1,)]]), ordered=False)
    'has a row too often: (2,)'
    """
    same = 0
    for piece in pieces:
        if piece != expected[same : same + len(piece)]:
            break
        same += len(piece)
    else:
        return None if same == len(expected) else f"has {same} rows, not {len(expected)}"
    rest, others = expected[same:], chain([piece], pieces)
    if tolerance:
        return _far(rest, others, ordered, tolerance)
    if ordered:
        place = next((k for k, (a, b) in enumerate(zip(piece, rest, strict=False)) if a != b), len(rest))
        return f"differs in row {same + place + 1}"
    try:
        return _unmatched(rest, others)
    except TypeError:  # lists and structures, of DuckDB
        return _unmatched(list(map(repr, rest)), (list(map(repr, rows)) for rows in others))


def same(expected: Rows, rows: Rows) -> bool:
    """Whether a whole result has the rows that are expected, in any order, if no two of them are the same; else False.

    Where the first cells say which row each must be, only these are hashed.

    >>> same([(1, "a"), (1, "b")], [(1, "b"), (1, "a")])
    True
    """
    if len(rows) != len(expected):
        return False
    some = expected[:SOME] + expected[SOME :: len(expected) // SOME + 1]
    try:
        if len({row[0] for row in some}) == len(some):
            known = {row[0]: row for row in expected}
            if len(known) == len(expected):
                return [known.pop(row[0]) for row in rows] == rows
        left = set(expected)
        if len(left) == len(expected):
            left.difference_update(rows)
            return not left
    except (KeyError, TypeError):  # another cell; lists and structures, of DuckDB
        pass
    return False


def _unmatched(expected: list[Any], pieces: Iterator[list[Any]]) -> str | None:
    """What is not the same in two multisets."""
    left = set(expected)
    copies = Counter(expected) if len(left) < len(expected) else None
    count = 0
    for piece in pieces:
        try:
            if copies is None:
                deque(map(left.remove, piece), maxlen=0)  # without a loop in Python, and hashing each row once
            else:
                for row in piece:
                    if not (more := copies[row]):
                        raise KeyError(row)
                    copies[row] = more - 1
        except KeyError as error:
            return _stray(error.args[0], error.args[0] in set(expected))
        count += len(piece)
    return f"lacks {len(expected) - count} rows" if count < len(expected) else None


def _stray(row: Any, expected: bool) -> str:
    return f"has a row {'too often' if expected else 'that is not expected'}: {shown(row)}"


def _far(expected: Rows, pieces: Iterator[Rows], ordered: bool, tolerance: float) -> str | None:
    rows: Rows = []
    size = 0
    for piece in pieces:
        rows += piece
        size += sum(len(cell) for row in piece for cell in row if isinstance(cell, (str, bytes)))
        if len(rows) > len(expected) or size > MOST:
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
