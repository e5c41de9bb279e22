r"""How large an expression would become if it were written out, told from its text in microseconds.

SymPy multiplies out: five characters of text, '9^9^9', are more digits than there is memory, and
`(a+b+c+d)^{99}` has 171 700 terms. What is too large is not given to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from guerdon.rewards.math.notation import plain, tidy

DEEPEST = 40  # brackets, fractions and powers in one another
INFINITE = math.inf

_TOKEN = re.compile(r"[0-9][0-9.,]*|\.[0-9]+|\\[A-Za-z]+|\\.|!!|[^\s\\]")
_OPENING = {"{": "}", "(": ")", "[": "]", r"\{": r"\}"}
_CLOSING = {*_OPENING.values(), ")", "]"}
_SUMS = {r"\sum", r"\prod"}
_BINOMIALS = {r"\binom", r"\dbinom", r"\tbinom"}


class Extent(NamedTuple):
    """Bounds of an expression that is multiplied out.

    Args:
        bits: log₂ of the largest number in it; a letter counts as 2, so this bounds the degree of a polynomial too.
        terms: how many terms it has; numbers that could be added count as terms too.
        letters: whether there is a letter in it, so that as an exponent it is not a number.
    """

    bits: float
    terms: float = 1.0
    letters: bool = False


NOTHING = Extent(0.0)
ENDLESS = Extent(INFINITE, INFINITE)


@lru_cache(maxsize=1 << 12)
def extent(text: str) -> Extent:
    r"""The bounds of an expression, by its text.

        a + b: max + 1     a · b: sum     aⁿ: n · a     n!, n over k: at most n · log₂ n

    in bits; t terms to the n-th power are (n + t − 1 over n) terms.

    Args:
        text: LaTeX or plain text, whether it is well formed or not; linear in its length.

    >>> extent("2^{10} + 1").bits, extent("5^{5^{5^{5^5}}}").bits, extent("(x + y + 1)^{30}").terms
    (11.0, inf, 496.0)
    """
    return _Reader(_TOKEN.findall(plain(tidy(text)))).sum("")


class _Reader:
    """Reads tokens from left to right; whatever does not belong where it stands counts as a letter."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def sum(self, closing: str) -> Extent:
        """Read terms up to a closing bracket, and the bracket."""
        total: Extent | None = None
        product = NOTHING
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token in _CLOSING and closing:
                self.at += 1
                break
            if token == r"\choose":
                self.at += 1
                below = self.sum(closing)
                return _binomial(_plus(total, product), below)
            if token in "+-,;=<>&" or token in (r"\pm", r"\mp", r"\\"):
                self.at += 1
                total, product = _plus(total, product), NOTHING
            else:
                product = _times(product, self.power())
        return _plus(total, product)

    def power(self) -> Extent:
        """Read a factor and what is attached to it."""
        sign = self.tokens[self.at]
        value = self.factor()
        while self.at < len(self.tokens) and self.tokens[self.at] in ("^", "!", "!!", "_"):
            mark = self.tokens[self.at]
            self.at += 1
            if mark[0] == "!":
                value = _power(value, value._replace(letters=False)) if not value.letters else value
            elif mark == "_":
                self.part()
            elif sign in _SUMS:
                value = _times(value, Extent(_number(self.argument())))
            else:
                value = _power(value, self.argument())
        return value

    def argument(self) -> Extent:
        """Read an exponent: a sign, a factor, and the powers of that."""
        while self.at < len(self.tokens) and self.tokens[self.at] in "+-":
            self.at += 1
        return self.within(self.power) if self.at < len(self.tokens) else NOTHING

    def factor(self) -> Extent:
        """Read a number, a letter, a command or a group."""
        token = self.tokens[self.at]
        self.at += 1
        if token in _OPENING:
            return self.within(lambda: self.sum(_OPENING[token]))
        if token[0].isdigit() or token[0] == ".":
            return Extent(_log2(token))
        if token == r"\frac":
            return _times(self.part(), self.part())
        if token in _BINOMIALS:
            return _binomial(self.part(), self.part())
        if token in ("*", "/", "|", r"\cdot", r"\sqrt", r"\left", r"\right") or token in _SUMS:
            return NOTHING
        return Extent(1.0, 1.0, True)

    def part(self) -> Extent:
        """Read what a command takes: a group or a single digit."""
        if self.at < len(self.tokens) and self.tokens[self.at].isdigit() and len(self.tokens[self.at]) > 1:
            first, self.tokens[self.at] = self.tokens[self.at][0], self.tokens[self.at][1:]
            return Extent(_log2(first))
        return self.within(self.factor) if self.at < len(self.tokens) else NOTHING

    def within(self, read: Callable[[], Extent]) -> Extent:
        """Read what is inside of something else, and give up where that goes too deep."""
        if self.depth == DEEPEST:
            self.at = len(self.tokens)
            return ENDLESS
        self.depth += 1
        inside = read()
        self.depth -= 1
        return inside


def _plus(a: Extent | None, b: Extent) -> Extent:
    if a is None:
        return b
    return Extent(max(a.bits, b.bits) + 1, a.terms + b.terms, a.letters or b.letters)


def _times(a: Extent, b: Extent) -> Extent:
    return Extent(a.bits + b.bits, a.terms * b.terms, a.letters or b.letters)


def _power(base: Extent, exponent: Extent) -> Extent:
    if exponent.letters:
        return Extent(base.bits + exponent.bits, base.terms, True)
    n = _number(exponent)
    bits = n * base.bits if n and base.bits else 0.0
    return Extent(bits, _multisets(base.terms, n), base.letters)


def _binomial(above: Extent, below: Extent) -> Extent:
    if above.letters or below.letters:
        return _times(above, below)
    n, k = _number(above), _number(below)
    return Extent(min(n, k * above.bits if k and above.bits else 0.0))


def _multisets(kinds: float, size: float) -> float:
    """How many terms there are in the power of a sum, (size + kinds − 1 over size)."""
    if kinds <= 1 or size <= 1:
        return kinds if size else 1.0
    if min(kinds, size) > DEEPEST:
        return INFINITE
    few, many = sorted((kinds - 1, size))
    return INFINITE if many > 1e9 else float(math.comb(math.ceil(few + many), math.ceil(few)))


def _number(value: Extent) -> float:
    """The number that has so many bits."""
    return round(2.0**value.bits, 6) if value.bits < 64 else INFINITE  # a whole number, where it is one


def _log2(digits: str) -> float:
    whole = digits.replace(",", "").partition(".")[0].lstrip("0")
    return math.log2(int(whole) + (1 if "." in digits else 0)) if whole and len(whole) < 300 else 3.33 * len(whole)
