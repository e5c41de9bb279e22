"""Multisets of what can be hashed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

SOME = 32  # items at the beginning, and as many behind them, that are looked at to see what repeats


def some(items: list[Any]) -> list[Any]:
    """A few of many, for a guess at the rest."""
    return items[:SOME] + items[SOME :: len(items) // SOME + 1]


def as_often(expected: list[Any], items: Iterable[Any]) -> bool:
    """Whether as many items are those that are expected, each as often.

    Raises:
        TypeError: if one of them cannot be hashed.
    """
    few = some(expected)
    if len(set(few)) == len(few):
        left = set(expected)
        if len(left) == len(expected):
            left.difference_update(items)
            return not left
    return dict.__eq__(Counter(expected), Counter(items))  # Counter's own is a loop in Python


def excess(expected: list[Any], items: list[Any]) -> tuple[int, bool] | None:
    """The place of an item that is not expected as often, if there is one, and whether it is expected at all.

    Raises:
        TypeError: if one of them cannot be hashed.
    """
    known = list(map(set(expected).__contains__, items))
    if False in known:
        return known.index(False), False
    left = Counter(expected)
    for place, item in enumerate(items):
        if not left[item]:
            return place, True
        left[item] -= 1
    return None
