"""Rewards of steps as rewards of rollouts, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from guerdon.algebra.expression import Reward, Wrapper, expect_rewards, merged
from guerdon.core.arrays import Array, is_tensor, like, to_numpy, where
from guerdon.core.context import Context
from guerdon.core.errors import LevelMismatch
from guerdon.core.protocols import Measured, Range
from guerdon.core.scores import Level, Scores

How = Literal["sum", "mean", "min", "max", "product", "last"]
Place = Literal["all", "last"]


@dataclass(frozen=True, repr=False)
class Reduced(Wrapper):
    """One score per rollout from those of its steps."""

    how: How

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner.level != "step":
            raise ValueError(f"{self.inner} gives one score per rollout already: there is nothing to reduce")
        if self.how not in get_args(How):
            raise ValueError(f"how is 'sum', 'mean', 'min', 'max', 'product' or 'last', got {self.how!r}")

    def __repr__(self) -> str:
        return f"reduce({self.inner}, {self.how!r})"

    @property
    def level(self) -> Level:
        return "rollout"

    @property
    def range(self) -> Range:
        low, high = self.inner.range
        if self.how == "sum":
            return (-math.inf if low < 0 else low), (math.inf if high > 0 else high)
        if self.how == "product":
            most = max(-low, high) if max(-low, high) <= 1 else math.inf
            return (-most if low < 0 else 0.0 if low < 1 else low), (most if low < 0 or high > 1 else high)
        return low, high

    def combine(self, measured: Measured, context: Context) -> Scores:
        scores = self.inner.combine(measured, context)
        valid = scores.usable
        values = self._values(scores) if scores.mask.shape[1] else scores.read(0.0).sum(-1)
        return Scores(
            where(valid, values, 0.0),
            valid=valid,
            reasons={int(i): "the rollout has no steps" for i in np.flatnonzero(to_numpy(~valid))} | scores.reasons,
            details=scores.details,
            parts=scores.parts,
        )

    def _values(self, scores: Scores) -> Array:
        if self.how == "product":
            return scores.read(1.0).prod(-1)
        if self.how in ("min", "max"):
            values = scores.read(math.inf if self.how == "min" else -math.inf)
            if is_tensor(values):
                return values.amin(-1) if self.how == "min" else values.amax(-1)
            return values.min(-1) if self.how == "min" else values.max(-1)
        values = scores.read(0.0)
        if self.how == "last":
            last = scores.mask.shape[1] - 1 - to_numpy(scores.mask)[:, ::-1].argmax(-1)
            return values[np.arange(len(scores)), last]
        total = values.sum(-1)
        if self.how == "sum":
            return total
        count = scores.mask.sum(-1)
        return total / where(count > 0, count, 1)


def reduce(reward: Reward, how: How) -> Reduced:
    """One score per rollout from a reward that gives one per step.

    Abstains where any step does, and where a rollout has no steps: an empty minimum is not a score.

    Args:
        reward: one score per step.
        how: 'min' (a chain is as good as its worst step), 'mean', 'max', 'product', 'last', or 'sum',
            which pays for every further step of positive reward.

    Raises:
        ValueError: if the reward gives one score per rollout, or for another `how`.

    Source: aggregations of process rewards; PURE (arXiv 2504.15275) on min against sum.
    """
    return Reduced(reward, how)


@dataclass(frozen=True, repr=False)
class Broadcast(Wrapper):
    """A reward of rollouts, at the steps that another reward cuts them into."""

    over: Reward
    place: Place = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        expect_rewards("broadcast", self.over)
        if (self.inner.level, self.over.level) != ("rollout", "step"):
            raise LevelMismatch(
                f"broadcast gives the one score of a rollout to its steps: {self.inner} gives one per "
                f"{self.inner.level}, {self.over} one per {self.over.level}"
            )
        if self.place not in get_args(Place):
            raise ValueError(f"place is 'all' or 'last', got {self.place!r}")
        self.names()

    def __repr__(self) -> str:
        return f"broadcast({self.inner}, over={self.over}, place={self.place!r})"

    @property
    def children(self) -> tuple[Reward, ...]:
        return (self.inner, self.over)

    @property
    def level(self) -> Level:
        return "step"

    @property
    def range(self) -> Range:
        low, high = self.inner.range
        return (low, high) if self.place == "all" else (min(low, 0.0), max(high, 0.0))

    def combine(self, measured: Measured, context: Context) -> Scores:
        outcome, over = (child.combine(measured, context) for child in self.children)
        steps = to_numpy(over.mask) & to_numpy(outcome.mask)[:, None]
        paid = steps if self.place == "all" else steps & (steps[:, ::-1].cumsum(1)[:, ::-1] == 1)
        values = outcome.read(0.0)
        missing = np.flatnonzero(to_numpy(outcome.abstained))
        return Scores(
            values[:, None] * like(paid, values),
            mask=steps,
            valid=steps & to_numpy(outcome.valid)[:, None],
            spans=over.spans,
            **merged(self.children, (outcome, over), map(int, missing)),
        )


def broadcast(reward: Reward, *, over: Reward, place: Place = "all") -> Broadcast:
    """The one score of a rollout at each of its steps, or at the last of them and 0 before it.

    The way from rollouts to steps, as `reduce` is the way back: an outcome can then be added to rewards
    of steps. Abstains where the outcome does; only the steps of `over` matter, not its scores.

    Args:
        reward: one score per rollout.
        over: the reward of steps that says where the steps are.
        place: "all" repeats the outcome, so that a long rollout does not dilute it; "last" pays it once.

    Raises:
        LevelMismatch: if `reward` gives one score per step, or `over` one per rollout.
        ValueError: for another place.

    Source: outcome broadcast of PPR's ReNorm (arXiv 2509.25598) and "last" of G-RA (2508.10548).
    """
    return Broadcast(reward, over, place)
