"""A reward that is believed as far as it agrees with another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from guerdon.algebra.align import aligned
from guerdon.algebra.expression import Reward, Wrapper, expect_rewards, merged, one_level, widest
from guerdon.core.arrays import like, to_numpy
from guerdon.core.context import Context
from guerdon.core.protocols import Measured, Range, Scope
from guerdon.core.scores import Level, Scores


@dataclass(frozen=True, repr=False)
class Trusted(Wrapper):
    """A reward, less where it prefers a group's wrong rollouts to its right ones."""

    by: Reward
    above: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        expect_rewards("trusted", self.by)
        one_level(self.children, "trust")
        if self.level == "step":
            raise ValueError("trusted compares rollouts: reduce(…) rewards of steps first")
        if math.isnan(self.above):
            raise ValueError("above is a threshold, got nan")
        self.names()

    def __repr__(self) -> str:
        return f"trusted({self.inner}, by={self.by}, above={self.above:g})"

    @property
    def children(self) -> tuple[Reward, ...]:
        return (self.inner, self.by)

    @property
    def level(self) -> Level:
        return self.inner.level

    @property
    def range(self) -> Range:
        low, high = self.inner.range
        return min(low, 0.0), max(high, 0.0)

    @property
    def scope(self) -> Scope:
        return widest(("group", super().scope))

    def combine(self, measured: Measured, context: Context) -> Scores:
        reward, by = aligned([child.combine(measured, context) for child in self.children])
        _, index = np.unique(context.require_rollouts().groups, return_inverse=True)
        groups = int(index.max(initial=-1)) + 1
        values, valid = reward.read(0.0), reward.valid & by.valid
        known, right = to_numpy(valid), to_numpy(by.read(0.0)) > self.above
        means, there = [], np.ones(groups, bool)
        for rows in (known & right, known & ~right):
            count = np.bincount(index, rows, minlength=groups)
            means.append(np.bincount(index, to_numpy(values) * rows, minlength=groups) / np.maximum(count, 1))
            there &= count > 0
        gap = np.where(there, np.minimum(means[0] - means[1], 0.0), 0.0)
        mask = reward.mask & by.mask
        failed = np.flatnonzero(to_numpy(mask & ~valid))
        return Scores(
            values * like(np.exp(gap)[index], values),
            mask=mask,
            valid=mask & valid,
            **merged(self.children, (reward, by), map(int, failed)),
        )


def trusted(reward: Reward, *, by: Reward, above: float = 0.5) -> Trusted:
    """A reward times the trust that its group's outcomes give it.

        γ = 1 if μ⁺ ≥ μ⁻, else exp(μ⁺ − μ⁻)

    μ⁺ and μ⁻ are its means over the group's right and wrong rollouts: a judge of the reasoning that prefers wrong
    answers to right ones is not to be believed in this group. γ = 1 in a group without right or without wrong ones;
    it is a constant. Abstains where either does.

    Args:
        reward: what is to be believed, e.g. a judge's opinion.
        by: what is known, e.g. correctness.
        above: rollouts are right where `by` is above it.

    Raises:
        LevelMismatch: if one is of steps and the other of rollouts.
        ValueError: for rewards of steps.

    Source: Trust-GRPO, SophiaVL-R1 (arXiv 2505.17018), where right is an outcome of at least 0.5.
    """
    return Trusted(reward, by, float(above))
