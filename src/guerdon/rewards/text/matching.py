"""Whether a reply says the reference, contains it or comes near its number, and how many of its words."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any, Literal

from guerdon.algebra import reward
from guerdon.core.parsing import Completion, Passage
from guerdon.rewards.text.sides import Ignore, normalize, sides

_NUMBER = re.compile(r"[$€£¥]?\s?([+-]?)[$€£¥]?\s?(\d{1,3}(?:,\d{3})+|\d+)?(\.\d+)?\s?%?")
_YEAR = re.compile(r"1[5-9]\d\d|20\d\d")


@reward(range=(0, 1))
def exact(completion: Completion, answer: Any, *, within: Passage = "reply", ignore: Ignore = ("whitespace",)) -> float:
    r"""1 if the reply is the reference, or one of the references, else 0.

    Args:
        completion: the reply: text or chat messages.
        answer: the reference: a text, a number, or a list of those, any of which is right.
        within: the part of the completion that counts: 'completion' (all of it), 'reply' (without thinking),
            'answer_tag', 'boxed', 'code_block' (the last one's content) or 'last_line'. A whole reply is rarely
            only the answer.
        ignore: differences that do not count: any of 'case', 'punctuation', 'articles' and 'whitespace', or
            'squad' for all of them. Ignoring articles loses the answer 'A', ignoring punctuation the sign of '-5'.

    Raises:
        Abstain: if there is no reference, or nothing is left of it.

    >>> from guerdon.rewards import text
    >>> text.exact()(prompts=["?"] * 3, completions=["Paris ", "paris", "Paris"], answer=["Paris", "Paris", ""])
    [1.0, 0.0, None]
    >>> text.exact(within="answer_tag", ignore="squad").evaluate("<answer>The sea!</answer>", ["ocean", "sea"])
    1.0

    Source: SQuAD 1.1 (arXiv 1606.05250), exact match.
    """
    said, references = sides(completion, answer, within, ignore)
    return float(said in references)


@reward(range=(0, 1))
def f1(
    completion: Completion,
    answer: Any,
    *,
    unit: Literal["words", "characters"] = "words",
    within: Passage = "reply",
    ignore: Ignore = "squad",
) -> float:
    """The harmonic mean of precision and recall of the reply's words; of several references the best.

        P = |reply ∩ reference| / |reply|        R = |reply ∩ reference| / |reference|        F₁ = 2PR / (P + R)

    with words counted as often as they stand there, whatever their order: saying one twice does not pay.

    Args:
        completion: the reply: text or chat messages.
        answer: see `exact`.
        unit: 'words' stand between white space; in a script without, take 'characters' or F₁ is all or nothing.
        within: see `exact`.
        ignore: see `exact`.

    Raises:
        Abstain: if there is no reference, or nothing is left of it.

    >>> from guerdon.rewards import text
    >>> text.f1().evaluate("in the deep blue sea", "the sea")  # P = 1/4, R = 1
    0.4

    Source: SQuAD 1.1 (arXiv 1606.05250), F1.
    """
    said, references = sides(completion, answer, within, ignore)
    return max(_f1(_pieces(said, unit), _pieces(reference, unit)) for reference in references)


def _share(share: float, least: int, **options: object) -> tuple[str, ...]:
    if not 0 <= share <= 1 or least < 1:
        raise ValueError(f"contained wants a share from 0 to 1 and least ≥ 1, got {share} and {least}")
    return ()


@reward(range=(0, 1), requires=_share)
def contained(
    completion: Completion,
    answer: Any,
    *,
    least: int = 2,
    share: float = 0.5,
    within: Passage = "answer_tag",
) -> float:
    """1 if one of reply and reference stands in the other, without case, white space and underscores.

    'Airbus A320' and 'a320' name one class. Containment alone is paid for next to nothing: the empty text and the
    letter 'a' stand in every label, and a list of all labels holds the right one. `least` and `share` close both.

    Args:
        completion: the reply: text or chat messages.
        answer: see `exact`.
        least: characters that the shorter of the two has at least, unless they are equal.
        share: of the longer's length that the shorter has at least; the source has none (0).
        within: see `exact`.

    Raises:
        Abstain: if there is no reference, or nothing is left of it.
        ValueError: at once, for a share outside [0, 1] or least < 1.

    >>> from guerdon.rewards import text
    >>> label = text.contained(within="reply").evaluate
    >>> label("Airbus_A320", "airbus a320"), label("A320-200", "A320"), label("a", "airbus a320")
    (1.0, 1.0, 0.0)

    Source: the accuracy of ReFine-RFT (arXiv 2601.06993; jiezhu23/ReFine-RFT), with the hole closed.
    """
    said, references = sides(completion, answer, within, ("case",))
    said = _squeezed(said)
    return float(any(_holds(said, squeezed, least, share) for r in references if (squeezed := _squeezed(r))))


def _squeezed(text: str) -> str:
    return "".join(text.replace("_", "").split())


def _holds(said: str, reference: str, least: int, share: float) -> bool:
    if said == reference:
        return True
    short, long = sorted((said, reference), key=len)
    return len(short) >= max(least, share * len(long)) and short in long


def _tolerable(tolerance: float, **options: object) -> tuple[str, ...]:
    if not 0 <= tolerance < 1:
        raise ValueError(f"relaxed wants a tolerance from 0 up to 1, relative to the reference; got {tolerance}")
    return ()


@reward(range=(0, 1), requires=_tolerable)
def relaxed(
    completion: Completion,
    answer: Any,
    *,
    tolerance: float = 0.05,
    years: Literal["exact", "near"] = "exact",
    within: Passage = "answer_tag",
    ignore: Ignore = ("case", "whitespace"),
) -> float:
    """1 if the reply is the number in the reference, nearly, or else the same text: what is read off a chart.

        |a − g| / |g| ≤ tolerance

    Args:
        completion: the reply: text or chat messages.
        answer: see `exact`; 1,234, 12 %, $5 and −.5 are numbers, and a sign of percent or money does not count.
        tolerance: relative to the reference; a reference of 0 wants 0.
        years: 5 % of 2015 is a century: with 'exact', a reference from 1500 to 2099 that is written like a year is
            compared exactly; 'near' takes it for a number, as the source does.
        within: see `exact`.
        ignore: see `exact`; of texts that are no numbers.

    Raises:
        Abstain: if there is no reference, or nothing is left of it.
        ValueError: at once, if the tolerance is none.

    >>> from guerdon.rewards import text
    >>> read = text.relaxed(within="reply").evaluate
    >>> read("104", "100"), read("106", "100"), read("2010", "2015"), read("Norway", "norway")
    (1.0, 0.0, 0.0, 1.0)

    Source: the relaxed accuracy of ChartQA (arXiv 2203.10244), in Mixed-R1 (2505.24164).
    """
    said, references = sides(completion, answer, within, ())
    return float(any(_near(said, reference, tolerance, years, ignore) for reference in references))


def _near(said: str, reference: str, tolerance: float, years: str, ignore: Ignore) -> bool:
    right, found = _number(reference), _number(said)
    if right is None or found is None:
        return right is None and normalize(said, ignore) == normalize(reference, ignore)
    if years == "exact" and _YEAR.fullmatch(reference.strip()):
        return found == right
    return abs(found - right) <= tolerance * abs(right)


def _number(text: str) -> float | None:
    found = _NUMBER.fullmatch(text.strip().replace("−", "-"))
    if found is None or (found[2] is None and found[3] is None):
        return None
    number = float(found[1] + (found[2] or "0").replace(",", "") + (found[3] or ""))
    return number if math.isfinite(number) else None


def _pieces(text: str, unit: str) -> Counter[str]:
    return Counter(text.split() if unit == "words" else "".join(text.split()))


def _f1(said: Counter[str], reference: Counter[str]) -> float:
    return 2 * (said & reference).total() / (said.total() + reference.total())
