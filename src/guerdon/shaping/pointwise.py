"""Transforms of each score by itself, or against the mean of its batch or group."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from guerdon.core import arrays
from guerdon.core.arrays import is_tensor, like, sum_by, to_numpy, where
from guerdon.core.context import Context
from guerdon.core.protocols import Range, Scope
from guerdon.core.scores import Scores
from guerdon.shaping.shaper import Shaper
from guerdon.shaping.squash import check_curve, squash


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

        sigmoid: r' = σ(r/s) ∈ (0, 1)        tanh: r' = tanh(r/s) ∈ (−1, 1)        arctan: r' ∈ (−π/2, π/2)

    An unbounded reward model is exploited where it extrapolates; a bounded one pays little for going
    further once the score is high, and most of its gradient is near the centre: put `center` before it.

    Args:
        kind: 'sigmoid', 'tanh', 'arctan'; 'polynomial', of degree five, fitted to the sigmoid on [−5, 5] and cut
            to [0, 1]; or 'log-sigmoid', log σ(r/s) ≤ 0: bounded above only, so that a bad score still costs.
        scale: s > 0, the distance over which the score matters, in its unit.

    Raises:
        ValueError: for another kind, or s ≤ 0.

    >>> from guerdon import Scores, Context
    >>> bound("tanh")(Scores.of([0.0, 100.0]), Context()).read(0.0)
    array([0., 1.])

    Source: bounded rewards of PAR (arXiv 2502.18770), whose polynomial overshoots [0, 1] by 0.011 near ±5;
    log-sigmoid: LSC (arXiv 2402.00742).
    """

    kind: Literal["sigmoid", "tanh", "arctan", "polynomial", "log-sigmoid"] = "sigmoid"
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_curve(self.kind, without="linear")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be positive and finite, got {self.scale}")

    def range(self, inner: Range) -> Range:
        low, high = (float(squash(self.kind, np.float64(end) / self.scale)) for end in inner)
        return low, high

    def __call__(self, scores: Scores, context: Context) -> Scores:
        return scores.with_values(squash(self.kind, scores.read(0.0) / self.scale))


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


@dataclass(frozen=True)
class threshold(Shaper):
    """Keep scores from a threshold on, and flatten those below it: r' = r where r ≥ t, else slope · r.

    Small differences below the threshold are often noise: a probability that reasoning hardly changes, a
    similarity of unrelated texts. Those near the top may be noise too: with `full`, r' = 1 where r > full.

    Args:
        at: t, in the unit of the score.
        slope: of what is below; 0 leaves none of it, 0.01 is a leaky threshold.
        full: a score above it is as good as can be, 1; None: scores are kept however high.

    Raises:
        ValueError: if `at`, `slope` or `full` is not finite, the slope negative, or `full` below `at`.

    >>> from guerdon import Scores, Context
    >>> threshold(at=0.5)(Scores.of([-0.2, 0.4, 0.7]), Context()).read(0.0)
    array([-0. ,  0. ,  0.7])

    Source: the shapings threshold_t and leaky_t of RLPR's release (arXiv 2506.18254); with `full`, the discretised
    recall and precision of Vision-R1 (2503.18013).
    """

    at: float = 0.0
    slope: float = 0.0
    full: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.at) and 0 <= self.slope < math.inf):
            raise ValueError(f"at must be finite and slope not negative, got {self.at} and {self.slope}")
        if self.full is not None and not self.at <= self.full < math.inf:
            raise ValueError(f"full must be finite and not below at, got {self.full} and {self.at}")

    def range(self, inner: Range) -> Range:
        below = min(inner[1], self.at)
        ends = [self.slope * end if self.slope else 0.0 for end in (inner[0], below)] if inner[0] < self.at else []
        kept = inner[1] if self.full is None else min(inner[1], self.full)
        ends += [max(inner[0], self.at), kept] if kept >= max(inner[0], self.at) else []
        ends += [1.0] if self.full is not None and inner[1] > self.full else []
        return min(ends), max(ends)

    def __call__(self, scores: Scores, context: Context) -> Scores:
        values = scores.read(0.0)
        shaped = where(values >= self.at, values, self.slope * values)
        return scores.with_values(shaped if self.full is None else where(values > self.full, 1.0, shaped))


@dataclass(frozen=True)
class quantize(Shaper):
    """Round scores to the nearest of evenly spaced levels: r' = round(k r) / k; a tie goes to the even level.

    Or to the share of some thresholds that they reach, nested zones around what is best:

        r' = |{j : r ≥ tⱼ}| / K

    Within a zone all scores are equal, so that noise smaller than the zone has no gradient.

    Args:
        bins: k, levels per unit of score. Gradients of a rounded score are 0.
        at: t₁ < … < t_K, in the unit of the score, instead of `bins`.

    Raises:
        ValueError: if k < 1, or the thresholds are not finite or do not rise.

    >>> from guerdon import Scores, Context
    >>> quantize(bins=4)(Scores.of([0.1, 0.3, 0.9]), Context()).read(0.0)
    array([0.  , 0.25, 1.  ])
    >>> quantize(at=(0.25, 0.5, 0.75, 1.0))(Scores.of([0.1, 0.3, 0.9]), Context()).read(0.0)
    array([0.  , 0.25, 0.75])

    Source: the discrete rewards bin_k of RLPR's release (arXiv 2506.18254); thresholds: the zones of Sweet Spot
    Learning (2601.22491), four of them uniform.
    """

    bins: int = 10
    at: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"bins must be at least 1, got {self.bins}")
        if not all(map(math.isfinite, self.at)) or any(a >= b for a, b in pairwise(self.at)):
            raise ValueError(f"thresholds are finite and rise, got {self.at}")

    def range(self, inner: Range) -> Range:
        if self.at:
            low, high = (sum(end >= t for t in self.at) / len(self.at) for end in inner)
        else:
            low, high = (float(np.round(end * self.bins)) / self.bins for end in inner)
        return low, high

    def __call__(self, scores: Scores, context: Context) -> Scores:
        if self.at:
            reached = sum(where(scores.read(0.0) >= t, 1.0, 0.0 * scores.read(0.0)) for t in self.at)
            return scores.with_values(reached / len(self.at))
        values = scores.read(0.0) * self.bins
        return scores.with_values((values.round() if is_tensor(values) else np.round(values)) / self.bins)
