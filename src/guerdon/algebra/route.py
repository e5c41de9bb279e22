"""Different rewards for different tasks of one batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.algebra.reward import Reward, Rows, merged, one_level
from guerdon.core.arrays import like, to_numpy, where
from guerdon.core.context import Context
from guerdon.core.protocols import Range
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores

if TYPE_CHECKING:
    from guerdon.algebra.leaf import Leaf


@dataclass(frozen=True, repr=False)
class Route(Reward):
    """Each row to the reward that its column names."""

    by: str
    branches: tuple[tuple[str, Reward], ...]
    otherwise: Reward | None = None

    def __post_init__(self) -> None:
        if not self.branches:
            raise ValueError("route needs at least one branch")
        one_level(self.children, "route to")
        self.names()

    def __repr__(self) -> str:
        branches = [f"{key}={reward}" for key, reward in self.branches]
        branches += [f"otherwise={self.otherwise}"] if self.otherwise is not None else []
        return f"route({self.by!r}, {', '.join(branches)})"

    @property
    def children(self) -> tuple[Reward, ...]:
        rest = () if self.otherwise is None else (self.otherwise,)
        return (*(reward for _, reward in self.branches), *rest)

    @property
    def range(self) -> Range:
        lows, highs = zip(*(child.range for child in self.children), strict=True)
        return min(lows), max(highs)

    @property
    def requires(self) -> frozenset[str]:
        return super().requires | {self.by}

    def ask(self, rollouts: Rollouts, rows: Rows, wanted: dict[Leaf, Rows]) -> None:
        """Ask each branch for its own rows; a leaf is not measured where its branch is not taken."""
        for child, taken in zip(self.children, self._taken(rollouts), strict=True):
            child.ask(rollouts, rows & taken, wanted)

    def _taken(self, rollouts: Rollouts) -> list[Rows]:
        keys = np.asarray([str(entry) for entry in rollouts.column(self.by)], dtype=object)
        taken = [keys == key for key, _ in self.branches]
        if self.otherwise is not None:
            taken.append(~np.any(taken, axis=0))
        return taken

    def combine(self, measured: Mapping[Leaf, Scores], context: Context) -> Scores:
        rollouts = context.require_rollouts()
        taken = self._taken(rollouts)
        scores = [child.combine(measured, context) for child in self.children]
        if scores[0].level == "step":
            raise ValueError(
                f"{self}: branches of one score per step have segmentations of their own; reduce(…) each first"
            )
        values: Any = scores[0].read(0.0)
        valid: Any = like(np.zeros(len(rollouts), bool), scores[0].valid)
        asked = like(np.zeros(len(rollouts), bool), scores[0].valid)
        for rows, branch in zip(taken, scores, strict=True):
            here = like(rows, values)
            values = where(here, branch.read(0.0), values)
            valid = where(here, branch.valid, valid)
            asked = asked | (here & branch.mask)
        lost = ~np.any(taken, axis=0)
        mask = asked | like(lost, asked)
        failed = to_numpy(mask & ~valid)
        kept = merged(self.children, scores, [int(i) for i in np.flatnonzero(failed & ~lost)])
        column = rollouts.column(self.by)
        known = ", ".join(key for key, _ in self.branches)
        kept["reasons"] |= {
            int(i): f"no route for {self.by}={column[int(i)]!r} (there is: {known})" for i in np.flatnonzero(lost)
        }
        return Scores(values, mask=mask, valid=valid, **kept)


def route(
    by: str, branches: Mapping[str, Reward] | None = None, *, otherwise: Reward | None = None, **named: Reward
) -> Route:
    """Score each row with the reward that its column `by` names.

    A row is not measured by the rewards of other routes, and that is not an abstention. A row whose
    value names no route abstains, unless there is an `otherwise`.

    >>> from guerdon import route
    >>> from guerdon.rewards import math, text
    >>> mixed = route("task", sum=math.answer(), essay=text.length(unit="words"))
    >>> mixed(["1+1", "Say hi"], ["2", "hi there"], task=["sum", "essay"], answer=["2", None])
    [1.0, 2.0]

    Source: routing by task, e.g. Mixed-R1 (arXiv 2505.24164).
    """
    return Route(by, tuple({**(branches or {}), **named}.items()), otherwise)
