"""Weights that change over training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from guerdon.core.context import Context
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores
from guerdon.shaping.shaper import Shaper


@dataclass(frozen=True)
class anneal(Shaper):
    """Weigh a reward by where training stands: r' = w(p) r, with p from 0 at its start to 1 at its end.

        w(p) = start + (end − start) · s(x)        x = clip((p − begin)/(until − begin), 0, 1)

        linear: s = x        cosine: s = (1 − cos πx)/2        step: s = 1 from x = 1 on
        exponential: s = 1 − e^(−x), x not cut at 1: `until` is where 1/e of the change is left

    Guidance is let go (1 → 0) or a pressure built up (0 → 1) with time; two opposite ones blend from one
    reward into another. Outside training p is 1: a schedule is shown as it ends.

    Args:
        start: w before `begin`.
        end: w after `until`.
        begin: where the change begins, as a share of training.
        until: where it is complete; after `begin`.
        shape: "linear", "cosine", "step" or "exponential".

    Raises:
        ValueError: for another shape, weights that are not finite, or unless 0 ≤ begin < until ≤ 1.

    >>> from guerdon import Scores, Context
    >>> anneal(start=1.0, end=0.0)(Scores.of([2.0]), Context(progress=0.25)).read(0.0)
    array([1.5])

    Source: the annealing coefficient of CRF (arXiv 2511.09158); the constant and linear schedules of SAR's extra
    reward (arXiv 2509.05489); the exponential decay of Trust-GRPO (arXiv 2505.17018), with T = until · steps.
    """

    start: float = 0.0
    end: float = 1.0
    begin: float = 0.0
    until: float = 1.0
    shape: Literal["linear", "cosine", "step", "exponential"] = "linear"

    def __post_init__(self) -> None:
        if self.shape not in ("linear", "cosine", "step", "exponential"):
            raise ValueError(f"shape is 'linear', 'cosine', 'step' or 'exponential', got {self.shape!r}")
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise ValueError(f"start and end must be finite, got {self.start} and {self.end}")
        if not 0 <= self.begin < self.until <= 1:
            raise ValueError(f"begin must come before until, both within [0, 1], got {self.begin} and {self.until}")

    def range(self, inner: Range) -> Range:
        corners = [weight * end if weight else 0.0 for weight in (self.start, self.end) for end in inner]
        return min(corners), max(corners)

    def weight(self, progress: float) -> float:
        """w at a point of training."""
        passed = max((progress - self.begin) / (self.until - self.begin), 0.0)
        x = min(passed, 1.0)
        done = {
            "linear": x,
            "cosine": (1 - math.cos(math.pi * x)) / 2,
            "step": float(x >= 1),
            "exponential": -math.expm1(-passed),
        }[self.shape]
        return self.start + (self.end - self.start) * done

    def __call__(self, scores: Scores, context: Context) -> Scores:
        return scores.with_values(self.weight(context.progress) * scores.read(0.0))
