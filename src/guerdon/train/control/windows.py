"""Stretches of episodes, as a planner learns from them: what is still to be earned and seen, and what is done first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from guerdon.core.arrays import to_numpy
from guerdon.core.scores import Scores
from guerdon.credit import returns

TRAINING = 0  # stream of randomness


@dataclass(frozen=True)
class Windows:
    """Every step of every episode that has a score begins one.

    Args:
        steps: returns-to-go and observations, episode behind episode, each with the step at which it ended.
        actions: of the steps that begin a window.
        begins: where in `steps` each window begins.
        ends: where in `steps` its episode ends.
        totals: the return of each episode.
    """

    steps: Float[Tensor, "m 1+s"]
    actions: Float[Tensor, "w a"]
    begins: Int[np.ndarray[Any, Any], "w"]
    ends: Int[np.ndarray[Any, Any], "w"]
    totals: Float[np.ndarray[Any, Any], "e"]

    @classmethod
    def of(cls, observations: Sequence[Any], actions: Sequence[Any], to_go: Sequence[list[float] | None]) -> Windows:
        """The windows of episodes.

        Args:
            observations: one more than actions.
            actions: vectors.
            to_go: what is still to be earned at each action; None where it is not known, and nothing is learned.

        >>> Windows.of([[[5.0], [6.0], [7.0]]], [[[0.0], [1.0]]], [[2.0, 1.0]]).read(np.array([1]), 3)[0]
        tensor([[[1., 6.],
                 [0., 7.],
                 [0., 7.]]])
        """
        steps, acted, begins, ends, totals = [], [], [], [], []
        at = 0
        for seen, done, left in zip(observations, actions, to_go, strict=True):
            if left is None:
                continue
            n = len(done)
            steps.append(np.column_stack([[*left, 0.0], np.asarray(seen)]))
            acted.append(np.asarray(done))
            begins.append(at + np.arange(n))
            ends.append(np.full(n, at + n))
            totals.append(left[0])
            at += n + 1
        return cls(
            torch.as_tensor(np.concatenate(steps), dtype=torch.float32),
            torch.as_tensor(np.concatenate(acted), dtype=torch.float32),
            np.concatenate(begins), np.concatenate(ends), np.array(totals),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.begins)

    def drawn(self, n: int, *, seed: int, step: int) -> Int[np.ndarray[Any, Any], "n"]:
        """The windows of a training step, drawn with replacement: a function of the seed and the step."""
        return np.random.default_rng([seed, TRAINING, step]).integers(len(self), size=n)

    def read(
        self, rows: Int[np.ndarray[Any, Any], "n"], length: int
    ) -> tuple[Float[Tensor, "n t 1+s"], Float[Tensor, "n a"]]:
        """Windows and what is done first in each; behind its end an episode stays where it ended, and earns nothing."""
        places = np.minimum(self.begins[rows, None] + np.arange(length), self.ends[rows, None])
        return self.steps[torch.as_tensor(places)], self.actions[torch.as_tensor(rows)]


def earned(scores: Scores, steps: Sequence[int]) -> tuple[list[list[float] | None], dict[int, str]]:
    """What each action of each episode earned, and why that is not known of some.

    Args:
        scores: of episodes, which are earned at their end; or of their steps: one per action, or one per observation,
            the first of which nobody earned.
        steps: how many actions each has.

    >>> earned(Scores([[1.0, 2.0]]), [2]), earned(Scores([3.0]), [2])
    (([[1.0, 2.0]], {}), ([[0.0, 3.0]], {}))
    """
    values, mask, valid = (to_numpy(x) for x in (scores.read(0.0), scores.mask, scores.valid))
    found: list[list[float] | None] = []
    reasons = dict(scores.reasons)
    for row, n in enumerate(steps):
        if not (mask[row] == valid[row]).all():
            found.append(None)
        elif scores.level == "rollout":
            found.append([0.0] * (n - 1) + [float(values[row])])
        else:
            here = values[row][mask[row]].tolist()
            there = len(here) - n in (0, 1)
            found.append(here[len(here) - n :] if there else None)
            if not there:
                reasons[row] = f"{len(here)} scores for {n} actions: one each is wanted, or one per observation"
    return found, reasons


def to_go(earned: Sequence[list[float] | None]) -> list[list[float] | None]:
    """What is still to be earned at each step: Σ over it and those behind it.

    >>> to_go([[1.0, 0.0, 2.0], None])
    [[3.0, 2.0, 2.0], None]
    """
    known = [row or [] for row in earned]
    longest = max(map(len, known), default=0)
    rewards = torch.zeros(len(known), longest, dtype=torch.float64)
    mask = torch.zeros(len(known), longest, dtype=torch.bool)
    for place, row in enumerate(known):
        rewards[place, : len(row)], mask[place, : len(row)] = torch.tensor(row, dtype=torch.float64), True
    sums = returns(rewards, mask)
    return [None if row is None else sums[place, : len(row)].tolist() for place, row in enumerate(earned)]
