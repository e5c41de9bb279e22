"""How much was written, or only thought, and what thinking longer costs."""

from __future__ import annotations

import math
import re
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.algebra import reward
from guerdon.core.parsing import Completion, Passage, text_of
from guerdon.core.rollouts import Rollouts
from guerdon.rewards.text.sides import sides

Written = Literal["characters", "words"]

_OPENED = re.compile(r"\A\s*<think>")


def _reads(unit: str, within: str) -> tuple[str, ...]:
    if unit == "tokens" and within == "thinking":
        raise ValueError("length within thinking is counted in 'characters' or 'words'")
    return ("tokens",) if unit == "tokens" else ()


@reward(range=(0, math.inf), lane="batch", requires=_reads)
def length(
    rollouts: Rollouts,
    *,
    unit: Literal["tokens", "characters", "words"] = "tokens",
    within: Literal["completion", "thinking"] = "completion",
) -> Float[np.ndarray[Any, Any], "n"]:
    """How long each completion is.

    A raw number, not a preference: shape it before adding it to anything, as in
    `text.length() >> shaping.bound("sigmoid")`.

    Args:
        rollouts: the batch.
        unit: 'tokens' counts those that the policy wrote, without padding and tool output; 'characters' and
            'words' (separated by white space) count the assistant's text.
        within: all of the 'completion', or the 'thinking' alone: what stands before the last `</think>`, 0 without
            one.

    Returns:
        Float["n"], in that unit.

    Raises:
        MissingInput: if tokens are asked for and the batch has none.
        ValueError: at once, if the thinking's tokens are asked for.

    >>> from guerdon.rewards import text
    >>> text.length(unit="words")(prompts=["?", "?"], completions=["forty two", ""])
    [2.0, 0.0]

    Source: ours; the length that every length-aware reward begins with.
    """
    if within == "completion":
        return rollouts.lengths(unit).astype(np.float64)
    thoughts = (thought(text_of(completion)) or "" for completion in rollouts.column("completion"))
    return np.array([size(each, unit) for each in thoughts], np.float64)


def _window(low: float, high: float, **options: object) -> tuple[str, ...]:
    if not 0 <= low <= high:
        raise ValueError(f"proportion wants 0 ≤ low ≤ high, got {low} and {high}")
    return ()


@reward(range=(0, 1), requires=_window)
def proportion(
    completion: Completion,
    answer: Any,
    *,
    low: float = 0.5,
    high: float = 2.0,
    unit: Written = "words",
    within: Passage = "reply",
) -> tuple[float, dict[str, Any]]:
    """1 if the reply is about as long as a reference, else 0: low ≤ |reply| / |reference| ≤ high.

    As a factor of how well something is written, it takes the easy praise from one flawless short sentence.

    Args:
        completion: the reply: text or chat messages.
        answer: see `text.exact`; of several references any.
        low: the least ratio, inclusive, as is `high`.
        high: the largest.
        unit: what is counted.
        within: see `text.exact`.

    Returns:
        The score, and as a detail the ratio to the reference nearest in length.

    Raises:
        Abstain: if there is no reference.
        ValueError: at once, unless 0 ≤ low ≤ high.

    >>> from guerdon.rewards import text
    >>> text.proportion().evaluate("a cat", "a black cat on a red mat")
    (0.0, {'ratio': 0.2857142857142857})

    Source: the length-conditional mask of BalCapRL (arXiv 2605.07394).
    """
    said, references = sides(completion, answer, within, ())
    ratios = [size(said, unit) / size(reference, unit) for reference in references]
    nearest = min(ratios, key=lambda ratio: abs(math.log(ratio)) if ratio else math.inf)
    return float(any(low <= ratio <= high for ratio in ratios)), {"ratio": nearest}


class LengthCost(NamedTuple):
    """Accuracy by length.

    Args:
        length: the mean length of each bin, from the shortest.
        accuracy: the share that is right in it.
        size: rollouts in it.
        slope: of accuracy over length, by least squares over all rollouts: how much is lost or won per unit.
    """

    length: Float[np.ndarray[Any, Any], "b"]
    accuracy: Float[np.ndarray[Any, Any], "b"]
    size: Int[np.ndarray[Any, Any], "b"]
    slope: float


def length_cost(
    correct: Bool[np.ndarray[Any, Any], "n"], lengths: Float[np.ndarray[Any, Any], "n"], *, bins: int = 5
) -> LengthCost:
    """Accuracy by length, in bins of equally many rollouts, and its slope: what thinking longer costs.

    Args:
        correct: which rollouts are right.
        lengths: of them, or of their thinking.
        bins: so many, or as many as there are rollouts.

    Raises:
        ValueError: if the shapes differ, there is nothing to bin, a length is not finite, or bins < 1.

    >>> length_cost(np.array([True, True, False, False]), np.array([1.0, 2.0, 3.0, 4.0]), bins=2).accuracy
    array([1., 0.])

    Source: the "cost of thinking" of ReFine-RFT (arXiv 2601.06993).
    """
    right, measured = np.asarray(correct, np.float64), np.asarray(lengths, np.float64)
    if right.ndim != 1 or right.shape != measured.shape or not len(right) or bins < 1:
        raise ValueError(f"correct {right.shape} and lengths {measured.shape} need one shape (n,), n and bins ≥ 1")
    if not np.isfinite(measured).all():
        raise ValueError("lengths must be finite")
    parts = np.array_split(np.argsort(measured, kind="stable"), min(bins, len(right)))
    centred = measured - measured.mean()
    spread = float(centred @ centred)
    return LengthCost(
        np.array([measured[part].mean() for part in parts]),
        np.array([right[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
        float(centred @ right) / spread if spread else 0.0,
    )


def thought(text: str) -> str | None:
    """What stands before the last `</think>`, without the tag that opens it; None if nothing was thought.

    >>> thought("<think>6 · 7</think>42"), thought("42")
    ('6 · 7', None)
    """
    before, closed, _ = text.rpartition("</think>")
    return _OPENED.sub("", before).strip() if closed else None


def size(text: str, unit: Written | str) -> int:
    """The length of a text: its words, or its characters."""
    return len(text.split()) if unit == "words" else len(text)
