"""Multisets of what can be hashed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import compress, count
from operator import not_
from typing import Any, NamedTuple

SOME = 32  # items at the beginning, and as many behind them, that are looked at to see what repeats


def some(items: list[Any]) -> list[Any]:
    """A few of many, for a guess at the rest."""
    return items[:SOME] + items[SOME :: len(items) // SOME + 1]


class Excess(NamedTuple):
    """An item that is not expected as often as it is there."""

    place: int  # the first that it has
    times: int  # that it is there, or more
    expected: bool  # at all


def excess(expected: list[Any], items: Callable[[], Iterable[Any]], *, as_many: bool = True) -> Excess | None:
    """An item that is not expected as often as it is there, if there is one.

    Args:
        expected: all items that are.
        items: gives those that there are, from the first at each call.
        as_many: whether there are as many.

    Raises:
        TypeError: if one of them cannot be hashed.

    >>> excess([1, 1, 2], [2, 1, 1].__iter__), excess([1, 1, 2], [2, 2, 1].__iter__)
    (None, Excess(place=0, times=2, expected=True))
    """
    few = some(expected)
    if as_many and len(set(few)) == len(few):
        left = set(expected)
        if len(left) == len(expected):
            left.difference_update(items())
            if not left:
                return None
            known = set(expected)
            place = next(compress(count(), map(not_, map(known.__contains__, items()))), None)
            if place is not None:
                return Excess(place, 1, False)
    often, found = Counter(expected), Counter(items())
    if dict.__eq__(often, found):  # Counter's own is a loop in Python
        return None
    for item, times in found.items():
        if times > often.get(item, 0):
            return Excess(list(items()).index(item), times, item in often)
    return None
