"""Whether a reply reasons the way that works: phrases of planning, checking and concluding."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from guerdon.algebra import reward
from guerdon.core.parsing import Completion, Passage, passage, text_of

__all__ = ["PHRASES", "phrases"]

# Of the source's release, with its blanks; 'makes sence' is spelt as there.
PHRASES = (
    "i need to", "we need to", "wait", "alternatively", "let me check", "let me see", "let's focus on", "we know that",
    "we can observe ", "we can see ", "let me try", "let's try", "let us try", "first, ", "firstly, ", "next, ",
    "finally, ", "let us first", "let's first", "let me first", "try again", "still not", "not working", "not correct",
    "does not work", "doesn't work", "makes sence", "since we ", "because we ", "consequently", "as a result", "thus",
    "therefore", "hence", "so that", "thereby", "if we", "given there ", "for instance ", "for example ",
)  # fmt: skip


def _valid(phrases: tuple[str, ...], enough: int, size: int, **options: object) -> tuple[str, ...]:
    if not phrases or not all(phrases) or enough < 1 or size < 1:
        raise ValueError(f"phrases wants phrases, enough ≥ 1 and size ≥ 1; got {phrases!r}, {enough} and {size}")
    return ()


@reward(range=(0, 1), requires=_valid)
def phrases(
    completion: Completion,
    *,
    phrases: tuple[str, ...] = PHRASES,
    enough: int = 20,
    size: int = 20,
    repetition: Literal["seen-twice", "not-unique", "none"] = "not-unique",
    turns: tuple[str, ...] = ("user: ",),
    within: Passage = "completion",
) -> tuple[float, dict[str, Any]]:
    """The reasoning-pattern reward: how many kinds of phrases of reasoning stand in the reply, less its repetition.

        max(0, min(1, |phrases that occur| / enough) − repetition − |turns of another speaker|)

    A phrase counts once however often it is said. It asks for no right answer, and so is beside one or on top of a
    verifier that is wrong now and then: `reward + 0.1 * pattern.phrases()` where the reward is low.

        'seen-twice'    distinct n-grams that occur more than once / all n-grams
        'not-unique'    1 − distinct n-grams / all n-grams

    The first is the source's: a block of 30 words said ten times loses a tenth. By the second it loses nine.

    Args:
        completion: the reply: text or chat messages.
        phrases: what is looked for, in lower case; white space counts.
        enough: so many of them earn 1.
        size: n.
        repetition: as above; 'none' does not look for it.
        turns: each of these that stands in the reply costs 1: a model that writes the next question itself.
        within: see `text.exact`.

    Returns:
        The score, and as details how many phrases were found and the share of repetition.

    Raises:
        ValueError: at once, without phrases, or for enough or size < 1.

    >>> from guerdon.rewards import pattern
    >>> pattern.phrases(enough=4).evaluate("First, we need to add. Wait, wait: therefore 4.")
    (1.0, {'phrases': 4, 'repetition': 0.0})

    Source: RPR of "The Climb Carves Wisdom Deeper Than the Summit" (trestad/Noisy-Rewards-in-Learning-to-Reason).
    """
    text = (passage(text_of(completion), within) or "").lower()
    found = sum(phrase in text for phrase in phrases)
    repeated = _repetition(text.split(), size, repetition)
    score = min(1.0, found / enough) - repeated - sum(text.count(mark.lower()) for mark in turns)
    return max(0.0, score), {"phrases": found, "repetition": repeated}


def _repetition(words: list[str], size: int, kind: str) -> float:
    counts = Counter(zip(*(words[start:] for start in range(size)), strict=False))
    total = counts.total()
    if kind == "none" or not total:
        return 0.0
    return (sum(many > 1 for many in counts.values()) if kind == "seen-twice" else total - len(counts)) / total
