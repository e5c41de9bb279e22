r"""Equality of expressions, by math-verify.

math-verify limits its time with `signal.alarm`, which works in the main thread only and cannot be
nested; those limits are switched off. An answer with a tower of powers is not compared at all, but
other expressions may also take for ever, so what is here belongs under a deadline: in a reward, the
engine's.
"""

from __future__ import annotations

import logging
import re
from functools import cache, lru_cache
from typing import Any

from guerdon.rewards.math.notation import plain, prose, tidy
from guerdon.rewards.math.units import NONE, unit_of

LONGEST = 1000  # characters

_TRAILING_UNIT = re.compile(r"\s[A-Za-z.° ]+(?:\^\{?[23]\}?)?$")
_TOWER = re.compile(r"[0-9] ?\^ ?[{(]*[0-9]+ ?\^ ?[{(]*[0-9]|\^ ?\{?-?[0-9]{5}|[0-9]{5} ?!")  # would be written out
_SEVERAL = re.compile(r"\$|\\[()\[\]]|\\boxed")  # math-verify would pick one of them
_LETTERS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]+")
_FUNCTION = re.compile(r"(?<![\\A-Za-z])(sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|pi|infty)(?![A-Za-z])")
_ROOT = re.compile(r"\\sqrt\s*\(([^()]*)\)")


def equal(answer: str, reference: str, *, decimals: int = 6) -> bool:
    r"""Whether two expressions are mathematically the same.

    Args:
        answer: LaTeX or plain text, such as '2\sqrt{3}' or 'x^2 + 2x + 1'.
        reference: what it should be.
        decimals: numbers are the same if they agree when rounded to so many decimals.

    Returns:
        False also where either is not an expression.

    >>> equal(r"\frac{\sqrt{3}}{3}", r"1/\sqrt3"), equal("x^2 + 1", "(x + 1)^2")
    (True, False)

    Source: math-verify (Hugging Face), `parse` and `verify`.
    """
    expected = parse(reference)
    given = parse(answer) if expected and not _TOWER.search(plain(answer)) else ()
    if not given or _differ_in_case(answer, reference):
        return False
    return bool(
        _library().verify(
            list(expected),
            list(given),
            float_rounding=decimals,
            allow_set_relation_comp=True,
            timeout_seconds=None,
            raise_on_error=True,
        )
    )


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
