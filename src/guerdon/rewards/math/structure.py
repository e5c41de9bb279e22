r"""Answers made of several values: tuples, intervals, sets, lists, unions, ratios, ±, and clock times."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from guerdon.rewards.math.notation import plain, tidy

MOST_ITEMS = 64
MOST_NESTED = 4

_CLOCK = re.compile(
    r"(?P<hour>[0-9]{1,2})(?::(?P<minute>[0-5][0-9]))?(?::(?P<second>[0-5][0-9]))?\s*(?:(?P<half>[ap])\.?\s?m\.?)?",
    re.IGNORECASE,
)
_NUMERAL = re.compile(r"([0-9][0-9A-Fa-f]*) ?_ ?\{?([0-9]{1,2})\}?")
_RATIO = re.compile(r"[0-9][0-9.,]*(?:\s*:\s*[0-9][0-9.,]*)+")
_BRACKETED = re.compile(r"(?P<opening>\\\{|[(\[{])(?P<inside>.*?)(?P<closing>\\\}|[)\]}])")
_SEPARATOR = re.compile(r"\s*(?:[,;]\s*(?:and|or)\b|[,;]|\b(?:and|or)\b)\s*", re.IGNORECASE)
_COMMA = re.compile(r"\s*[,;]\s*")
_UNION = re.compile(r"\s*\\cup(?![A-Za-z])\s*|(?<=[)\]])\s*U\s*(?=[(\[])")
_BRACKET = re.compile(r"\\[{}]|[()\[\]{}]")


class Clock(NamedTuple):
    """A time of day: seconds since midnight, and whether it is known which half of the day."""

    seconds: int
    settled: bool


class Numeral(NamedTuple):
    """Digits in a base that is written with them."""

    digits: str
    base: int


class Collection(NamedTuple):
    """Several values.

    Args:
        brackets: '()', '[)', '{}', …; '' for a list without brackets, '∪' for a union, ':' for a ratio.
        items: what is between them, as text.
    """

    brackets: str
    items: tuple[str, ...]

    @property
    def ordered(self) -> bool:
        """Whether (1, 2) differs from (2, 1)."""
        return self.brackets not in ("", "{}", "∪")


def clock(text: str) -> Clock | None:
    """The time of day that a text is, or None.

    >>> clock("3:30 p.m."), clock("15:30"), clock("3:30"), clock("3.5")
    (Clock(seconds=55800, settled=True), Clock(seconds=55800, settled=True), Clock(seconds=12600, settled=False), None)
    """
    match = _CLOCK.fullmatch(plain(tidy(text))) if len(text) < 40 else None
    if match is None or not (match["minute"] or match["half"]):
        return None
    hour, half = int(match["hour"]), (match["half"] or "").lower()
    if hour > (12 if half else 24):
        return None
    if half:
        hour = hour % 12 + 12 * (half == "p")
    seconds = 3600 * hour + 60 * int(match["minute"] or 0) + int(match["second"] or 0)
    return Clock(seconds, bool(half) or not 1 <= hour <= 12)


def same_time(answer: Clock, reference: Clock) -> bool:
    """Whether two times are the same; one without am or pm may be either.

    >>> same_time(clock("3:30"), clock("15:30")), same_time(clock("3:30 am"), clock("15:30"))
    (True, False)
    """
    if answer.settled and reference.settled:
        return answer.seconds == reference.seconds
    return (answer.seconds - reference.seconds) % (12 * 3600) == 0


def numeral(text: str) -> Numeral | None:
    """The digits and base of '1011_2', or None.

    >>> numeral("1011_{2}"), numeral("x_2")
    (Numeral(digits='1011', base=2), None)
    """
    match = _NUMERAL.fullmatch(plain(tidy(text))) if len(text) < 100 else None
    return Numeral(match[1].upper().lstrip("0"), int(match[2])) if match else None


@lru_cache(maxsize=1 << 12)
def collection(text: str) -> Collection | None:
    r"""The values that a text lists, or None if it is a single one.

    >>> collection(r"\left(\frac12, -1\right]")
    Collection(brackets='(]', items=('\\frac12', '-1'))
    >>> collection("x = 3 or x = 4").items, collection(r"1 \pm \sqrt2").items, collection("(x+1)(x-1)")
    (('x = 3', 'x = 4'), ('1 + \\sqrt2', '1 - \\sqrt2'), None)
    """
    text = plain(tidy(text))
    if "\\begin" in text:
        return None
    if _RATIO.fullmatch(text):
        return Collection(":", tuple(item.strip() for item in text.split(":")))
    for brackets, separator in (("∪", _UNION), ("", _SEPARATOR)):
        items = _split(text, separator)
        if len(items) > 1:
            return Collection(brackets, items) if len(items) <= MOST_ITEMS and all(items) else None
    if text.count("\\pm") == 1:
        before, after = (side.strip() for side in text.split("\\pm"))
        return Collection("", (f"{before} + {after}", f"{before} - {after}") if before else (after, f"-{after}"))
    whole, depths = _BRACKETED.fullmatch(text), [depth for _, depth in _depths(text)]
    if whole is None or depths[-1] != 0 or min(depths[:-1]) < 1 or max(depths) > MOST_NESTED:
        return None
    kind, items = whole["opening"][-1] + whole["closing"][-1], _split(whole["inside"], _COMMA)
    if not all(items) or len(items) > MOST_ITEMS or (len(items) == 1 and kind != "{}"):
        return None
    return Collection(kind, items)


def same_collection(answer: Collection, reference: Collection, same_item: Callable[[str, str], bool]) -> bool:
    """Whether two collections hold the same values, in order where order counts.

    A list without brackets may be read as a set or, in order, as a tuple: '3, 4' is {4, 3} and (3, 4).
    """
    kinds = {answer.brackets, reference.brackets}
    if len(answer.items) != len(reference.items) or not (len(kinds) == 1 or kinds in ({"", "{}"}, {"", "()"})):
        return False
    if answer.ordered or reference.ordered:
        return all(map(same_item, answer.items, reference.items))
    left = list(answer.items)
    for item in reference.items:
        found = next((i for i, candidate in enumerate(left) if same_item(candidate, item)), None)
        if found is None:
            return False
        del left[found]
    return True


def _split(text: str, separator: re.Pattern[str]) -> tuple[str, ...]:
    """Split where no bracket is open; brackets need not be of one kind, as in [1, 5)."""
    depths = _depths(text)
    items, begin = [], 0
    for match in separator.finditer(text):
        before = bisect_left(depths, (match.start(),))
        if before == 0 or depths[before - 1][1] == 0:
            items.append(text[begin : match.start()].strip())
            begin = match.end()
    return (*items, text[begin:].strip())


def _depths(text: str) -> list[tuple[int, int]]:
    """Where each bracket stands, and how many are open after it."""
    depth = 0
    return [(mark.start(), depth := depth + (1 if mark[0][-1] in "([{" else -1)) for mark in _BRACKET.finditer(text)]
