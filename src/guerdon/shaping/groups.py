"""What the scores of a group say of its prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from guerdon.core.arrays import like, to_numpy
from guerdon.core.context import Context
from guerdon.core.protocols import Range, Scope
from guerdon.core.scores import Scores
from guerdon.shaping.pools import Over, check_over, moments, moments_of, pooled, spread_out
from guerdon.shaping.shaper import Shaper


@dataclass(frozen=True)
class pool(Shaper):
    """Give every rollout the mean of its group's scores: of correctness, the share that was solved.

    A constant: no gradient passes through it. Abstentions do not count in the mean.

    Args:
        over: the mean of the rollout's "group" or of the "batch".

    Raises:
        ValueError: for another pool.

    >>> from guerdon import Scores, Context, Rollouts
    >>> batch = Context(Rollouts(["p", "p", "q"], ["", "", ""]))
    >>> pool()(Scores.of([1.0, 0.0, 1.0]), batch).read(0.0)
    array([0.5, 0.5, 1. ])

    Source: the difficulty factor of CRF (arXiv 2511.09158), the group's pass rate.
    """

    over: Over = "group"

    def __post_init__(self) -> None:
        check_over(self.over)

    @property
    def scope(self) -> Scope:  # type: ignore[override]
        return self.over

    def __call__(self, scores: Scores, context: Context) -> Scores:
        known, index = moments_of(scores, context, self.over)
        values = scores.read(0.0)
        means = np.broadcast_to(spread_out(known.mean[index], values.ndim), values.shape)
        return scores.with_values(like(means.copy(), values))


@dataclass(frozen=True)
class top_groups(Shaper):
    """1 for the rollouts of the groups with the best mean score, 0 for the others: a gate over the batch.

    The best ⌈λB⌉ of the B groups that have a score; groups with equal means in the order of their numbers.

    Args:
        share: λ in [0, 1]; 0 takes none, anything above at least one.

    Raises:
        ValueError: if the share is outside [0, 1].

    >>> from guerdon import Scores, Context, Rollouts
    >>> batch = Context(Rollouts(["p", "p", "q", "q"], [""] * 4))
    >>> top_groups(share=0.5)(Scores.of([1.0, 0.0, 1.0, 1.0]), batch).read(0.0)
    array([0., 0., 1., 1.])

    Source: the batch-wise choice between efficiency and accuracy in GRPO-λ (arXiv 2505.18086).
    """

    share: float = 0.2

    scope = "batch"

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share lies between 0 and 1, got {self.share}")

    def range(self, inner: Range) -> Range:
        return 0.0, 1.0

    def __call__(self, scores: Scores, context: Context) -> Scores:
        known, index = moments_of(scores, context, "group")
        scored = known.size > 0
        # 0.07 · 100 is a little more than 7 in floating point.
        chosen = math.ceil(self.share * int(scored.sum()) * (1 - 1e-12))
        order = np.lexsort((np.arange(len(scored)), -known.mean, ~scored))
        taken = np.zeros(len(scored))
        taken[order[:chosen]] = 1.0
        values = scores.read(0.0)
        return scores.with_values(
            like(np.broadcast_to(spread_out(taken[index], values.ndim), values.shape).copy(), values)
        )


@dataclass(frozen=True)
class curiosity(Shaper):
    """Pay for what few of the group do, as long as few do it.

        difference: r' = u · max(H − s, 0)        ratio: r' = u · max(H − s, 0) / s

    with u = 1 if the score is above 0 (the rollout called a tool) and s the share of the group with u = 1. The bonus
    fades by itself as the habit spreads, and is gone at H: it is the Lagrangian of "at least H of the rollouts do it".
    The sum of a group's bonuses is bounded, so correctness stays dominant.

    Args:
        target: H in (0, 1].
        kind: "difference", or "ratio", by which the first to try earns most.

    Raises:
        ValueError: for another kind, or a target outside (0, 1].

    >>> from guerdon import Scores, Context, Rollouts
    >>> batch = Context(Rollouts(["p"] * 8, [""] * 8))
    >>> curiosity()(Scores.of([1.0] + [0.0] * 7), batch).read(0.0)[:2]  # s = 1/8
    array([0.175, 0.   ])

    Source: Pixel Reasoner (arXiv 2505.15966; TIGER-AI-Lab/Pixel-Reasoner), H = 0.3: the paper's form, times α = 0.5;
    the release's is the ratio, times 0.25/k with k = 2 for images and 1.5 for video.
    """

    target: float = 0.3
    kind: Literal["difference", "ratio"] = "difference"

    scope = "group"

    def __post_init__(self) -> None:
        if self.kind not in ("difference", "ratio"):
            raise ValueError(f"kind is 'difference' or 'ratio', got {self.kind!r}")
        if not 0 < self.target <= 1:
            raise ValueError(f"target is a share above 0, got {self.target}")

    def range(self, inner: Range) -> Range:
        return 0.0, self.target if self.kind == "difference" else math.inf

    def __call__(self, scores: Scores, context: Context) -> Scores:
        index, groups = pooled(scores, context, "group")
        values = scores.read(0.0)
        used = (to_numpy(values) > 0).astype(np.float64)
        share = moments(used, to_numpy(scores.valid), index, groups).mean[index]
        bonus = np.maximum(self.target - share, 0.0)
        if self.kind == "ratio":
            bonus = bonus / np.where(share > 0, share, 1.0)
        return scores.with_values(like(used * spread_out(bonus, values.ndim), values))
