"""One reward on the condition of another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from guerdon.algebra.align import aligned
from guerdon.algebra.reward import Reward, expect_rewards, merged, one_level
from guerdon.core.arrays import like, to_numpy, where
from guerdon.core.context import Context
from guerdon.core.protocols import Measured, Range
from guerdon.core.scores import Level, Scores


@dataclass(frozen=True, repr=False)
class Gate(Reward):
    """One reward, where another one is high enough."""

    condition: Reward
    then: Reward
    above: float = 0.5
    otherwise: float = 0.0

    def __post_init__(self) -> None:
        expect_rewards("gate", self.condition, self.then)
        if math.isnan(self.above) or not math.isfinite(self.otherwise):
            raise ValueError(f"above is a threshold and otherwise a score, got {self.above} and {self.otherwise}")
        if self.condition.level == "step":
            one_level((self.condition, self.then), "gate")
        self.names()

    def __repr__(self) -> str:
        return f"gate({self.condition}, then={self.then}, above={self.above:g}, otherwise={self.otherwise:g})"

    @property
    def children(self) -> tuple[Reward, ...]:
        return (self.condition, self.then)

    @property
    def level(self) -> Level:
        return self.then.level

    @property
    def range(self) -> Range:
        return min(self.then.range[0], self.otherwise), max(self.then.range[1], self.otherwise)

    def combine(self, measured: Measured, context: Context) -> Scores:
        condition, then = self.condition.combine(measured, context), self.then.combine(measured, context)
        if condition.level == "step":
            condition, then = aligned((condition, then))
        is_open, decided, asked = condition.read(0.0) > self.above, condition.valid, condition.mask
        if then.level == "step" and condition.level == "rollout":
            is_open, decided, asked = is_open[:, None], decided[:, None], asked[:, None]
        is_open, decided, asked = (like(x, then.mask) for x in (is_open, decided, asked))
        mask = then.mask & asked
        valid = mask & decided & (~is_open | then.valid)
        missing = mask & ~valid
        rows = np.flatnonzero(to_numpy(missing if missing.ndim == 1 else missing.any(-1)))
        values = where(is_open, then.read(0.0), self.otherwise)
        return Scores(
            values, mask=mask, valid=valid, spans=then.spans, **merged(self.children, (condition, then), map(int, rows))
        )


def gate(condition: Reward, *, then: Reward, above: float = 0.5, otherwise: float = 0.0) -> Gate:
    """`then` where `condition > above`, `otherwise` elsewhere.

    A closed gate ignores `then`: if it abstains there, nothing is lost. Where the condition
    abstains, so does the gate. A condition of one score per rollout gates rewards of steps as well.

    Args:
        condition: the reward that decides.
        then: the reward that counts once it is met.
        above: the threshold, exclusive, in the unit of the condition.
        otherwise: the score of a closed gate.

    Raises:
        LevelMismatch: if the condition gives one score per step and `then` one per rollout.
        ValueError: if `above` is NaN, or `otherwise` not finite.

    Source: outcome-gated rewards, e.g. G-RA and CRF of the shaping systems.
    """
    return Gate(condition, then, float(above), float(otherwise))
