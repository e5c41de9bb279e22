"""Scores of steps: differences, the last step, and the steps that were needed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guerdon.core.arrays import is_tensor, like, to_numpy, where
from guerdon.core.context import Context
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores
from guerdon.shaping.length import Unit, check_unit
from guerdon.shaping.shaper import Shaper


@dataclass(frozen=True)
class delta(Shaper):
    """Pay each step for what it is worth more than the next: rₖ = pₖ − pₖ₊₁, and the last one as it is.

    The rewards from a step on then sum to pₖ itself, whatever follows: repeating a good step adds nothing, where
    raw step scores pay for each copy. With `pin_last()` before it the last step is left to the outcome.

    A step whose next one abstains abstains.

    >>> from guerdon import Scores, Context
    >>> delta()(Scores([[0.9, 0.8, 0.95, 0.0]]), Context()).read(0.0).round(2)
    array([[ 0.1 , -0.15,  0.95,  0.  ]])

    Source: Delta, "On Designing Effective RL Reward at Training Time" (arXiv 2410.15115).
    """

    level = "step"

    def range(self, inner: Range) -> Range:
        width = inner[1] - inner[0]
        return min(inner[0], -width), max(inner[1], width)

    def __call__(self, scores: Scores, context: Context) -> Scores:
        following = next_steps(to_numpy(scores.mask))
        at = like(np.maximum(following, 0), scores.mask)
        values, last = scores.read(0.0), following < 0
        after = where(last, 0.0, _take(values, at))
        known = like(last, scores.valid) | _take(scores.valid, at)
        return scores.with_values(values - after, valid=scores.valid & known)


@dataclass(frozen=True)
class gain(Shaper):
    """Pay each step for what it is worth more than the one before: Fₜ = γ Φₜ − Φₜ₋₁, and 0 for the first.

    Scores are then a potential Φ: any estimate of how well things stand, and no longer a wage for standing well. The
    discounted sum telescopes to γᵀ Φ_T − Φ_0, whatever lies between, so that going in circles earns nothing; added to
    the rewards of events, it leaves the best policy as it is where Φ is 0 at the end of an episode, as after
    `pin_last()`. `delta` looks ahead and pays what is left; `credit.progress` is this on tensors of a trainer.

    A step whose former one abstains abstains.

    Args:
        gamma: γ in [0, 1], the discount that the policy is trained with.
        losses: a factor ≥ 0 on negative F. Below 1 a circle earns what is not taken back: good only as a start.

    Raises:
        ValueError: if γ is outside of [0, 1], or the factor is negative or not finite.

    >>> from guerdon import Scores, Context
    >>> gain(gamma=1.0)(Scores([[0.2, 0.5, 0.4]]), Context()).read(0.0).round(2)
    array([[ 0. ,  0.3, -0.1]])

    Source: Ng et al. (1999); with `losses`, Lucy-SKG (Enkhai/lucy-utils; arXiv 2305.15801), γ = 0.99.
    """

    gamma: float = 0.99
    losses: float = 1.0

    level = "step"

    def __post_init__(self) -> None:
        if not (0 <= self.gamma <= 1 and 0 <= self.losses < math.inf):
            raise ValueError(f"gamma lies in [0, 1] and losses is not negative, got {self.gamma} and {self.losses}")

    def range(self, inner: Range) -> Range:
        least, most = (self.gamma * inner[i] - inner[1 - i] for i in (0, 1))
        return min(least * (self.losses if least < 0 else 1.0), 0.0), max(most, 0.0)

    def __call__(self, scores: Scores, context: Context) -> Scores:
        mask = to_numpy(scores.mask)
        former = mask.shape[1] - 1 - next_steps(mask[:, ::-1])[:, ::-1]
        first = former >= mask.shape[1]
        at = like(np.where(first, 0, former), scores.mask)
        values = scores.read(0.0)
        change = where(first, 0.0, self.gamma * values - _take(values, at))
        known = like(first, scores.valid) | _take(scores.valid, at)
        return scores.with_values(where(change < 0, self.losses * change, change), valid=scores.valid & known)


@dataclass(frozen=True)
class pin_last(Shaper):
    """Give the last step of every rollout a fixed score, whatever it had.

    The outcome pays the last step already; a judge's opinion of it beside the outcome would count it twice.
    A last step that abstains still does.

    Args:
        at: the score.

    Raises:
        ValueError: if it is not finite.

    >>> from guerdon import Scores, Context
    >>> pin_last()(Scores([[0.9, 0.8, 0.3]]), Context()).read(0.0)
    array([[0.9, 0.8, 0. ]])

    Source: the last step's reward of Delta (arXiv 2410.15115) and the final turn of PPR (arXiv 2509.25598).
    """

    at: float = 0.0

    level = "step"

    def __post_init__(self) -> None:
        if not math.isfinite(self.at):
            raise ValueError(f"at must be finite, got {self.at}")

    def range(self, inner: Range) -> Range:
        return min(inner[0], self.at), max(inner[1], self.at)

    def __call__(self, scores: Scores, context: Context) -> Scores:
        mask = to_numpy(scores.mask)
        last = mask & (next_steps(mask) < 0)
        return scores.with_values(where(last, self.at, scores.read(0.0)))


@dataclass(frozen=True)
class needed(Shaper):
    """Pay the steps up to the first that suffices in full, and those after it less, the longer the rollout.

    The score of a step says whether it states the right answer; from the step after the first that does, all are
    redundant:

        r' = 1 + b up to the first such step        r' = 1 + b (1 − L/L_max) after it

    For correct rollouts, `gate(correct, then=answered >> needed())`. A rollout in which no step suffices has no
    redundant one. A step abstains if it cannot be known whether an earlier one sufficed. The answer that follows a
    thought is needed whatever was known before it: say `answer` where it is a step.

    Its state is a curriculum. With R the mean share of steps that were needed, each training step moves κ by
    rate · (R − R before); `easy_prompts` says how many prompts that are solved every time belong in the batch, so
    that brevity is trained no faster than it is learned.

    Args:
        bonus: b ≥ 0.
        limit: L_max, the length at which nothing of the bonus is left; longer ones count as that.
        rate: of κ.
        above: a step with a score above it suffices.
        answer: the last step of each rollout is its answer, as `models.answered` gives it: paid in full, and no part
            of the share that was needed. Without, every step after the first that suffices is redundant.
        unit: what lengths count.

    Raises:
        ValueError: if the bonus or rate is negative, the limit not positive, or for another unit.

    >>> from guerdon import Scores, Context, Rollouts
    >>> batch = Context(Rollouts(["p"], ["w " * 60]))
    >>> needed(limit=100, unit="words")(Scores([[0.0, 1.0, 0.0, 1.0]]), batch).read(0.0)
    array([[1.1 , 1.1 , 1.04, 1.04]])

    Source: DECS (pixas/DECS), whose redundant stretch ends with the last redundant token of the thought: that is
    `answer`.
    """

    bonus: float = 0.1
    limit: int = 16384
    rate: float = 0.2
    above: float = 0.5
    answer: bool = False
    unit: Unit = "tokens"
    state: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    level = "step"

    def __post_init__(self) -> None:
        if not (0 <= self.bonus < math.inf and 0 <= self.rate < math.inf and self.limit > 0):
            given = f"{self.bonus}, {self.rate} and {self.limit}"
            raise ValueError(f"bonus and rate must not be negative and limit positive, got {given}")
        check_unit(self.unit)

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"tokens"}) if self.unit == "tokens" else frozenset()

    def range(self, inner: Range) -> Range:
        return 1.0, 1.0 + self.bonus

    def __call__(self, scores: Scores, context: Context) -> Scores:
        lengths = np.minimum(context.require_rollouts().lengths(self.unit) / self.limit, 1.0)
        suffices = self._suffices(scores)
        thought = self._thought(scores)
        redundant = thought & (suffices.cumsum(1) - suffices > 0)
        missing = to_numpy(scores.abstained)
        known = redundant | ~thought | (missing.cumsum(1) - missing == 0)
        paid = 1.0 + self.bonus * np.where(redundant, 1.0 - lengths[:, None], 1.0)
        return scores.with_values(like(paid, scores.read(0.0)), valid=scores.valid & like(known, scores.valid))

    def _suffices(self, scores: Scores) -> np.ndarray[Any, Any]:
        return np.asarray(self._thought(scores) & to_numpy(scores.valid) & (to_numpy(scores.read(0.0)) > self.above))

    def _thought(self, scores: Scores) -> np.ndarray[Any, Any]:
        """True at the steps that can be redundant: all, or all but the answer."""
        mask = to_numpy(scores.mask)
        return np.asarray(mask & (next_steps(mask) >= 0) if self.answer else mask)

    def observe(self, scores: Scores, context: Context) -> None:
        """Move κ by what the share of needed steps has grown, over rollouts in which some step suffices."""
        suffices = self._suffices(scores)
        steps = self._thought(scores).sum(1)
        rows = suffices.any(1)
        if rows.any():
            # Steps may stand between padding: how many there are up to the first that suffices.
            place = (to_numpy(scores.mask).cumsum(1) * (suffices & (suffices.cumsum(1) == 1))).max(1)
            share = float((place[rows] / steps[rows]).mean())
            kappa = self.state.get("kappa", 0.0) + self.rate * (share - self.state.get("share", 0.5))
            self.state.update(kappa=kappa, share=share)

    def easy_prompts(self, kept: int, available: int) -> int:
        """How many prompts that are always solved to add to `kept` others: ⌊κ · kept/(1 − κ)⌋, as far as there are."""
        kappa = self.state.get("kappa", 0.0)
        if kappa <= 0:
            return 0
        return available if kappa >= 1 else min(available, math.floor(kappa * kept / (1 - kappa)))

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state and set(state) != {"kappa", "share"}:
            raise ValueError(f"{self.name} keeps kappa and share, got {sorted(state)}")
        self.state.clear()
        self.state.update({name: float(value) for name, value in state.items()})


def next_steps(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The column of the step that follows each place; −1 where there is none."""
    n, width = mask.shape
    columns = np.where(mask, np.arange(width), width)
    ahead = np.minimum.accumulate(columns[:, ::-1], axis=1)[:, ::-1]
    following = np.concatenate([ahead[:, 1:], np.full((n, 1), width)], axis=1)[:, :width]
    return np.where(following < width, following, -1)


def _take(values: Any, at: Any) -> Any:
    return values.gather(1, at) if is_tensor(values) else np.take_along_axis(values, at, 1)
