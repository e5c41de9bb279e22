"""How many edits a reply is from the reference: similarity of texts, and the error rates of transcripts."""

from __future__ import annotations

import math
from typing import Any, Literal

from guerdon.algebra import reward
from guerdon.core.extras import needs
from guerdon.core.parsing import Completion, Passage
from guerdon.core.protocols import Range
from guerdon.rewards.text.sides import Ignore, sides


@reward(range=(0, 1), requires=needs("text.edit", "rapidfuzz", extra="text"))
def edit(
    completion: Completion,
    answer: Any,
    *,
    unit: Literal["characters", "words"] = "characters",
    within: Passage = "reply",
    ignore: Ignore = ("whitespace",),
) -> float:
    """The similarity of the reply to the reference, by edits; of several references the nearest.

        s = 1 − d / max(|reply|, |reference|)

    with d the least number of insertions, deletions and substitutions (Levenshtein) between them.

    Args:
        completion: the reply: text or chat messages.
        answer: see `exact`.
        unit: what is edited and counted: 'characters' or 'words'.
        within: see `exact`.
        ignore: see `exact`.

    Raises:
        Abstain: if there is no reference, or nothing is left of it.
        MissingExtra: if rapidfuzz is not installed.

    >>> from guerdon.rewards import text
    >>> text.edit().evaluate("sitting", "kitting"), text.edit(unit="words").evaluate("a b", "a c")
    (0.8571428571428572, 0.5)

    Source: Levenshtein 1966; rapidfuzz.
    """
    from rapidfuzz.distance import Levenshtein

    said, references = sides(completion, answer, within, ignore)
    if unit == "words":
        return max(Levenshtein.normalized_similarity(said.split(), reference.split()) for reference in references)
    return max(Levenshtein.normalized_similarity(said, reference) for reference in references)


def _range(measure: str, **options: Any) -> Range:
    return (0, math.inf) if measure == "rate" else (0, 1)


@reward(range=_range, requires=needs("text.wer", "jiwer", extra="text"))
def wer(
    completion: Completion,
    answer: Any,
    *,
    measure: Literal["accuracy", "rate"] = "accuracy",
    within: Passage = "reply",
    ignore: Ignore = ("whitespace",),
) -> float:
    """One minus the word error rate of the reply, 0 at the least; of several references the nearest.

        WER = (S + D + I) / N        accuracy = 1 − min(1, WER)

    with the substitutions S, deletions D and insertions I that make the reply of a reference of N words.

    Args:
        completion: the reply: text or chat messages.
        answer: see `exact`.
        measure: 'accuracy' is a reward. 'rate' is the WER itself, from 0 (right) without end: a raw number, for
            logs or a shaper, which as a reward would be paid for errors.
        within: see `exact`.
        ignore: see `exact`; transcripts are often compared without case and punctuation.

    Raises:
        Abstain: if there is no reference, or nothing is left of it.
        MissingExtra: if jiwer is not installed.

    >>> from guerdon.rewards import text
    >>> text.wer().evaluate("the cat sat", "the bat sat here")  # one substitution, one deletion
    0.5
    >>> text.wer(measure="rate").evaluate("no no no", "yes")
    3.0

    Source: Morris, Maier & Green 2004; jiwer.
    """
    import jiwer

    said, references = sides(completion, answer, within, ignore)
    words = " ".join(said.split())
    return _scored(min(jiwer.wer(" ".join(reference.split()), words) for reference in references), measure)


@reward(range=_range, requires=needs("text.cer", "jiwer", extra="text"))
def cer(
    completion: Completion,
    answer: Any,
    *,
    measure: Literal["accuracy", "rate"] = "accuracy",
    within: Passage = "reply",
    ignore: Ignore = ("whitespace",),
) -> float:
    """One minus the character error rate of the reply, 0 at the least: as `wer`, with characters for words.

    Args:
        completion: the reply: text or chat messages.
        answer: see `exact`.
        measure: see `wer`.
        within: see `exact`.
        ignore: see `exact`.

    Raises:
        Abstain: if there is no reference, or nothing is left of it.
        MissingExtra: if jiwer is not installed.

    >>> from guerdon.rewards import text
    >>> text.cer().evaluate("cats", "cat")  # one insertion for three characters
    0.6666666666666667

    Source: Morris, Maier & Green 2004; jiwer.
    """
    import jiwer

    said, references = sides(completion, answer, within, ignore)
    return _scored(min(jiwer.cer(reference, said) for reference in references), measure)


def _scored(rate: float, measure: str) -> float:
    return float(rate) if measure == "rate" else 1.0 - min(1.0, rate)
