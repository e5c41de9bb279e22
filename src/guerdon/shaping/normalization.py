"""Scores in units of the scores around them: of the group, the batch, or all that were seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from guerdon.core import arrays
from guerdon.core.arrays import Array, is_tensor, like, sum_by, to_numpy, where
from guerdon.core.context import Context
from guerdon.core.protocols import Range, Scope
from guerdon.core.scores import Scores
from guerdon.shaping.pools import Moments, Over, check_over, moments_of, pooled, spread_out
from guerdon.shaping.shaper import Shaper

NO_SIGNAL = 1e-6


@dataclass(frozen=True)
class normalize(Shaper):
    """Bring scores to a common scale.

        z-score: r' = (r − μ)/σ        range: r' = (r − min)/(max − min) ∈ [0, 1]        band: r' = clip(r, μ ± wσ)
        unit: r' = r/σ

    Rewards on different scales do not add: the wider one decides. Normalise each by its group, add, and
    normalise the sum by the batch (GDPO), and each has its say. A unit of σ alone leaves the zero where it is: a metric
    in any unit, such as decibels, is worth the same in a sum.

    Scores that do not differ (σ ≤ 10⁻⁶ · max|r|) hold no signal: their z-score and number of units are exactly 0 and
    their place in the range ½, never ±10⁶. Statistics are constants: no gradient passes through them.

    Args:
        kind: "z-score", "range", "band" or "unit".
        over: the rollout's "group", the "batch", or "running": all scores observed so far in training together
            with those at hand. Of rewards of steps, every step is a sample.
        width: w ≥ 0 of the band, in standard deviations.
        ddof: σ² = Σ(r − μ)²/(count − ddof); GRPO's σ has 1.

    Raises:
        ValueError: for another kind or pool, or a negative width or ddof.

    >>> from guerdon import Scores, Context, Rollouts
    >>> batch = Context(Rollouts(["p", "p", "q"], ["", "", ""]))
    >>> normalize(over="group")(Scores.of([3.0, 1.0, 5.0]), batch).read(0.0)
    array([ 1., -1.,  0.])

    Source: running statistics: the shapers PAR compares (arXiv 2502.18770); per objective, then the batch: GDPO
    (arXiv 2601.05242); "unit": the metrics of FlowSE-GRPO (2601.16483).
    """

    kind: Literal["z-score", "range", "band", "unit"] = "z-score"
    over: Literal["group", "batch", "running"] = "batch"
    width: float = 1.0
    ddof: int = 0
    state: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in ("z-score", "range", "band", "unit"):
            raise ValueError(f"kind is 'z-score', 'range', 'band' or 'unit', got {self.kind!r}")
        check_over(self.over, "running")
        if not 0 <= self.width < math.inf or self.ddof < 0:
            raise ValueError(f"width and ddof must not be negative, got {self.width} and {self.ddof}")

    @property
    def scope(self) -> Scope:  # type: ignore[override]
        return "group" if self.over == "group" else "batch"

    def range(self, inner: Range) -> Range:
        open_ = (-math.inf if inner[0] < 0 else 0.0, math.inf if inner[1] > 0 else 0.0)
        return {"z-score": (-math.inf, math.inf), "range": (0.0, 1.0), "band": inner, "unit": open_}[self.kind]

    def __call__(self, scores: Scores, context: Context) -> Scores:
        known, index = self._moments(scores, context)
        std = known.std(self.ddof)
        silent = std <= NO_SIGNAL * np.maximum(np.abs(known.low), np.abs(known.high))
        values = scores.read(0.0)
        per_row = (known.mean, std, known.low, known.high, silent)
        mean, sigma, low, high, flat = (like(spread_out(x[index], values.ndim), values) for x in per_row)
        if self.kind == "band":
            return scores.with_values(arrays.clip(values, mean - self.width * sigma, mean + self.width * sigma))
        origin, unit = (low, high - low) if self.kind == "range" else (0.0 if self.kind == "unit" else mean, sigma)
        shaped = (values - origin) / where(flat, 1.0, unit)
        return scores.with_values(where(flat, 0.5 if self.kind == "range" else 0.0, shaped))

    def _moments(self, scores: Scores, context: Context) -> tuple[Moments, Any]:
        if self.over != "running":
            return moments_of(scores, context, self.over)
        here, index = moments_of(scores, context, "batch")
        if not self.state:
            return here, index
        seen = Moments(*(np.full(len(here.size), self.state[name]) for name in Moments._fields))
        return seen.merged(here), index

    def observe(self, scores: Scores, context: Context) -> None:
        """Count the scores of a training step in the running statistics."""
        if self.over == "running" and to_numpy(scores.valid).any():
            known, _ = self._moments(scores, context)
            self.state.update({name: float(getattr(known, name)[0]) for name in Moments._fields})

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state and set(state) != set(Moments._fields):
            raise ValueError(f"{self.name} keeps {', '.join(Moments._fields)}, got {sorted(state)}")
        self.state.clear()
        self.state.update({name: float(value) for name, value in state.items()})


@dataclass(frozen=True)
class tilt(Shaper):
    """The exponential tilt of a pool by its scores: weights that sum to 1.

        wᵢ = exp(rᵢ/λ) / Σⱼ exp(rⱼ/λ)

    It is the distribution over the pool that maximises E[r] − λ KL from the uniform one: a preference among
    rollouts that are all wanted. A weight is never negative, so none of them is pushed down.

    Args:
        temperature: λ > 0, in the unit of the score; infinite for equal weights.
        over: what sums to 1: the rollout's "group" or the "batch".
        above: scores that are not above it take no part and get weight 0.

    Raises:
        ValueError: if λ ≤ 0, or for another pool.

    >>> from guerdon import Scores, Context, Rollouts
    >>> batch = Context(Rollouts(["p"] * 3, ["", "", ""]))
    >>> tilt(temperature=1.0, above=-0.5)(Scores.of([0.8, 0.5, -1.0]), batch).read(0.0).round(3)
    array([0.574, 0.426, 0.   ])

    Source: the positive weights of DRPO (arXiv 2510.04474), by group.
    """

    temperature: float = 0.1
    over: Over = "group"
    above: float = -math.inf

    level = "rollout"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        check_over(self.over)

    @property
    def scope(self) -> Scope:  # type: ignore[override]
        return self.over

    def range(self, inner: Range) -> Range:
        return 0.0, 1.0

    def __call__(self, scores: Scores, context: Context) -> Scores:
        values = scores.read(0.0)
        index, pools = pooled(scores, context, self.over)
        takes_part = to_numpy(scores.valid) & (to_numpy(values) > self.above)
        highest = np.full(pools, -math.inf)
        np.maximum.at(highest, index[takes_part], to_numpy(values)[takes_part])
        reference = np.where(np.isfinite(highest), highest, 0.0)[index]
        exponents = where(takes_part, (values - like(reference, values)) / self.temperature, 0.0)
        weights = where(takes_part, _exp(exponents), 0.0)
        totals = sum_by(weights, index, pools)[like(index, weights)]
        return scores.with_values(weights / where(totals > 0, totals, 1.0))


def _exp(values: Any) -> Array:
    return values.exp() if is_tensor(values) else np.exp(values)
