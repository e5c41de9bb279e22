"""Scores against those of reference answers to the same prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from guerdon.core.arrays import like
from guerdon.core.context import Context
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores
from guerdon.shaping.shaper import Shaper
from guerdon.shaping.squash import Curve, check_curve, squash


@dataclass(frozen=True)
class relative(Shaper):
    """Measure a score against the scores of reference answers to the same prompt, and squash the difference.

        r' = (1/M) Σₘ f((r − shift − rₘ) / s)        or, with a quantile q,        r' = f((r − shift − r_q) / s)

    With the sigmoid, r' is the probability that the answer beats a reference under Bradley–Terry: bounded,
    centred, fast at first and slow later. With log-sigmoid and a high quantile it is the log-probability of
    being "good", and sums of it over properties are a logical *and*. A constant added to the reward and its
    references changes nothing.

    A row abstains if the column holds no finite reference score for it.

    Args:
        to: the column of reference scores: a number or a list of numbers per row, by the same reward.
        kind: f, a curve of `bound`, or 'linear' for the plain difference.
        scale: s > 0, in the unit of the score; the source's k is 1/s.
        shift: start later by so much, in the unit of the score; 3 for the source's slow start.
        quantile: compare with this quantile of the references instead of with each of them.
        fit: the quantile of a Gaussian with their mean and (population) standard deviation, or "empirical",
            interpolated linearly between them.

    Raises:
        ValueError: for another kind or fit, s ≤ 0, a shift that is not finite, or a quantile outside (0, 1).

    >>> from guerdon import Scores, Context, Rollouts
    >>> batch = Rollouts(["p"], ["a"], {"references": [[0.0, 1.0, 3.0]]})
    >>> relative("references")(Scores.of([2.0]), Context(batch)).read(0.0).round(3)
    array([0.627])

    Source: PAR (arXiv 2502.18770), which takes at most ten references; with a quantile, LSC (arXiv 2402.00742).
    """

    to: str = "reference_scores"
    kind: Curve = "sigmoid"
    scale: float = 1.0
    shift: float = 0.0
    quantile: float | None = None
    fit: Literal["gaussian", "empirical"] = "gaussian"

    def __post_init__(self) -> None:
        check_curve(self.kind)
        if not 0 < self.scale < math.inf or not math.isfinite(self.shift):
            raise ValueError(f"scale must be positive and shift finite, got {self.scale} and {self.shift}")
        if self.quantile is not None and not 0 < self.quantile < 1:
            raise ValueError(f"quantile lies between 0 and 1, got {self.quantile}")
        if self.fit not in ("gaussian", "empirical"):
            raise ValueError(f"fit is 'gaussian' or 'empirical', got {self.fit!r}")

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({self.to})

    def range(self, inner: Range) -> Range:
        return float(squash(self.kind, np.float64(-math.inf))), float(squash(self.kind, np.float64(math.inf)))

    def __call__(self, scores: Scores, context: Context) -> Scores:
        table = _table(context.require_rollouts().column(self.to))
        there = np.isfinite(table)
        usable = there.any(1)
        if self.quantile is not None:
            table, there = self._quantiles(table, there)[:, None], usable[:, None]
        weights = there / np.maximum(there.sum(1, keepdims=True), 1)
        values = scores.read(0.0)
        references, weights = like(np.where(there, table, 0.0), values), like(weights, values)
        if values.ndim == 2:
            references, weights, usable = references[:, None], weights[:, None], usable[:, None]
        shaped = (squash(self.kind, (values[..., None] - self.shift - references) / self.scale) * weights).sum(-1)
        reasons = {
            int(row): f"column {self.to!r} holds no finite reference score"
            for row in np.flatnonzero(~usable.reshape(-1))
        }
        return scores.with_values(
            shaped, valid=scores.valid & like(usable, scores.valid), reasons={**reasons, **scores.reasons}
        )

    def _quantiles(self, table: Float[np.ndarray[Any, Any], "n m"], there: Any) -> Float[np.ndarray[Any, Any], "n"]:
        """Each row's quantile of the references there are; 0 where there is none."""
        assert self.quantile is not None
        count = np.maximum(there.sum(1), 1)
        if self.fit == "gaussian":
            mean = np.where(there, table, 0.0).sum(1) / count
            spread = np.sqrt((np.where(there, table - mean[:, None], 0.0) ** 2).sum(1) / count)
            return np.asarray(mean + NormalDist().inv_cdf(self.quantile) * spread)
        ordered = np.sort(np.where(there, table, np.where(there.any(1, keepdims=True), math.inf, 0.0)), axis=1)
        place = self.quantile * (count - 1)
        below = np.floor(place).astype(np.int64)
        rows = np.arange(len(table))
        low, high = ordered[rows, below], ordered[rows, np.minimum(below + 1, count - 1)]
        return np.asarray(low + (place - below) * (high - low))


def _table(column: Any) -> Float[np.ndarray[Any, Any], "n m"]:
    """Numbers or lists of numbers as one array; NaN where there is none."""
    rows = [entry if isinstance(entry, (list, tuple, np.ndarray)) else [entry] for entry in column]
    table = np.full((len(rows), max(1, *map(len, rows)) if rows else 1), math.nan)
    for row, entries in enumerate(rows):
        table[row, : len(entries)] = [_number(entry) for entry in entries]
    return table


def _number(entry: Any) -> float:
    is_number = isinstance(entry, (int, float, np.number)) and not isinstance(entry, bool)
    return float(entry) if is_number else math.nan
