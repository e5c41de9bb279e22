"""Which brackets are open where, and what stands between separators outside of them."""

from __future__ import annotations

import re
from bisect import bisect_left

SEPARATOR = re.compile(
    r"\s*(?:[,;]\s*(?:and|or)\b|[,;]|(?<![A-Za-z])(?:and|or)\b|(?<=[0-9)}])(?:and|or)(?=[A-Za-z](?:\([a-z]\))?\s*=))\s*",
    re.IGNORECASE,
)
_BRACKET = re.compile(r"\\[{}]|[()\[\]{}]")


def split(text: str, separator: re.Pattern[str]) -> tuple[str, ...]:
    """Split where no bracket is open; brackets need not be of one kind, as in [1, 5).

    >>> split("(1, 2), [3, 4)", SEPARATOR)
    ('(1, 2)', '[3, 4)')
    """
    opened = depths(text)
    items, begin = [], 0
    for match in separator.finditer(text):
        before = bisect_left(opened, (match.start(),))
        if before == 0 or opened[before - 1][1] == 0:
            items.append(text[begin : match.start()].strip())
            begin = match.end()
    return (*items, text[begin:].strip())


def depths(text: str) -> list[tuple[int, int]]:
    """Where each bracket stands, and how many are open after it.

    >>> depths("(a, [b)")
    [(0, 1), (4, 2), (6, 1)]
    """
    depth = 0
    return [(mark.start(), depth := depth + (1 if mark[0][-1] in "([{" else -1)) for mark in _BRACKET.finditer(text)]
