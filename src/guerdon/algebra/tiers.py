"""Rewards one above the other, each counted only where all below it are reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from guerdon.algebra.combine import Weighted, positive_weights
from guerdon.algebra.expression import Reward, expect_rewards
from guerdon.core.arrays import Array, like, where
from guerdon.core.context import Context
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores


def tiered(
    scores: Sequence[Float[Array, "*n"]], *, weights: Sequence[float] | None = None, above: float = 1.0
) -> tuple[Float[Array, "*n"], list[Bool[Array, "*n"]]]:
    """Σₖ wₖ sₖ over the tiers that are open: tier k is where s₁, …, sₖ₋₁ all reach the threshold.

    Args:
        scores: one array for each tier, the most important first; a closed tier's entries are not read.
        weights: wₖ. Default: 2⁻ᵏ, so that in [0, 1] no sum of later tiers is worth more than the one before.
        above: the threshold; reaching it is enough.

    Returns:
        The sum, and where each tier is open.

    Raises:
        ValueError: if there are not as many positive weights as tiers.

    >>> values, _ = tiered([np.array([1.0, 1.0, 0.5]), np.array([0.8, 1.0, 1.0]), np.array([1.0, 0.5, 1.0])])
    >>> values
    array([0.7   , 0.8125, 0.25  ])

    Source: the lexicographic reward of OPTIAGENT (arXiv 2602.23761); the weights are our reading of it.
    """
    shares = default_weights(len(scores)) if weights is None else tuple(weights)
    positive_weights(shares, scores)
    is_open: Any = like(np.ones(tuple(scores[0].shape), bool), scores[0])
    total: Any = 0.0
    opened = []
    for score, weight in zip(scores, shares, strict=True):
        opened.append(is_open)
        total = total + where(is_open, weight * score, 0.0)
        is_open = is_open & (score >= above)
    return total, opened


def default_weights(n: int) -> tuple[float, ...]:
    """½, ¼, …: as many as there are tiers."""
    return tuple(2.0**-k for k in range(1, n + 1))


@dataclass(frozen=True, repr=False)
class Tiers(Weighted):
    """The weighted sum of rewards up to the first that is not reached."""

    keyword = "tiers"

    above: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if math.isnan(self.above):
            raise ValueError("above is a threshold, got nan")

    @property
    def range(self) -> Range:
        lowest = highest = 0.0
        low = high = 0.0
        for place, (weight, term) in enumerate(zip(self.weights, self.terms, strict=True)):
            if place and self.terms[place - 1].range[1] < self.above:
                break  # the tier before is never reached
            low, high = low + weight * term.range[0], high + weight * term.range[1]
            lowest, highest = (low, high) if place == 0 else (min(lowest, low), max(highest, high))
        return lowest, highest

    def _values(self, scores: Sequence[Scores], context: Context) -> tuple[Array, Array]:
        values, opened = tiered([s.read(0.0) for s in scores], weights=self.weights, above=self.above)
        valid = scores[0].valid
        for score, is_open in zip(scores[1:], opened[1:], strict=True):
            valid = valid & (score.valid | ~is_open)
        return values, valid


def tiers(*rewards: Reward, weights: Sequence[float] | None = None, above: float = 1.0) -> Tiers:
    """Rewards one above the other, each counted only where all before it reach a threshold: Σₖ wₖ sₖ.

    It is a number for each rollout by itself, where `lexicographic` is its place in a group. A closed tier's reward is
    not needed: where it abstains, nothing is lost.

    Args:
        rewards: the most important first; of one level.
        weights: positive, one each. Default: ½, ¼, …, by which rewards in [0, 1] are ordered lexicographically.
        above: reaching it opens the next tier. Below 1, a later tier may outweigh the rest of the one before.

    Raises:
        ValueError: if a weight is not positive, or `above` is NaN.

    >>> from guerdon.rewards import recorded
    >>> first, second = recorded.value(column="a").named("works"), recorded.value(column="b").named("is good")
    >>> tiers(first, second)(["?"] * 3, [""] * 3, a=[1, 0.9, 0.9], b=[0.5, 1, None])
    [0.625, 0.45, 0.45]

    Source: the lexicographic reward of OPTIAGENT (arXiv 2602.23761); the weights are our reading of it.
    """
    expect_rewards("tiers", *rewards)
    shares = default_weights(len(rewards)) if weights is None else tuple(float(w) for w in weights)
    return Tiers(rewards, shares, float(above))
