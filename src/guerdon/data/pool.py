"""A pool of prompts, each of which leaves when it is solved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.core.context import Context
from guerdon.core.scores import Scores
from guerdon.data.allocation import Allocator
from guerdon.data.curriculum import EVERYTHING, Row
from guerdon.data.filter import Filter
from guerdon.data.filters import SLACK, measured


@dataclass(frozen=True, kw_only=True)
class Unsolved:
    """When a prompt is solved, and whose turn it is among those that are not.

    Args:
        of: the part of the reward, by its name, that says which rollouts are right; None: the whole reward.
        above: a rollout is right above it.
        share: a prompt is solved if at least this share of its scored rollouts is right; 0: if one is.
        order: the rule of `Allocator` by which prompts get their attempts.
        chances: that an attempt solves a prompt: "equal", or with "balance" also "observed", (s + 1) / (n + 2) where s
            of the n attempts at it so far did.
        attempts: a prompt leaves after so many, solved or not; None: only when it is solved. Without, prompts that
            cannot be solved are in the end all that is drawn, if they fill a batch.

    Raises:
        ValueError: if the share is outside [0, 1], there are to be no attempts, or chances are observed for an order
            that does not look at them.

    Source: ours; `Allocator` names that of the rule.

    >>> Unsolved(share=0.75).attempts is None
    True
    """

    of: str | None = None
    above: float = 0.5
    share: float = 0.0
    order: Literal["balance", "ranking", "random"] = "balance"
    chances: Literal["equal", "observed"] = "equal"
    attempts: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share lies between 0 and 1, got {self.share}")
        if self.attempts is not None and self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {self.attempts}")
        if self.chances == "observed" and self.order != "balance":
            raise ValueError(f"chances are weighed by the order 'balance', not by {self.order!r}")

    def solved(
        self, scores: Scores, context: Context
    ) -> tuple[Bool[np.ndarray[Any, Any], "g"], Bool[np.ndarray[Any, Any], "g"]]:
        """Which of the context's groups are solved, and of which anything was scored. Of the policy's own rollouts.

        Raises:
            ValueError: if the scores are of steps.
        """
        rollouts = context.require_rollouts()
        values, valid = measured(scores, self.of)
        if values.ndim > 1:
            raise ValueError("prompts are solved by scores of rollouts, these are of steps")
        if rollouts.tokens is not None and rollouts.tokens.origin is not None:
            valid = valid & ~(np.asarray(rollouts.tokens.origin) > 0).any(1)
        _, index = np.unique(rollouts.groups, return_inverse=True)
        scored = np.bincount(index, valid)
        right = np.bincount(index, valid & (values > self.above))
        return (right > 0) & (right >= self.share * scored - SLACK), scored > 0


@dataclass(eq=False)
class Pool:
    """Prompts that each need a success: what is solved leaves, and an `Allocator` sends attempts to the others.

    An attempt is a group of rollouts. What came of it is known when `observe` is told of the step, so no prompt is
    drawn twice for one before all are. When those that are left do not fill a batch, all come back, in a new order,
    with no load but that of this step's attempts. Of prompts with equal claims, the first in the order is next.

    Args:
        prompts: rows with 'prompt' and what the reward reads. Each is itself, also where two are equal.
        until: when they leave.
        filter: which groups count; by default all that were scored.
        seed: of the orders.

    Raises:
        ValueError: if there are no prompts.

    >>> from guerdon.core import Context, Rollouts, Scores
    >>> pool = Pool([{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}])
    >>> first = [row["prompt"] for row in pool.draw(2, Context())]
    >>> pool.observe(Scores.of([1.0, 0.0]), Context(Rollouts(first, ["", ""])))
    >>> [row["prompt"] for row in pool.draw(2, Context())][1] == first[1]
    True

    Source: Stochastic Balance, "Online Matching with Stochastic Rewards" (arXiv 2309.10289), where each attempt is
    known before the next.
    """

    prompts: Sequence[Row]
    until: Unsolved = field(default_factory=Unsolved)
    filter: Filter = EVERYTHING
    seed: int = 0
    round: int = field(default=0, init=False)  # how often all have come back
    tries: Int[np.ndarray[Any, Any], "u"] = field(init=False, repr=False)  # attempts in this round
    tried: Int[np.ndarray[Any, Any], "u"] = field(init=False, repr=False)  # attempts in all rounds that were scored
    solved: Int[np.ndarray[Any, Any], "u"] = field(init=False, repr=False)  # those that solved it
    drawn: list[int] = field(default_factory=list, init=False, repr=False)  # for this step

    def __post_init__(self) -> None:
        size = len(self.prompts)
        if not size:
            raise ValueError("prompts are empty: there is nothing to draw")
        self._allocator = Allocator(size, rule=self.until.order, seed=self.seed)
        self.tries, self.tried, self.solved = (np.zeros(size, np.int64) for _ in range(3))
        self._shuffle()

    @property
    def left(self) -> Bool[np.ndarray[Any, Any], "u"]:
        """Which prompts have not left."""
        there = ~self._allocator.done[self._places]
        return there if self.until.attempts is None else there & (self.tries < self.until.attempts)

    def draw(self, n: int, context: Context) -> list[Row]:
        return [self.prompts[self._next()] for _ in range(n)]

    def keep(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "g"]:
        return self.filter.keep(scores, context)

    def observe(self, scores: Scores, context: Context) -> None:
        solved, scored = self.until.solved(scores, context)
        if len(solved) != len(self.drawn):
            raise ValueError(f"{len(solved)} groups are of {len(self.drawn)} prompts that were drawn")
        np.add.at(self.tried, self.drawn, scored)
        np.add.at(self.solved, self.drawn, solved)
        for number in np.array(self.drawn, np.int64)[solved]:
            self._allocator.record(self._places[number], 0.0, success=True)
        self.drawn = []
        self.filter.observe(scores, context)

    def state_dict(self) -> dict[str, Any]:
        counts = {name: getattr(self, name).tolist() for name in ("tries", "tried", "solved")}
        state = {"round": self.round, "allocator": self._allocator.state_dict(), "filter": self.filter.state_dict()}
        return counts | state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._allocator.load_state_dict(state["allocator"])
        self.tries, self.tried, self.solved = (np.array(state[name], np.int64) for name in ("tries", "tried", "solved"))
        self.round, self.drawn = int(state["round"]), []
        self._shuffle()
        self.filter.load_state_dict(state["filter"])

    def _next(self) -> int:
        """The number of the prompt that gets the next attempt."""
        counts = np.bincount(self.drawn, minlength=len(self.prompts))
        free = counts == counts.min()
        if not (free & self.left).any():
            self._come_back()
        place = self._allocator.choose(np.where(free & self.left, self._chances(), 0.0)[self._order])
        assert place is not None
        number = int(self._order[place])
        self._charge(number)
        self.tries[number] += 1
        self.drawn.append(number)
        return number

    def _come_back(self) -> None:
        nothing = np.zeros(len(self.prompts))
        self._allocator.load_state_dict({"load": nothing, "done": nothing > 0, "asked": self._allocator.asked})
        self.round += 1
        self.tries[:] = 0
        self._shuffle()
        for number in self.drawn:
            self._charge(number)

    def _charge(self, number: int) -> None:
        self._allocator.record(self._places[number], self._chances()[number], success=False)

    def _chances(self) -> Float[np.ndarray[Any, Any], "u"]:
        if self.until.chances == "equal":
            return np.ones(len(self.prompts))
        return np.asarray((self.solved + 1) / (self.tried + 2), np.float64)

    def _shuffle(self) -> None:
        # 2: the streams 0 and 1 of the seed are the allocator's, which ranks by the first.
        self._order = np.random.default_rng([self.seed, 2, self.round]).permutation(len(self.prompts))
        self._places = np.argsort(self._order)
