"""Multisets of what can be hashed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import compress, count
from operator import not_
from typing import Any, NamedTuple

SOME = 32  # items at the beginning, and as many behind them, that are looked at to see what repeats


class Excess(NamedTuple):
    """An item that is not expected as often as it is there."""

    place: int  # the first that it has
    times: int  # that it is there, or more
    expected: bool  # at all


def excess(
    expected: Any, items: Any, look: Callable[[Any], Iterable[Any]] = iter, *, as_many: bool = True
) -> Excess | None:
    """An item that is not expected as often as it is there, if there is one.

    Args:
        expected: all items that are, in a list or what else `look` takes.
        items: those that there are, in the like.
        look: gives what stands for each item.
        as_many: whether there are as many.

    Raises:
        TypeError: if one of them cannot be hashed.

    >>> excess([1, 1, 2], [2, 1, 1]), excess([1, 1, 2], [2, 2, 1])
    (None, Excess(place=0, times=2, expected=True))
    """
    ours = list(look(expected))
    few = [*ours[:SOME], *ours[SOME :: len(ours) // SOME + 1]]
    if as_many and len(set(few)) == len(few):
        left = set(ours)
        if len(left) == len(ours):
            left.difference_update(look(items))
            if not left:
                return None
            known = set(ours)
            place = next(compress(count(), map(not_, map(known.__contains__, look(items)))), None)
            if place is not None:
                return Excess(place, 1, False)
    often = Counter(ours)
    if dict.__eq__(often, Counter(look(items))):  # Counter's own is a loop in Python
        return None
    theirs = list(look(items))
    for item, times in Counter(theirs).items():
        if times > often.get(item, 0):
            return Excess(theirs.index(item), times, item in often)
    return None
