r"""Equality of expressions, by math-verify.

math-verify limits its time with `signal.alarm`, which works in the main thread only and cannot be
nested; those limits are switched off. An answer that would be enormous if it were multiplied out is not
compared at all, but other expressions may also take for ever, so what is here belongs under a
deadline: in a reward, the engine's.
"""

from __future__ import annotations

import logging
import re
from functools import cache, lru_cache
from typing import Any

from guerdon.core.errors import Abstain
from guerdon.rewards.math.extent import extent
from guerdon.rewards.math.notation import EQUALS, plain, prose, tidy
from guerdon.rewards.math.units import NONE, unit_of

LONGEST = 1000  # characters
LARGEST = 2.0**16, 512.0  # bits and terms of an answer, unless its reference has more
LARGEST_REFERENCE = 2.0**20, 4096.0

_TRAILING_UNIT = re.compile(r"\s[A-Za-z.° ]+(?:\^\{?[23]\}?)?$")
_SEVERAL = re.compile(r"\$|\\[()\[\]]|\\boxed")  # math-verify would pick one of them
_LETTERS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]+")
_FUNCTION = re.compile(r"(?<![\\A-Za-z])(sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|pi|infty)(?![A-Za-z])")
_GROUP = re.compile(r"\{[^{}]*\}")
_ROOT = re.compile(r"\\sqrt\s*\(([^()]*)\)")


def equal(answer: str, reference: str, *, decimals: int = 6, renamed: bool = False, sets: bool = True) -> bool:
    r"""Whether two expressions are mathematically the same.

    Args:
        answer: LaTeX or plain text, such as '2\sqrt{3}' or 'x^2 + 2x + 1'.
        reference: what it should be.
        decimals: numbers are the same if they agree when rounded to so many decimals.
        renamed: variables may have other names, in the same order.
        sets: an answer that is a relation is the set of its solutions where the reference is a set.

    Returns:
        False also where either is not an expression, where only the reference is an equation, where the answer
        would be far larger than the reference if it were multiplied out, and where SymPy fails at it.

    Raises:
        Abstain: if the reference is too large to be multiplied out, or SymPy can compare nothing with it.

    >>> equal(r"\frac{\sqrt{3}}{3}", r"1/\sqrt3"), equal("x^2 + 1", "(x + 1)^2")
    (True, False)

    Source: math-verify (Hugging Face), `parse` and `verify`.
    """
    if too_large(reference):
        raise Abstain(f"reference too large to compare with another expression: {reference[:80]!r}")
    bounds = extent(reference)
    if _exceeds(answer, max(LARGEST[0], 4 * bounds.bits), max(LARGEST[1], bounds.terms)):
        return False
    expected = parse(reference)
    given = parse(answer) if expected else ()
    if not given or (not renamed and _differ_in_case(answer, reference)):
        return False
    if _is_equation(reference) and not _is_equation(answer):
        return False
    try:
        return _same(given, expected, decimals, renamed, sets)
    except Exception as error:
        try:
            _same(parse("0"), expected, decimals, renamed, sets)
        except Exception:
            raise Abstain(f"reference not comparable: {reference[:80]!r}: {error}") from error
        return False  # it was the answer


def too_large(text: str) -> bool:
    """Whether an expression would be enormous if it were multiplied out.

    >>> too_large("9^{9^9}"), too_large("2^{1000}")
    (True, False)
    """
    return _exceeds(text, *LARGEST_REFERENCE)


@lru_cache(maxsize=1 << 12)
def parse(text: str) -> tuple[Any, ...]:
    """SymPy's form of an expression; empty if the text is not one."""
    text = _latex(text)
    if not text or len(text) > LONGEST or _SEVERAL.search(text) or prose(text) or not _balanced(text):
        return ()
    library = _library()
    return tuple(
        library.parse(
            f"${text}$", [_extraction()], fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=False
        )
    )


def _same(answer: tuple[Any, ...], reference: tuple[Any, ...], decimals: int, renamed: bool, sets: bool) -> bool:
    # Numbers that differ are not given to SymPy's simplification, which may raise 6 to the power of 2004! on the way.
    return not _far_apart(answer[0], reference[0], decimals) and bool(
        _library().verify(
            list(reference),
            list(answer),
            float_rounding=decimals,
            strict=not renamed,
            allow_set_relation_comp=sets,
            timeout_seconds=None,
            raise_on_error=True,
        )
    )


def _is_equation(text: str) -> bool:
    """Whether there is an equals sign, other than in the limits of a sum."""
    return bool(EQUALS.search(_GROUP.sub("", plain(text))))


def _exceeds(text: str, bits: float, terms: float) -> bool:
    bounds = extent(text)
    return bounds.bits > bits or bounds.terms > terms


def _far_apart(a: Any, b: Any, decimals: int) -> bool:
    """Whether numbers differ by much in proportion; to math-verify all that are smaller than its precision are zero."""
    if not (getattr(a, "is_number", False) and getattr(b, "is_number", False)):
        return False
    decimal = any(number.is_Float for number in a.atoms() | b.atoms())
    x, y = a.doit().evalf(20), b.doit().evalf(20)
    if not (x.is_comparable and y.is_comparable):
        return False
    slack = 10.0 ** -(min(decimals, 12) if decimal else 12)
    return bool(abs(x - y) > slack * min(1, max(abs(x), abs(y))))


def _latex(text: str) -> str:
    text = plain(tidy(text))
    unit = _TRAILING_UNIT.search(text)
    if unit and unit_of(unit[0]) not in (None, NONE):
        text = text[: unit.start()]
    return _ROOT.sub(r"\\sqrt{\1}", _FUNCTION.sub(r"\\\1 ", text))


def _differ_in_case(answer: str, reference: str) -> bool:
    """Whether they use A where the other has a; math-verify takes them for one letter."""
    a, r = (frozenset("".join(_LETTERS.findall(plain(text)))) for text in (answer, reference))
    return a != r and {letter.lower() for letter in a} == {letter.lower() for letter in r}


def _balanced(text: str) -> bool:
    depth = 0
    for brace in re.finditer(r"\\.|[{}]", text):
        depth += (brace[0] == "{") - (brace[0] == "}")
        if depth < 0:
            return False
    return depth == 0


@cache
def _library() -> Any:
    import math_verify

    # It warns once that its time limits are off.
    for module in ("parser", "grader"):
        logging.getLogger(f"math_verify.{module}").setLevel(logging.ERROR)
    return math_verify


@cache
def _extraction() -> Any:
    from latex2sympy2_extended import NormalizationConfig

    # Its own removal of units would read '5m' as 5.
    normalization = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none"
    )
    return _library().LatexExtractionConfig(normalization_config=normalization)
