"""Filters of rollouts: which of a group are learned from, where the others would teach something wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.errors import MissingInput
from guerdon.core.scores import Scores
from guerdon.data.filter import Filter, groups_of
from guerdon.data.filters import measured
from guerdon.data.ranks import Weights, draw_rows, rank_weights
from guerdon.data.selection import balanced, consistency


@dataclass(frozen=True, kw_only=True)
class _Rows(Filter):
    """A filter of rollouts; a group is kept if any of its rollouts is.

    Args:
        count: how many of each group are kept, or all there are.
        of: the part of the reward, by its name, that is read as the outcome; None: the scores themselves.
        seed: of what is drawn, with the training step.
    """

    count: int
    of: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.seed < 0:
            raise ValueError(f"count must be at least 1 and seed at least 0, got {self.count} and {self.seed}")

    def keep(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "g"]:
        return groups_of(self.rows(scores, context), context)

    def _rng(self, context: Context) -> np.random.Generator:
        return np.random.default_rng([self.seed, context.step])


@dataclass(frozen=True, kw_only=True)
class by_rank(_Rows):
    """Keep the rollouts that a draw by the rank of their reward gives: see `rank_weights` and `draw_rows`.

    Args:
        count: of each group, without replacement; one in the source.
        weights: "best-worst", "best-random", "best", "magnitude" or "none".
        of: the part that ranks them; None: the scores themselves.
        seed: of the draw, with the training step.

    >>> from guerdon.core import Context, Rollouts, Scores
    >>> batch = Context(Rollouts(["p"] * 3, [""] * 3))
    >>> by_rank(weights="best").rows(Scores.of([0.1, 0.9, 0.5]), batch)
    array([False,  True, False])

    Source: PF-PPO (arXiv 2409.06957).
    """

    count: int = 1
    weights: Weights = "best-worst"

    def rows(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "n"]:
        values, valid = measured(scores, self.of)
        groups = context.require_rollouts().groups
        chances = rank_weights(values, groups, weights=self.weights, mask=valid)
        kept = np.zeros(len(groups), bool)
        kept[draw_rows(chances, groups, count=self.count, rng=self._rng(context))] = True
        return kept


@dataclass(frozen=True, kw_only=True)
class consistent(_Rows):
    """Keep as many right rollouts as wrong ones, those whose steps are judged as their outcome is: see `consistency`.

    What is kept is learned from by outcome only, so the process reward is never what the policy climbs.

    Args:
        count: m, of each group.
        process: the part of the reward with one score per step.
        of: the part that says whether a rollout is right; None: the scores themselves.
        above: a score above it is right.
        reduce, penalty, longest: see `consistency`.
        wrong, balance: see `balanced`.
        seed: of what is drawn at random, with the training step.

    Raises:
        MissingInput: on filtering, if the scores have no such part.

    >>> from guerdon.core import Context, Rollouts, Scores
    >>> batch = Context(Rollouts(["p"] * 4, [""] * 4))
    >>> steps = Scores(np.array([[0.9, 0.9], [0.2, 0.1], [-0.5, -0.5], [0.4, 0.9]]))
    >>> consistent(count=2, process="steps").rows(Scores([1.0, 1.0, 0.0, 0.0], parts={"steps": steps}), batch)
    array([ True, False,  True, False])

    Source: PROF (arXiv 2509.03403), n = 8 and m = 4, say.
    """

    process: str
    above: float = 0.5
    reduce: Literal["mean", "min", "sum"] = "mean"
    penalty: float = 1.0
    longest: int = 30
    wrong: Literal["best", "random"] = "best"
    balance: Literal["even", "proportional", "none"] = "even"

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.process,)

    def rows(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "n"]:
        if self.process not in scores.parts:
            raise MissingInput(
                f"part {self.process!r} is missing; the scores have: {', '.join(scores.parts) or 'none'}"
            )
        judged = scores.parts[self.process]
        if judged.level != "step":
            raise ValueError(f"process: part {self.process!r} has one score per rollout; its steps are needed")
        outcome, valid = measured(scores, self.of)
        steps, exists = to_numpy(judged.read(0.0)), to_numpy(judged.valid)
        valid = valid & ~to_numpy(judged.abstained).any(1)
        right = outcome > self.above
        values = consistency(right, steps, exists, reduce=self.reduce, penalty=self.penalty, longest=self.longest)
        return balanced(
            right, values, context.require_rollouts().groups, keep=self.count, wrong=self.wrong,
            balance=self.balance, mask=valid, rng=self._rng(context),
        )  # fmt: skip
