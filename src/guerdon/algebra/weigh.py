"""Rewards times a column of the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from guerdon.algebra.combine import is_number
from guerdon.algebra.expression import Reward, Wrapper
from guerdon.core.arrays import like, where
from guerdon.core.context import Context
from guerdon.core.protocols import Measured, Range
from guerdon.core.scores import Scores


@dataclass(frozen=True, repr=False)
class Weighed(Wrapper):
    """A reward times a column of the data."""

    by: str

    def __repr__(self) -> str:
        return f"weigh({self.inner}, by={self.by!r})"

    @property
    def requires(self) -> frozenset[str]:
        return self.inner.requires | {self.by}

    @property
    def range(self) -> Range:
        low, high = self.inner.range
        return (-math.inf if low < 0 else 0.0), (math.inf if high > 0 else 0.0)

    def combine(self, measured: Measured, context: Context) -> Scores:
        scores = self.inner.combine(measured, context)
        weights = np.array([_weight(entry) for entry in context.require_rollouts().column(self.by)], np.float64)
        unusable = ~(np.isfinite(weights) & (weights >= 0))
        factor = where(unusable, 0.0, weights)
        if scores.level == "step":
            factor, unusable = factor[:, None], unusable[:, None]
        reasons = {int(i): f"column {self.by!r} is not a weight ≥ 0" for i in np.flatnonzero(unusable)}
        return scores.with_values(
            scores.read(0.0) * like(factor, scores.mask),
            valid=scores.valid & ~like(unusable, scores.mask),
            reasons={**reasons, **scores.reasons},
        )


def weigh(reward: Reward, *, by: str) -> Weighed:
    """Multiply a reward by a column of the data, such as a difficulty.

    Abstains where the column is not a finite number ≥ 0.

    Source: difficulty-weighted rewards; arithmetic.
    """
    return Weighed(reward, by)


def _weight(entry: Any) -> float:
    return float(entry) if is_number(entry) else math.nan
