"""Whether the steps of a calculation are right, one score each."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from guerdon.algebra import reward
from guerdon.core import spans
from guerdon.core.parsing import Completion, shown, text_of
from guerdon.core.scores import Scores
from guerdon.rewards.math.exact import quantity, same
from guerdon.rewards.math.extract import extract
from guerdon.rewards.math.notation import plain, tidy

_SIDE = r"[-+*/()0-9. ]*[0-9)]\s*"
_EQUATION = re.compile(rf"(?<![\w.^])({_SIDE}(?:=\s*{_SIDE})+)(?![\w.])")
LONGEST = 200  # characters of an equation


def _columns(final: str, **options: Any) -> tuple[str, ...]:
    return ("completion", "answer") if final == "judged" else ("completion",)


def _range(bare: float, **options: Any) -> tuple[float, float]:
    if not 0 <= bare <= 1:
        raise ValueError(f"bare must be from 0 to 1, got {bare}")
    return 0.0, 1.0


@reward(lane="batch", level="step", range=_range, columns=_columns)
def steps(
    completion: Sequence[Completion],
    answer: Sequence[Any] = (),
    *,
    separator: str = "\n",
    bare: float = 1.0,
    final: Literal["judged", "bare"] = "judged",
) -> Scores:
    r"""1 for each step whose equations between numbers all hold, 0 for one in which some do not.

    It says that a step is true, not that it is needed: summed over steps it pays for saying true things without end,
    which is what `credit.min_form` is for.

    Args:
        completion: the calculations.
        answer: the references of the last steps: numbers.
        separator: what parts steps.
        bare: the score of a step that has no equation between numbers, from 0 to 1.
        final: 'judged': the last step has 1 if the final answer, as `math.extract` finds it, is the number that the
            reference is, else 0. 'bare': it is a step like the others, and no reference is read.

    Returns:
        Scores of the steps; a row whose reference is not a number abstains.

    >>> from guerdon.rewards import math
    >>> from guerdon import Rollouts
    >>> rollouts = Rollouts(["2 + 3 - 1 ="], ["2+3=5;5-1=3;5;#### 4"], {"answer": ["4"]})
    >>> math.steps(separator=";").score(rollouts).read(0.0)
    array([[1., 0., 1., 1.]])

    Source: process labels of calculations, as the calculator annotations of GSM8K (arXiv 2110.14168) allow them.
    """
    texts = [text_of(one) for one in completion]
    places = spans.split(texts, separator)
    values, valid, reasons = np.zeros(places.mask.shape), np.array(places.mask), {}
    for row, (text, found) in enumerate(zip(texts, places.rows(), strict=True)):
        values[row, : len(found)] = [_true(text[begin:end], bare) for begin, end in found]
        if final == "judged" and found:
            expected = quantity(tidy(str(answer[row])))
            if expected is None:
                valid[row] = False
                reasons[row] = f"reference is not a number: {shown(answer[row])}"
            else:
                given = quantity(extract(text) or "")
                values[row, len(found) - 1] = given is not None and given.finished and same(given, expected)
    return Scores(values, valid=valid, spans=places, reasons=reasons)


def holds(text: str) -> bool | None:
    """Whether all equations between numbers in a text hold; None if there is none.

    >>> holds("so 3 + 4*2 = 11, and 1/3 = 2/6"), holds("7 - 10 = 3"), holds("x = 3")
    (True, False, None)
    """
    verdicts = [_equal(found[1]) for found in _EQUATION.finditer(plain(text)) if len(found[1]) <= LONGEST]
    known = [verdict for verdict in verdicts if verdict is not None]
    return all(known) if known else None


def _true(text: str, bare: float) -> float:
    verdict = holds(text)
    return bare if verdict is None else float(verdict)


def _equal(equation: str) -> bool | None:
    values = [_value(side) for side in equation.split("=")]
    return None if None in values else all(a == b for a, b in pairwise(values))


def _value(side: str) -> Fraction | None:
    try:
        return _of(ast.parse(side.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
        return None


def _of(node: ast.AST) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return Fraction(str(number))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_of(inner)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _of(inner)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _of(left) + _of(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _of(left) - _of(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _of(left) * _of(right)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _of(left) / _of(right)
    raise ValueError(f"not arithmetic: {ast.dump(node)}")
