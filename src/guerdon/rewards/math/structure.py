r"""Answers made of several values: tuples, intervals, sets, lists, unions, ratios, ±, and clock times."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from guerdon.rewards.math.brackets import SEPARATOR, depths, split
from guerdon.rewards.math.names import definition
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
_SEMICOLON = re.compile(r"\s*;\s*")
_COMMA = re.compile(r"\s*[,;]\s*")
_UNION = re.compile(r"\s*\\cup(?![A-Za-z])\s*|(?<=[)\]])\s*U\s*(?=[(\[])")
_PLUS_MINUS = re.compile(r"^\\pm\s*|\\pm(?![A-Za-z])")


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
        brackets: '()', '[)', '{}', …; '' for a list without brackets, '∪' for a union, ':' for a ratio. LaTeX does not
            show braces without a backslash: '{1, 2}' is a list.
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
    for brackets, separator in (("∪", _UNION), ("", _SEMICOLON), ("", SEPARATOR)):
        items = split(text, separator)
        if len(items) > 1:
            whole = len(items) <= MOST_ITEMS and all(items)
            return Collection(brackets, _systems(_both_signs(items))) if whole else None
    bracketed, opened = _BRACKETED.fullmatch(text), [depth for _, depth in depths(text)]
    if bracketed is None or opened[-1] != 0 or min(opened[:-1]) < 1 or max(opened) > MOST_NESTED:
        signs = _both_signs((text,))
        return Collection("", signs) if len(signs) > 1 else None
    opening, closing = bracketed["opening"], bracketed["closing"]
    kind, items = opening[-1] + closing[-1], split(bracketed["inside"], _COMMA)
    if not all(items) or len(items) > MOST_ITEMS or (len(items) == 1 and opening != "\\{"):
        return None
    if (opening, closing) == ("{", "}"):
        kind = ""
    return Collection(kind, _both_signs(items) if kind in ("", "{}") else items)


def same_collection(answer: Collection, reference: Collection, same_item: Callable[[str, str], bool]) -> bool:
    """Whether two collections hold the same values, in order where order counts.

    A list without brackets may be read as a set or, in order, as a tuple: '3, 4' is {4, 3} and (3, 4). A set does not
    count how often it names a value; what a list repeats is to be repeated, and may be repeated more often.
    """
    kinds = {answer.brackets, reference.brackets}
    if not (len(kinds) == 1 or kinds in ({"", "{}"}, {"", "()"})):
        return False
    if answer.ordered or reference.ordered:
        same_length = len(answer.items) == len(reference.items)
        return same_length and all(map(same_item, answer.items, reference.items))
    left = list(answer.items)
    for item in reference.items:
        found = next((i for i, candidate in enumerate(left) if same_item(candidate, item)), None)
        if found is not None:
            del left[found]
        elif kinds == {""} or not any(same_item(candidate, item) for candidate in answer.items):
            return False
    return all(any(same_item(candidate, item) for item in reference.items) for candidate in left)


def _systems(items: tuple[str, ...]) -> tuple[str, ...]:
    """Solutions for several unknowns, each in its own round: 'p = 5, q = 2, p = 7, q = 2' are two."""
    names = [definition(item)[0] for item in items]
    if not names[0] or None in names or (unknowns := len(set(names))) in (1, len(names)) or len(names) % unknowns:
        return items
    if names != names[:unknowns] * (len(names) // unknowns):
        return items
    return tuple(", ".join(items[i : i + unknowns]) for i in range(0, len(items), unknowns))


def _both_signs(items: tuple[str, ...]) -> tuple[str, ...]:
    """The values of each a ± b in its place."""
    return tuple(
        value
        for item in items
        for value in (
            (_PLUS_MINUS.sub("+", item).removeprefix("+").strip(), _PLUS_MINUS.sub("-", item))
            if len(_PLUS_MINUS.findall(item)) == 1
            else (item,)
        )
    )
