"""Length against a target: a number, a column, or one per difficulty that follows the policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.protocols import Scope
from guerdon.core.scores import Scores
from guerdon.shaping.length_reward import Curve, LengthReward, Standard
from guerdon.shaping.pools import pooled


@dataclass(frozen=True, kw_only=True)
class target_length(LengthReward):
    """Pay for keeping to a target length.

    The curves b(z), `weight`, `wrong`, `apply`, the floors, `tolerance`, `above` and `unit` are those of
    `LengthReward`; here T is the target and W the width. With the defaults, a correct and finished completion of
    at most 4096 tokens gets ½ more.

    Args:
        target: T: one length; the name of a column that holds each row's (a row without a positive one abstains);
            or one per band of difficulty, from the hardest to the easiest.
        width: W > 0, in `unit`; by default T itself, so that z is the relative excess.
        bands: rising accuracies of a group that part the bands; from a band's bound on, its target is the next.

    Raises:
        ValueError: as `LengthReward`; if a target is negative, or 0 without a width; for a width ≤ 0; if the bounds
            do not rise, or are not one fewer than the targets.

    >>> from guerdon import Scores, Context, Rollouts
    >>> batch = Context(Rollouts(["p"] * 3, ["a b", "a b c d e", "a"]))
    >>> target_length(target=3, unit="words")(Scores.of([1.0, 1.0, -0.5]), batch).read(0.0)
    array([ 1.5,  1. , -0.5])

    Source: LASER (arXiv 2505.15612); by difficulty, DA-DLER (2510.15110); "cut" with "multiply" and weight 1 is the
    truncation of DLER, "deviation" against a column DRO's (2506.13351), "excess" the charge of PAR (2502.18770) and,
    with target 0, the uniform prior of CIB (2603.08462), whose Laplace prior is "deviation"; "peak": the length signal
    of format-length rewards (2505.19439).
    """

    curve: Curve = "step"
    weight: float = 0.5
    target: float | str | tuple[float, ...] = 4096.0
    width: float | None = None
    bands: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width is not None and not 0 < self.width < math.inf:
            raise ValueError(f"width must be positive and finite, got {self.width}")
        if not isinstance(self.target, str):
            for target in self._targets():
                if not 0 <= target < math.inf or (target == 0 and self.width is None):
                    raise ValueError(f"a target is a positive length, or 0 with a width given, got {target}")
        check_bands(self.bands, 1 if isinstance(self.target, str) else len(self._targets()))

    @property
    def scope(self) -> Scope:  # type: ignore[override]
        return "group" if self.bands else "row"

    @property
    def requires(self) -> frozenset[str]:
        return super().requires | (frozenset({self.target}) if isinstance(self.target, str) else frozenset())

    def _targets(self) -> tuple[float, ...]:
        assert not isinstance(self.target, str)
        return self.target if isinstance(self.target, tuple) else (self.target,)

    def _standard(
        self,
        lengths: Float[np.ndarray[Any, Any], "n"],
        correct: Bool[np.ndarray[Any, Any], "n"],
        scores: Scores,
        context: Context,
    ) -> Standard:
        reasons: dict[int, str] = {}
        if isinstance(self.target, str):
            column = context.require_rollouts().column(self.target)
            target = np.array([_length(entry) for entry in column], np.float64)
            reasons = {int(i): f"column {self.target!r} is not a positive length" for i in np.flatnonzero(target <= 0)}
        elif self.bands:
            target = np.asarray(self._targets())[band_of(correct, scores, context, self.bands)]
        else:
            target = np.full(len(lengths), self._targets()[0])
        width = target if self.width is None else np.full(len(lengths), self.width)
        return Standard(target, width, np.ones(len(lengths), bool), reasons)


@dataclass(frozen=True, kw_only=True)
class monitored_length(LengthReward):
    """Pay for keeping to a target length that is set for each difficulty by what the policy needs now.

    A group's difficulty is the band of its accuracy. Over the last monitored batch, cov_b(l) is the share of band
    b's rollouts of at most l; the target of the band is the shortest l of the grid with cov_b(l) ≥ coverage_b that
    is below the longest completion at hand, and that longest one if there is none. As the policy becomes brief,
    targets fall.

    The other options are those of `LengthReward`; W = T.

    Args:
        target: of every band before anything was monitored, in `unit`.
        bands: rising accuracies that part the bands; a group at a bound belongs to the easier one.
        coverage: of each band, from the hardest to the easiest, the share that must fit. The defaults leave a band
            at least one correct answer of 8: 1/⌊8a⌋ for the accuracies a its bounds begin at, 1 for the hardest.
        grid: the first and last candidate and the step between them.
        monitor: which batches set targets: those of "training", every `every` steps, or those observed outside it,
            a "held-out" set that is scored and observed by hand.
        every: training steps between two estimates.

    Raises:
        ValueError: as `LengthReward`; if bands, coverage or grid do not fit together.

    >>> from guerdon import Scores, Context, Rollouts
    >>> batch = Context(Rollouts(["p"] * 4, ["w " * n for n in (2, 4, 5, 9)]), training=True)
    >>> shaper = monitored_length(target=8, grid=(2, 10, 2), unit="words")
    >>> shaper.observe(Scores.of([1.0, 1.0, 1.0, 0.0]), batch)
    >>> shaper(Scores.of([1.0, 1.0, 1.0, 0.0]), batch).read(0.0)  # an easy group: a fifth must fit, the target is 2
    array([1.5, 1. , 1. , 0. ])

    Source: LASER-D and, with wrong="explore" for rollouts that do not repeat themselves, LASER-DE (arXiv 2505.15612).
    Its release parts the monitor's bands at accuracies *above* the bounds and the rewards' at or above them; here
    both are at or above.
    """

    curve: Curve = "step"
    weight: float = 0.5
    target: float = 4096.0
    bands: tuple[float, ...] = (1 / 3, 2 / 3)
    coverage: tuple[float, ...] = (1.0, 0.5, 0.2)
    grid: tuple[int, int, int] = (1024, 16384, 1024)
    monitor: Literal["training", "held-out"] = "training"
    every: int = 1
    state: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    scope = "batch"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.target < math.inf:
            raise ValueError(f"target must be positive and finite, got {self.target}")
        check_bands(self.bands, len(self.coverage))
        if not all(0 < share <= 1 for share in self.coverage):
            raise ValueError(f"coverage is a share above 0 for each band, got {self.coverage}")
        first, last, step = self.grid
        if not (0 < first <= last and step > 0):
            raise ValueError(f"grid is a first and last length and a step, all positive, got {self.grid}")
        if self.monitor not in ("training", "held-out"):
            raise ValueError(f"monitor is 'training' or 'held-out', got {self.monitor!r}")
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")

    def targets(self, longest: float) -> list[float]:
        """The target of each band, from the hardest to the easiest, for a batch whose longest completion is given."""
        if not self.state:
            return [self.target] * len(self.coverage)
        candidates = self._candidates()
        covered = np.asarray(self.state["covered"], np.float64)
        needed = np.asarray(self.coverage)[:, None] * np.asarray(self.state["count"], np.float64)[:, None]
        # 0.07 · 100 is a little more than 7 in floating point.
        enough = (covered >= needed * (1 - 1e-12)) & (covered > 0) & (candidates < longest)
        chosen = np.where(enough.any(1), candidates[enough.argmax(1)], longest)
        return [float(target) for target in chosen]

    def _candidates(self) -> Int[np.ndarray[Any, Any], "l"]:
        first, last, step = self.grid
        return np.arange(first, last + 1, step)

    def _standard(
        self,
        lengths: Float[np.ndarray[Any, Any], "n"],
        correct: Bool[np.ndarray[Any, Any], "n"],
        scores: Scores,
        context: Context,
    ) -> Standard:
        targets = np.asarray(self.targets(float(lengths.max(initial=0.0))), np.float64)
        target = targets[band_of(correct, scores, context, self.bands)]
        return Standard(target, target, np.ones(len(lengths), bool), {})

    def observe(self, scores: Scores, context: Context) -> None:
        """Take a monitored batch's lengths, by band, as what targets are set by from now on."""
        held_out = not context.training
        if held_out != (self.monitor == "held-out") or (context.training and context.step % self.every):
            return
        lengths = self._lengths(context.require_rollouts())
        band = band_of(self._correct(scores), scores, context, self.bands)
        there = to_numpy(scores.valid)
        inside = there & (band == np.arange(len(self.coverage))[:, None])
        fits = lengths <= self._candidates()[:, None]
        self.state["count"] = inside.sum(1).tolist()
        self.state["covered"] = (inside[:, None] & fits).sum(2).tolist()

    def state_dict(self) -> dict[str, Any]:
        return {name: [*value] for name, value in self.state.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state and np.shape(state["covered"]) != (len(self.coverage), len(self._candidates())):
            raise ValueError(f"{self.name}: the state is not of {len(self.coverage)} bands on the grid {self.grid}")
        self.state.clear()
        self.state.update({name: [*value] for name, value in state.items()})


def band_of(
    correct: Bool[np.ndarray[Any, Any], "n"], scores: Scores, context: Context, bands: tuple[float, ...]
) -> Int[np.ndarray[Any, Any], "n"]:
    """The band of each row's group by its accuracy over the rollouts with a score, 0 the hardest."""
    index, groups = pooled(scores, context, "group")
    scored = np.bincount(index, to_numpy(scores.valid), minlength=groups)
    right = np.bincount(index, correct, minlength=groups)
    accuracy = right / np.maximum(scored, 1.0)
    return np.asarray(np.searchsorted(np.asarray(bands), accuracy, side="right")[index])


def check_bands(bands: tuple[float, ...], targets: int) -> None:
    """Refuse bounds that do not rise, or do not fit the number of targets.

    Raises:
        ValueError: saying which.
    """
    if any(not a < b for a, b in pairwise(bands)) or any(math.isnan(b) for b in bands):
        raise ValueError(f"the bounds between bands must rise, got {bands}")
    if len(bands) + 1 != targets:
        raise ValueError(f"{len(bands)} bounds part {len(bands) + 1} bands, got {targets} targets")


def _length(entry: Any) -> float:
    is_number = isinstance(entry, (int, float, np.number)) and not isinstance(entry, bool)
    return float(entry) if is_number and math.isfinite(entry) and entry > 0 else 0.0
