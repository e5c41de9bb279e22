"""Filters of prompts by what the scores of their group say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.errors import MissingInput
from guerdon.core.scores import Scores
from guerdon.data.filter import Filter
from guerdon.shaping.pools import Moments, moments
from guerdon.shaping.steps import needed

Statistic = Literal["mean", "std", "min", "max"]

NO_SIGNAL = 1e-6
SLACK = 1e-9  # of a product of floats, such as 0.9 · mean


@dataclass(frozen=True, kw_only=True)
class _Measured(Filter):
    """A filter of what one measure says of a group.

    Args:
        of: the part of the reward, by its name, or the detail that is read; None: the scores themselves. Learning may
            need a shaped reward where the choice of prompts needs plain correctness.
    """

    of: str | None = None

    def _moments(self, scores: Scores, context: Context) -> Moments:
        values, valid = measured(scores, self.of)
        _, index = np.unique(context.require_rollouts().groups, return_inverse=True)
        if len(index) != len(values):
            raise ValueError(f"{len(values)} scores for {len(index)} rollouts of the context")
        return moments(values, valid, index, int(index.max(initial=-1)) + 1)


@dataclass(frozen=True, kw_only=True)
class varied(_Measured):
    """Keep a prompt whose rollouts differ: all right or all wrong, it has no gradient.

    Rewards are equal if they differ by no more than rounding, 10⁻⁶ · max|r|.

    Args:
        of: see `within`.

    >>> from guerdon.core import Context, Rollouts, Scores
    >>> batch = Context(Rollouts(["p", "p", "q", "q"], [""] * 4))
    >>> varied().keep(Scores.of([1.0, 0.0, 1.0, 1.0]), batch)
    array([ True, False])

    Source: dynamic sampling of DAPO (arXiv 2503.14476) and DLER (2510.15110).
    """

    def keep(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "g"]:
        return _differ(self._moments(scores, context))


@dataclass(frozen=True, kw_only=True)
class within(_Measured):
    """Keep a prompt if a statistic of its group lies in [low, high]: neither hopeless nor done with.

    Args:
        of: the part of the reward, by its name, or the detail that is read; None: the scores themselves.
        statistic: "mean", "std" (of the population), "min" or "max" of what was scored in the group.
        low: in the unit of the measure; as is `high`.

    Raises:
        ValueError: for another statistic, or if low > high.

    >>> from guerdon.core import Context, Rollouts, Scores
    >>> batch = Context(Rollouts(["p", "p", "q", "q"], [""] * 4))
    >>> within(low=0.2, high=0.8).keep(Scores.of([1.0, 0.0, 1.0, 1.0]), batch)
    array([ True, False])

    Source: the accuracy band [0.2, 0.8] of PRIME (arXiv 2502.01456); with `of="worst_rank", statistic="min"`, the rank
    filter of DRO (2506.13351): some reasoning brings the worst tokens under rank k.
    """

    statistic: Statistic = "mean"
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        check_statistic(self.statistic)
        if not self.low <= self.high:
            raise ValueError(f"low must not be above high, got {self.low} and {self.high}")

    def keep(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "g"]:
        known = self._moments(scores, context)
        value = taken(known, self.statistic)
        return (known.size > 0) & (self.low <= value) & (value <= self.high)


@dataclass(frozen=True, kw_only=True)
class upper(_Measured):
    """Drop the share of the prompts with the lowest statistic.

    Of B groups that have a score, the ⌊drop · B⌋ lowest go; of equal ones, those with the higher numbers.

    Args:
        of: see `within`.
        statistic: "mean", "std", "min" or "max".
        drop: in [0, 1]. The source does not state it.

    Raises:
        ValueError: for another statistic, or a share outside [0, 1].

    >>> from guerdon.core import Context, Rollouts, Scores
    >>> batch = Context(Rollouts(["p", "p", "q", "q"], [""] * 4))
    >>> upper(drop=0.5, statistic="std").keep(Scores.of([0.6, 0.4, 0.9, 0.1]), batch)
    array([False,  True])

    Source: with `of="spread", statistic="max"`, the filter of DRO (arXiv 2506.13351) by the largest deviation of a
    reference token between reasonings.
    """

    statistic: Statistic = "max"
    drop: float = 0.25

    def __post_init__(self) -> None:
        check_statistic(self.statistic)
        if not 0 <= self.drop <= 1:
            raise ValueError(f"drop lies between 0 and 1, got {self.drop}")

    def keep(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "g"]:
        known = self._moments(scores, context)
        scored = known.size > 0
        count = int(scored.sum())
        order = np.lexsort((np.arange(len(scored)), -taken(known, self.statistic), ~scored))
        kept = np.zeros(len(scored), bool)
        kept[order[: count - math.floor(self.drop * count + SLACK)]] = True
        return kept


@dataclass(frozen=True, kw_only=True)
class adaptive(_Measured):
    """Keep a prompt whose statistic is at least a share of its running mean over training: σ ≥ β · EMA.

    The bar follows the policy: as rewards draw together, so do those that are wide enough. The running mean begins
    with the first step it collects, and is extended by the mean over each step's groups; until it is active, all is
    kept.

    Args:
        of: see `within`.
        statistic: "std", "mean", "min" or "max".
        share: β ≥ 0; 0.5, 0.9 and 1 in the source, by model. 0 keeps every prompt that was scored.
        decay: of the running mean, in [0, 1).
        skip: so many training steps are not collected.
        wait: so many further steps are collected before any prompt is dropped.

    Raises:
        ValueError: if an option is out of range.

    >>> from guerdon.core import Context, Rollouts, Scores
    >>> batch = Context(Rollouts(["p", "p", "q", "q"], [""] * 4))
    >>> wide = adaptive(skip=0, wait=1)
    >>> wide.observe(Scores.of([1.0, 0.0, 1.0, 0.0]), batch)
    >>> wide.keep(Scores.of([1.0, 0.2, 0.9, 0.8]), batch)
    array([ True, False])

    Source: the standard-deviation filter of RLPR (OpenBMB/RLPR; arXiv 2506.18254), whose first value is not stated.
    """

    statistic: Statistic = "std"
    share: float = 0.5
    decay: float = 0.99
    skip: int = 5
    wait: int = 5
    state: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_statistic(self.statistic)
        if not (0 <= self.share < math.inf and 0 <= self.decay < 1 and self.skip >= 0 and self.wait >= 0):
            given = f"{self.share}, {self.skip}, {self.wait} and {self.decay}"
            raise ValueError(f"share, skip and wait must not be negative and decay lie in [0, 1), got {given}")

    def keep(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "g"]:
        known = self._moments(scores, context)
        active = "mean" in self.state and self.state["seen"] >= self.skip + self.wait
        bar = self.share * self.state["mean"] * (1 - SLACK) if active and self.share else -math.inf
        return (known.size > 0) & (taken(known, self.statistic) >= bar)

    def observe(self, scores: Scores, context: Context) -> None:
        known = self._moments(scores, context)
        scored = known.size > 0
        self.state["seen"] = self.state.get("seen", 0) + 1
        if self.state["seen"] > self.skip and scored.any():
            now = float(taken(known, self.statistic)[scored].mean())
            self.state["mean"] = self.decay * self.state.get("mean", now) + (1 - self.decay) * now

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if not set(state) <= {"seen", "mean"} or ("mean" in state and "seen" not in state):
            raise ValueError(f"{self.name} keeps how many steps it has seen and their mean, got {sorted(state)}")
        self.state.clear()
        self.state.update({name: float(value) for name, value in state.items()})


@dataclass(frozen=True, kw_only=True)
class mixed(_Measured):
    """Keep the prompts whose rollouts differ, and as many that are always solved as brevity has been learned.

        κ ← κ + rate · (R − R before)        solved prompts kept: ⌊κ · varied / (1 − κ)⌋

    R is the mean share of a solution's steps up to the first that states the answer. What is cut from solved prompts
    is length only: with too many of them in the batch it falls faster than accuracy can follow. The first solved
    groups by number are taken, which are a random draw where prompts are drawn at random.

    Args:
        of: the part that says whether a rollout is right; see `within`.
        judged: the part with one score per step, whether it states the answer.
        rate: how far κ follows R.
        above: a score above it is right, and states the answer.
        answer: the last step is the answer itself; see `shaping.needed`.

    Raises:
        ValueError: if the rate is negative or no number; on observing, if `judged` has no scores of steps.
        MissingInput: if the scores have no such part.

    >>> from guerdon.core import Context, Rollouts, Scores
    >>> batch = Context(Rollouts(["p", "p", "q", "q"], [""] * 4))
    >>> scores = Scores([1.0, 0.0, 1.0, 1.0], parts={"answered": Scores(np.array([[0, 1.0], [0, 0], [0, 1], [0, 1]]))})
    >>> curriculum = mixed(judged="answered", rate=1.0)
    >>> curriculum.observe(scores, batch)
    >>> curriculum.keep(scores, batch)  # κ = 0.5: one solved prompt for each other
    array([ True,  True])

    Source: DECS (pixas/DECS), R 0.5 and κ 0 to begin with; κ itself is `shaping.needed`'s.
    """

    judged: str
    rate: float = 0.2
    above: float = 0.5
    answer: bool = False
    curriculum: needed = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "curriculum", needed(rate=self.rate, above=self.above, answer=self.answer))

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.judged,)

    def keep(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "g"]:
        known = self._moments(scores, context)
        kept = _differ(known)
        solved = np.flatnonzero(~kept & (known.size > 0) & (known.low > self.above))
        kept[solved[: self.curriculum.easy_prompts(int(kept.sum()), len(solved))]] = True
        return kept

    def observe(self, scores: Scores, context: Context) -> None:
        if self.judged not in scores.parts:
            raise MissingInput(f"part {self.judged!r} is missing; the scores have: {', '.join(scores.parts) or 'none'}")
        judged = scores.parts[self.judged]
        if judged.level != "step":
            raise ValueError(f"judged: part {self.judged!r} has one score per rollout; its steps are needed")
        self.curriculum.observe(judged, context)

    def state_dict(self) -> dict[str, Any]:
        return self.curriculum.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.curriculum.load_state_dict(state)


def measured(
    scores: Scores, of: str | None = None
) -> tuple[Float[np.ndarray[Any, Any], "n *s"], Bool[np.ndarray[Any, Any], "n *s"]]:
    """The numbers of the scores, of a part or of a detail, and which of them there are.

    Args:
        scores: of a reward.
        of: a part's name, a detail's, or 'part.detail' where several parts have it.

    Raises:
        MissingInput: if there is no such part or detail, or several; names what there is.
    """
    if of is None or of in scores.parts:
        chosen = scores if of is None else scores.parts[of]
        return to_numpy(chosen.read(0.0)).astype(np.float64), to_numpy(chosen.valid)
    holders = {key: (scores, key) for key in scores.details}
    for name, part in scores.parts.items():
        holders |= {f"{name}.{key}": (part, key) for key in part.details}
    found = [of] if of in holders else [place for place in holders if place.rpartition(".")[2] == of]
    if len(found) != 1:
        has = ", ".join([*scores.parts, *holders]) or "none"
        raise MissingInput(
            f"{of!r} is {'in several parts, say which' if found else 'neither a part nor a detail'}; there are: {has}"
        )
    holder, key = holders[found[0]]
    column = np.array([math.nan if entry is None else float(entry) for entry in holder.details[key]], np.float64)
    asked = to_numpy(holder.mask)
    valid = np.isfinite(column) & (asked if asked.ndim == 1 else asked.any(1))
    return np.where(valid, column, 0.0), valid


def taken(known: Moments, statistic: Statistic) -> Float[np.ndarray[Any, Any], "g"]:
    """A statistic of each group; 0 of an empty one, and a standard deviation of exactly 0 where it is only rounding."""
    if statistic == "std":
        return np.where(_differ(known), known.std(), 0.0)
    return {"mean": known.mean, "min": known.low, "max": known.high}[statistic]


def check_statistic(statistic: str) -> None:
    """Refuse a statistic that there is not."""
    if statistic not in get_args(Statistic):
        raise ValueError(f"statistic is 'mean', 'std', 'min' or 'max', got {statistic!r}")


def _differ(known: Moments) -> Bool[np.ndarray[Any, Any], "g"]:
    peak = np.maximum(np.abs(known.low), np.abs(known.high))
    return np.asarray(known.high - known.low > NO_SIGNAL * peak)
