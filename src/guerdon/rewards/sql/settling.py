"""Cells that do not equal themselves, or cannot be hashed: NaN, and the lists, structures and maps of DuckDB."""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from enum import Enum
from itertools import repeat
from operator import ne
from typing import Any

from guerdon.rewards.sql.columns import Result, Rows

_NESTED = {list, tuple, dict}


class _Special(Enum):
    NAN = "nan"  # which equals itself, as databases have it

    def __repr__(self) -> str:
        return self.value


class _Parts(tuple[Any, ...]):
    """What was nested, and can be hashed."""


def special(rows: Rows) -> bool:
    """Whether there are such cells.

    >>> special([(1, "a"), (None, "b")]), special([(1, [2])])
    (False, True)
    """
    return any(map(special_cells, zip(*rows, strict=True)))


def special_cells(cells: tuple[Any, ...]) -> bool:
    """The same of a column."""
    kinds = {*map(type, cells)}
    return not _NESTED.isdisjoint(kinds) or (float in kinds and any(map(ne, cells, cells)))


def settled(rows: Rows) -> Rows:
    """Rows in place of these that have none, and are equal where these are.

    >>> settled([(float("nan"), [1])]) == settled([(float("nan"), [1.0])])
    True
    """
    return [tuple(map(_settle, row)) for row in rows]


def _settle(cell: Any) -> Any:
    if isinstance(cell, dict):
        cell = sorted(cell.items(), key=repr)
    if isinstance(cell, (list, tuple)):
        return _Parts(map(_settle, cell))
    if cell != cell:
        return _Special.NAN
    return repr(cell) if type(cell).__hash__ is None else cell


def looks(result: Result) -> Iterator[bytes]:
    """For all rows of a result what is only the same where they are, and made in half the time of `repr`.

    1 and 1.0 look different. Of this version no other object bears on what one looks like.

    Raises:
        ValueError: if there are dates and the like in them, once it comes to those.

    >>> list(looks([([1],)])) == list(looks([([1],)]))
    True
    """
    return map(marshal.dumps, result, repeat(2))
