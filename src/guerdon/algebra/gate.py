"""One reward on the condition of another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from guerdon.algebra.align import aligned
from guerdon.algebra.expression import Reward, expect_rewards, merged, one_level
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
    otherwise: float | Reward = 0.0
    inclusive: bool = False

    def __post_init__(self) -> None:
        expect_rewards("gate", self.condition, self.then)
        if math.isnan(self.above) or not (isinstance(self.otherwise, Reward) or math.isfinite(self.otherwise)):
            raise ValueError(f"above is a threshold and otherwise a score, got {self.above} and {self.otherwise}")
        one_level(self.children[0 if self.condition.level == "step" else 1 :], "gate")
        self.names()

    def __repr__(self) -> str:
        otherwise = self.otherwise if isinstance(self.otherwise, Reward) else f"{self.otherwise:g}"
        options = f"above={self.above:g}, otherwise={otherwise}" + (", inclusive=True" if self.inclusive else "")
        return f"gate({self.condition}, then={self.then}, {options})"

    @property
    def children(self) -> tuple[Reward, ...]:
        other = (self.otherwise,) if isinstance(self.otherwise, Reward) else ()
        return (self.condition, self.then, *other)

    @property
    def level(self) -> Level:
        return self.then.level

    @property
    def range(self) -> Range:
        other = self.otherwise.range if isinstance(self.otherwise, Reward) else (self.otherwise, self.otherwise)
        return min(self.then.range[0], other[0]), max(self.then.range[1], other[1])

    def combine(self, measured: Measured, context: Context) -> Scores:
        scores = [child.combine(measured, context) for child in self.children]
        first = 0 if scores[0].level == "step" else 1
        if len(scores) - first > 1:
            scores[first:] = aligned(scores[first:])
        condition, then = scores[:2]
        level = condition.read(0.0)
        is_open = level >= self.above if self.inclusive else level > self.above
        decided, asked = condition.valid, condition.mask
        if then.level == "step" and condition.level == "rollout":
            is_open, decided, asked = is_open[:, None], decided[:, None], asked[:, None]
        is_open, decided, asked = (like(x, then.mask) for x in (is_open, decided, asked))
        mask = then.mask & asked
        there, other = ~is_open | then.valid, self.otherwise
        if len(scores) > 2:
            mask, there, other = mask & scores[2].mask, there & (is_open | scores[2].valid), scores[2].read(0.0)
        valid = mask & decided & there
        missing = mask & ~valid
        rows = np.flatnonzero(to_numpy(missing if missing.ndim == 1 else missing.any(-1)))
        values = where(is_open, then.read(0.0), other)
        kept = merged(self.children, scores, map(int, rows))
        if len(scores) > 2 and missing.ndim == 1:
            # A row that is closed abstains for the reason of `otherwise`, whatever `then` says of it.
            taken = to_numpy(is_open)
            chosen = [condition, then.restrict(taken), scores[2].restrict(~taken)]
            kept["reasons"] = merged(self.children, chosen, map(int, rows))["reasons"]
        return Scores(values, mask=mask, valid=valid, spans=then.spans, **kept)


def gate(
    condition: Reward, *, then: Reward, above: float = 0.5, otherwise: float | Reward = 0.0, inclusive: bool = False
) -> Gate:
    """`then` where `condition > above`, `otherwise` elsewhere.

    A closed gate ignores `then`, an open one `otherwise`: if that one abstains, nothing is lost. Where the
    condition abstains, so does the gate. A condition of one score per rollout gates rewards of steps as well.

    Args:
        condition: the reward that decides.
        then: the reward that counts once it is met.
        above: the threshold, exclusive, in the unit of the condition.
        otherwise: the score of a closed gate, or the reward that counts there.
        inclusive: the threshold itself opens the gate too, so that a gate between few outcomes (-1, -0.5, 0, 1) is
            written with the lowest one that passes.

    Raises:
        LevelMismatch: if the condition gives one score per step and `then` one per rollout, or `then` and
            `otherwise` are of different levels.
        ValueError: if `above` is NaN, or `otherwise` not finite.

    Source: gated rewards, G-RA (arXiv 2508.10548), with `inclusive`; CRF (2511.09158).
    """
    return Gate(
        condition, then, float(above), otherwise if isinstance(otherwise, Reward) else float(otherwise), inclusive
    )
