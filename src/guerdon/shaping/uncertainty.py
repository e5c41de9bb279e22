"""How much a measure is to be believed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from guerdon.core.arrays import Array, is_tensor
from guerdon.core.context import Context
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores
from guerdon.shaping.shaper import Shaper


@dataclass(frozen=True)
class trust(Shaper):
    """An uncertainty u ≥ 0 as a weight in (0, 1]: 1 where there is none, less the more there is.

        inverse-variance: w = 1/(1 + (u/s)²)        exponential: w = exp(−u/s)

    `product(reward, uncertainty >> trust())` then believes a learned reward where its ensemble agrees, and
    `reward - k * uncertainty` is the pessimistic bound.

    Args:
        kind: "inverse-variance", what a Bayesian average with a prior of standard deviation s at 0 gives, or
            "exponential".
        scale: s > 0, in the unit of the uncertainty.

    Raises:
        ValueError: for another kind, s ≤ 0, or an uncertainty that is or can be negative.

    >>> from guerdon import Scores, Context
    >>> trust(scale=0.5)(Scores.of([0.0, 0.5, 1.5]), Context()).read(0.0)
    array([1. , 0.5, 0.1])

    Source: ours; shrinkage by precision, and pessimism as in reward-model ensembles (e.g. arXiv 2310.02743).
    """

    kind: Literal["inverse-variance", "exponential"] = "inverse-variance"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("inverse-variance", "exponential"):
            raise ValueError(f"kind is 'inverse-variance' or 'exponential', got {self.kind!r}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be positive and finite, got {self.scale}")

    def range(self, inner: Range) -> Range:
        if inner[0] < 0:
            raise ValueError(f"trust weighs an uncertainty, which is never negative; this one reaches {inner[0]:g}")
        high, low = (float(self._weight(np.float64(end))) for end in inner)
        return low, high

    def __call__(self, scores: Scores, context: Context) -> Scores:
        values = scores.read(0.0)
        if bool((values < 0).any()):
            raise ValueError("trust weighs an uncertainty, which is never negative")
        return scores.with_values(self._weight(values))

    def _weight(self, uncertainty: Any) -> Array:
        u = uncertainty / self.scale
        if self.kind == "inverse-variance":
            return 1.0 / (1.0 + u * u)
        return (-u).exp() if is_tensor(u) else np.exp(-u)
