"""Whether a reply says the reference, and how many of its words."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from guerdon.algebra import reward
from guerdon.core.parsing import Completion, Passage
from guerdon.rewards.text.sides import Ignore, sides


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


def _pieces(text: str, unit: str) -> Counter[str]:
    return Counter(text.split() if unit == "words" else "".join(text.split()))


def _f1(said: Counter[str], reference: Counter[str]) -> float:
    return 2 * (said & reference).total() / (said.total() + reference.total())
