"""Scores that are wrong on purpose: how much noise of a verifier a run bears, before it meets a noisy one."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from guerdon.core.arrays import like, where
from guerdon.core.context import Context
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores
from guerdon.shaping.pools import pooled, spread_out
from guerdon.shaping.shaper import Shaper


@dataclass(frozen=True)
class flip(Shaper):
    """Turn the scores of some groups upside down: r' = low + high − r, for all rollouts of a group or none.

        E[r'] = (1 − p) r + p (low + high − r)        so differences in a group shrink by 1 − 2p on average

    Below p = ½ the right answer is still paid more; at ½ there is nothing to learn, above it the wrong one is. Which
    groups are flipped is a function of the seed, the step and the group's prompt, and of nothing else: scoring again
    gives the same, and p = 1 twice gives back r.

    Args:
        rate: p in [0, 1].
        low: of the scores' range; as is `high`.
        high: the highest score there is.
        redraw: "step": anew in every training step, an unreliable judge; "never": always the same prompts, wrong
            labels.
        seed: of the draws.

    Raises:
        ValueError: if the rate is outside [0, 1], low ≥ high, or for another redraw.

    >>> from guerdon import Scores, Context, Rollouts
    >>> batch = Context(Rollouts(["p", "p"], ["", ""]))
    >>> flip(rate=1.0)(Scores.of([1.0, 0.25]), batch).read(0.0)
    array([0.  , 0.75])

    Source: the noise of "The Climb Carves Wisdom Deeper Than the Summit" (trestad/Noisy-Rewards-in-Learning-to-Reason).
    """

    rate: float = 0.0
    low: float = 0.0
    high: float = 1.0
    redraw: Literal["step", "never"] = "step"
    seed: int = 0

    scope = "group"

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate is a share between 0 and 1, got {self.rate}")
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"low must be below high, both finite, got {self.low} and {self.high}")
        if self.redraw not in ("step", "never"):
            raise ValueError(f"redraw is 'step' or 'never', got {self.redraw!r}")

    def range(self, inner: Range) -> Range:
        about = self.low + self.high
        return min(inner[0], about - inner[1]), max(inner[1], about - inner[0])

    def __call__(self, scores: Scores, context: Context) -> Scores:
        rollouts = context.require_rollouts()
        index, groups = pooled(scores, context, "group")
        first = np.zeros(groups, np.int64)
        first[index[::-1]] = np.arange(len(index))[::-1]
        step = context.step if self.redraw == "step" else 0
        drawn = np.array([self._uniform(step, rollouts.ids[int(row)]) for row in first], np.float64)
        values = scores.read(0.0)
        flipped = like(spread_out(drawn[index] < self.rate, values.ndim), scores.mask)
        return scores.with_values(where(flipped, self.low + self.high - values, values))

    def _uniform(self, step: int, identity: str) -> float:
        digest = hashlib.blake2b(f"{self.seed}/{step}/{identity}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64
