"""Whether an answer is the reference, in other words."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Literal

from guerdon.rewards.math import symbolic
from guerdon.rewards.math.exact import LONGEST, quantity, same
from guerdon.rewards.math.names import definition, unnamed
from guerdon.rewards.math.notation import plain, tidy
from guerdon.rewards.math.structure import clock, collection, numeral, same_collection, same_time
from guerdon.rewards.math.words import missing, same_words, words

_DECIMAL_COMMA = re.compile(r"^([^0-9,]{0,3}(?![1-9][0-9]{0,2},[0-9]{3}(?![0-9]))[0-9]+),([0-9]+)(?=[^0-9,]{0,3}$)")


def equivalent(
    answer: str,
    reference: str,
    *,
    tolerance: float = 1e-6,
    percent: Literal["either", "value"] = "either",
    units: Literal["compare", "ignore"] = "compare",
    unfinished: Literal["reject", "accept"] = "reject",
    comma: Literal["separates", "either"] = "separates",
    variables: Literal["named", "renamed"] = "named",
    relations: Literal["sets", "apart"] = "sets",
) -> bool:
    r"""Whether two answers are the same value.

    Numbers are compared exactly, collections item by item, anything else by math-verify, which may
    take for ever: see `symbolic`.

    Args:
        answer: what was answered: LaTeX or plain text.
        reference: what is right.
        tolerance: where either number has a decimal point, they may differ by tolerance · min(1, the larger of them).
            The default lets floating-point noise pass and 0.333 for ⅓ fail; integers and fractions are always
            compared exactly. Expressions are compared at as many decimals.
        percent: 'either' takes a percent sign that only one of the two has for the unit or for the factor
            (25 % is 25 and is 0.25), because references to "what percent …?" come without it; 'value' takes it
            for the factor only, so that 25 is not 25 %.
        units: 'compare' tells 5 m from 5 cm and knows 500 cm, where both have a unit that is known; 'ignore'
            drops them. A unit on one side only, and words that are no unit ('apples'), never count.
        unfinished: 'reject' wants a number where the reference is one: the question's own '37 * 91', '84/7' or
            '\sqrt{144}', copied into the box, are equal to their result, and earn nothing. Powers ('2^{10}') are
            numbers. 'accept' takes anything that is equal.
        comma: what '1,25' is, which has neither three digits after its comma nor a space: 'separates' takes it for
            1 and 25; 'either' also for 1.25, as European references mean it, and then the answer 1.25 is equal to
            the list 1, 25.
        variables: 'named' tells x + 1 from y + 1; 'renamed' takes what differs only in its letters, in their order,
            for the same: f(x) for f(y).
        relations: 'sets' takes -2 ≤ x ≤ 7 for the set of its solutions where the reference is a set, x ∈ [-2, 7];
            'apart' wants a set for a set.

    Raises:
        Abstain: if the reference is too large to be compared with an answer that is written differently.

    >>> equivalent(r"\frac{2}{4}", "0.5"), equivalent("0.333", "1/3"), equivalent("37 * 91", "3367")
    (True, False, False)
    >>> equivalent("{2, 1}", r"\{1, 2\}"), equivalent("(2, 1)", "(1, 2)"), equivalent("500 cm", "5 m")
    (True, False, True)
    """
    if answer == reference:
        return True
    if len(answer) > LONGEST or len(reference) > LONGEST:
        return False
    expected, given = quantity(reference), quantity(answer)
    if expected and given and (given.finished or not expected.finished or unfinished == "accept"):
        return same(given, expected, tolerance=tolerance, percent=percent, units=units)
    again = partial(
        equivalent, tolerance=tolerance, percent=percent, units=units, unfinished=unfinished, variables=variables,
        relations=relations,
    )  # fmt: skip
    if comma == "either":
        return any(again(a, r) for a in _readings(answer) for r in _readings(reference))
    if values := unnamed(answer, reference):
        return again(*values)
    if expected and unfinished == "reject":
        return False
    if _squeezed(answer) == _squeezed(reference):
        return True
    if words(reference):
        return same_words(answer, reference)
    if based := numeral(reference):
        return numeral(answer) == based or answer.lstrip("0") == based.digits
    time = clock(reference)
    if time:
        other = clock(answer)
        return other is not None and same_time(other, time)
    several = collection(reference)
    if several and (found := collection(answer)):
        return same_collection(found, several, again)
    decimals = max(0, round(-math.log10(tolerance))) if tolerance else 15
    return symbolic.equal(
        answer, reference, decimals=decimals, renamed=variables == "renamed", sets=relations == "sets"
    )


def meaningful(text: str) -> bool:
    """Whether a text is a value that something can be equivalent to.

    >>> meaningful("18 eggs"), meaningful("(1, x]"), meaningful("I do not know"), meaningful("")
    (True, True, False, False)
    """
    if not 0 < len(text) <= LONGEST or missing(text):
        return False
    if quantity(text) or clock(text) or words(text):
        return True
    several = collection(text) or collection(definition(text)[1])
    return all(map(meaningful, several.items)) if several else symbolic.too_large(text) or bool(symbolic.parse(text))


def _readings(text: str) -> list[str]:
    """A text, and if it may be a number with a decimal comma, that number."""
    point = _DECIMAL_COMMA.sub(r"\1.\2", tidy(text))
    return [text, point] if point != tidy(text) else [text]


def _squeezed(text: str) -> str:
    return plain(text).replace(" ", "")
