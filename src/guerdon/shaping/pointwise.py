"""Transforms of each score by itself, or against the mean of its batch or group."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from guerdon.core import arrays
from guerdon.core.arrays import like, sum_by, to_numpy
from guerdon.core.context import Context
from guerdon.core.protocols import Range, Scope
from guerdon.core.scores import Scores
from guerdon.shaping.shaper import Shaper


@dataclass(frozen=True)
class clip(Shaper):
    """Clamp scores: r' = min(max(r, low), high).

    Args:
        low: the lowest value, in the unit of the score.
        high: the highest.

    Raises:
        ValueError: if low > high.

    >>> from guerdon import Scores, Context
    >>> clip(low=0, high=1)(Scores.of([-2.0, 0.5, 3.0]), Context()).read(0.0)
    array([0. , 0.5, 1. ])

    Source: reward clipping, DQN (Mnih et al. 2015).
    """

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"low must not exceed high, got {self.low} and {self.high}")

    def range(self, inner: Range) -> Range:
        return min(max(inner[0], self.low), self.high), min(max(inner[1], self.low), self.high)

    def __call__(self, scores: Scores, context: Context) -> Scores:
        return scores.with_values(arrays.clip(scores.read(0.0), self.low, self.high))


@dataclass(frozen=True)
class bound(Shaper):
    """Squash scores into a bounded interval.

        sigmoid: r' = σ(r/s) ∈ (0, 1)        tanh: r' = tanh(r/s) ∈ (−1, 1)

    An unbounded reward model is exploited where it extrapolates; a bounded one pays little for going
    further once the score is high, and most of its gradient is near the centre: put `center` before it.

    Args:
        kind: 'sigmoid' or 'tanh'.
        scale: s > 0, the distance over which the score matters, in its unit.

    Raises:
        ValueError: for another kind, or s ≤ 0.

    >>> from guerdon import Scores, Context
    >>> bound("tanh")(Scores.of([0.0, 100.0]), Context()).read(0.0)
    array([0., 1.])

    Source: bounded rewards of PAR (arXiv 2502.18770).
    """

    kind: Literal["sigmoid", "tanh"] = "sigmoid"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("sigmoid", "tanh"):
            raise ValueError(f"kind is 'sigmoid' or 'tanh', got {self.kind!r}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be positive and finite, got {self.scale}")

    def range(self, inner: Range) -> Range:
        low, high = (math.tanh(end / self.scale / (2 if self.kind == "sigmoid" else 1)) for end in inner)
        return (0.5 + 0.5 * low, 0.5 + 0.5 * high) if self.kind == "sigmoid" else (low, high)

    def __call__(self, scores: Scores, context: Context) -> Scores:
        squash = arrays.sigmoid if self.kind == "sigmoid" else arrays.tanh
        return scores.with_values(squash(scores.read(0.0) / self.scale))


@dataclass(frozen=True)
class center(Shaper):
    """Subtract a reference value: r' = r − c.

    Args:
        at: a number c, or 'group' or 'batch' for the mean of the scores there are in the rollout's
            group or in the batch. Abstentions do not count in the mean.

    Raises:
        ValueError: for another word, or a number that is not finite.

    >>> from guerdon import Scores, Context, Rollouts
    >>> batch = Rollouts(["p", "p", "q"], ["", "", ""])
    >>> center("group")(Scores.of([1.0, 0.0, 5.0]), Context(batch)).read(0.0)
    array([ 0.5, -0.5,  0. ])

    Source: reward centring, e.g. PAR (arXiv 2502.18770); the group mean of GRPO (arXiv 2402.03300).
    """

    at: float | Literal["group", "batch"] = "batch"

    def __post_init__(self) -> None:
        if self.at not in ("group", "batch") and (isinstance(self.at, str) or not math.isfinite(self.at)):
            raise ValueError(f"at is a number, 'group' or 'batch', got {self.at!r}")

    @property
    def scope(self) -> Scope:  # type: ignore[override]
        return self.at if isinstance(self.at, str) else "row"

    def range(self, inner: Range) -> Range:
        if not isinstance(self.at, str):
            return inner[0] - self.at, inner[1] - self.at
        width = inner[1] - inner[0]
        return -width, width

    def __call__(self, scores: Scores, context: Context) -> Scores:
        values = scores.read(0.0)
        return scores.with_values(
            values - (self.at if not isinstance(self.at, str) else self._means(scores, values, context))
        )

    def _means(self, scores: Scores, values: Any, context: Context) -> Any:
        groups = context.require_rollouts().groups if self.at == "group" else np.zeros(len(scores), np.int64)
        _, index = np.unique(groups, return_inverse=True)
        n = int(index.max(initial=-1)) + 1
        steps = values.ndim == 2
        counts = sum_by(to_numpy(scores.valid.sum(-1) if steps else scores.valid).astype(float), index, n)
        totals = sum_by(values.sum(-1) if steps else values, index, n)
        means = totals / like(np.maximum(counts, 1.0), totals)
        each = means[like(index, means)]
        return each[:, None] if steps else each
