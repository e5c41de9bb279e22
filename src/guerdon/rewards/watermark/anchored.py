"""Rewards for choosing green lists: how far marked text is from other text, and how good it still is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import shown
from guerdon.core.scores import Scores

Missing = Literal["abstain", "mean"]
Column = Float[np.ndarray[Any, Any], "n"]

CRITERIA = ("detection", "robustness", "relevance", "quality")


@reward(lane="batch", unit="group", range=(0, 4))
def anchored(
    marked: Sequence[Any],
    original: Sequence[Any],
    paraphrased: Sequence[Any],
    spoofed: Sequence[Any],
    relevance: Sequence[Any],
    quality: Sequence[Any],
    group: Int[np.ndarray[Any, Any], "n"],
    *,
    missing: Missing = "abstain",
) -> Scores:
    """Detection, robustness, relevance and quality of marked texts, each in the range of its group, added.

        d₁ = D(marked) − D(original)        d₂ = D(paraphrase) − mean D(spoofs)
        R = Σ over d₁, d₂, relevance and quality of (x − min)/(max − min + 10⁻⁸)

    D is anchored: what makes every text greener, a list of all tokens above all, changes no difference and earns
    nothing. That a paraphrase stays marked counts as much as that texts do not which were turned into their opposite.

    Args:
        marked: D of the marked text: see `watermark.detect`.
        original: D of the text without a mark.
        paraphrased: D of a paraphrase of the marked text.
        spoofed: D of each text that an attacker made of it: by turning its sentiment, turning it late, inserting hate.
        relevance: what a judge says of the marked text's.
        quality: of its quality.
        group: whose ranges are taken.
        missing: what becomes of a score of a paraphrase or spoof that is not there: the row abstains; or it is filled
            with the 'mean' of those of its kind in the group, 0 if there are none, as the source does.

    Returns:
        One score per rollout, and as details the four differences and scores as they were. What does not differ within
        a group earns 0. A row abstains where D of the marked or original text, or a judge's score, is not there.

    >>> from guerdon.rewards import watermark
    >>> part = watermark.anchored()
    >>> spoofed, same = [[0.5], [0.5]], [0.5, 0.5]
    >>> scores = {"marked": [0.8, 0.6], "original": same, "paraphrased": [0.7, 0.6], "spoofed": spoofed}
    >>> [round(score, 6) for score in part(["?"] * 2, [""] * 2, **scores, relevance=[3, 4], quality=[7, 7])]
    [2.0, 1.0]

    Source: RL-WATERMARK (an1118/rl-watermark).
    """
    groups = np.unique(np.asarray(group), return_inverse=True)[1]
    attacks = [_numbers(entry) for entry in spoofed]
    kinds = max(map(len, attacks), default=0)
    reasons = {row: f"spoofed not a list of scores: {shown(spoofed[row])}" for row, of in enumerate(attacks) if not of}
    table = np.array([[_number(entry) for entry in one] for one in (marked, original, relevance, quality, paraphrased)])
    after = np.full((len(attacks), kinds), math.nan)
    for row, of in enumerate(attacks):
        if of and len(of) != kinds:
            reasons[row] = f"{len(of)} spoofs, where others have {kinds}"
        else:
            after[row, : len(of)] = of
    if missing == "mean":
        reasons = {}
        table[4] = _filled(table[4], groups)
        after = np.stack([_filled(each, groups) for each in after.T], 1) if kinds else np.zeros((len(attacks), 1))
    for name, column in zip(("marked", "original", "relevance", "quality", "paraphrased"), table, strict=True):
        for at in np.flatnonzero(~np.isfinite(column)):
            reasons.setdefault(int(at), f"{name} is no finite number")
    for at in np.flatnonzero(~np.isfinite(after).all(1)):
        reasons.setdefault(int(at), "a spoof has no finite score")
    valid = ~np.isin(np.arange(len(groups)), list(reasons))
    d, original_d, relevant, good, rephrased = np.where(valid, table, 0.0)
    spoof = np.where(valid[:, None], after, 0.0).mean(1) if after.shape[1] else np.zeros(len(groups))
    criteria = (d - original_d, rephrased - spoof, relevant, good)
    total = np.asarray(sum(_in_range(each, groups, valid) for each in criteria), np.float64)
    details = {name: each.tolist() for name, each in zip(CRITERIA, criteria, strict=True)}
    return Scores.of(total.tolist(), reasons=reasons, details=details)


@reward(range=(0, 1))
def balance(green: Any, vocabulary: Any) -> float:
    """How near a green list is to half of the vocabulary: 1 − |2 |g|/V − 1|; 0 for none and for all.

    A list of all tokens has every detection score at 1, and what is anchored at 0; beside the anchored reward this
    keeps lists from getting there.

    Args:
        green: the tokens on the list.
        vocabulary: how many tokens there are.

    Raises:
        Abstain: if there is no list, or it is not of that vocabulary.

    >>> from guerdon.rewards import watermark
    >>> watermark.balance().evaluate([0, 1, 2], 4)
    0.5

    Source: ours; the regulariser that RL-WATERMARK's abstract speaks of is not in its code.
    """
    if isinstance(vocabulary, bool) or not isinstance(vocabulary, (int, np.integer)) or vocabulary < 1:
        raise Abstain(f"vocabulary is no whole number ≥ 1: {shown(vocabulary)}")
    listed = green.tolist() if isinstance(green, np.ndarray) else green
    if not isinstance(listed, (list, tuple)):
        raise Abstain(f"green no list of tokens: {shown(green)}")
    if not all(isinstance(token, int) and 0 <= token < vocabulary for token in listed):
        raise Abstain(f"green names other tokens than 0 to {vocabulary - 1}: {shown(green)}")
    return 1 - abs(2 * len(set(listed)) / int(vocabulary) - 1)


def _in_range(values: Column, groups: Int[np.ndarray[Any, Any], "n"], valid: Bool[np.ndarray[Any, Any], "n"]) -> Column:
    """Values from 0 to 1 between the lowest and the highest of their group."""
    count = int(groups.max(initial=-1)) + 1
    low, high = np.full(count, math.inf), np.full(count, -math.inf)
    np.minimum.at(low, groups[valid], values[valid])
    np.maximum.at(high, groups[valid], values[valid])
    low, high = (np.where(np.isfinite(end), end, 0.0)[groups] for end in (low, high))
    return np.where(valid, (values - low) / (high - low + 1e-8), 0.0)


def _filled(values: Column, groups: Int[np.ndarray[Any, Any], "n"]) -> Column:
    """Values, with the mean of their group where there is none; 0 where the group has none."""
    there = np.isfinite(values)
    count = np.bincount(groups[there], minlength=int(groups.max(initial=-1)) + 1)
    means = np.bincount(groups[there], values[there], len(count)) / np.maximum(count, 1)
    return np.where(there, values, means[groups])


def _number(entry: Any) -> float:
    return float(entry) if isinstance(entry, (Real, np.bool_)) else math.nan


def _numbers(entry: Any) -> list[float]:
    listed = entry.tolist() if isinstance(entry, np.ndarray) else entry
    return [_number(one) for one in listed] if isinstance(listed, (list, tuple)) else []
