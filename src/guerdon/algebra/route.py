"""Different rewards for different tasks of one batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from guerdon.algebra.align import aligned
from guerdon.algebra.expression import Chain, Reward, Rows, expect_rewards, merged, one_level
from guerdon.core.arrays import like, to_numpy, where
from guerdon.core.context import Context
from guerdon.core.protocols import Leaf, Measured, Range
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores


@dataclass(frozen=True, repr=False)
class Route(Reward):
    """Each row to the reward that its column names."""

    by: str
    branches: tuple[tuple[str, Reward], ...]
    otherwise: Reward | None = None

    def __post_init__(self) -> None:
        if not self.branches:
            raise ValueError("route needs at least one branch")
        expect_rewards("route", *self.children)
        keys = [key for key, _ in self.branches]
        if len(set(keys)) < len(keys):
            raise ValueError(f"route has two branches of one name among {', '.join(keys)}")
        one_level(self.children, "route to")
        if self.level == "step":
            raise ValueError("route to rewards of steps is not possible, each has its own steps: reduce(…) them first")
        self.names()

    def __eq__(self, other: object) -> bool:
        """The order of the branches means nothing."""
        return isinstance(other, Route) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return self.by, frozenset(self.branches), self.otherwise

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

    def combine(self, measured: Measured, context: Context) -> Scores:
        rollouts = context.require_rollouts()
        taken = self._taken(rollouts)
        branches = zip(self.children, taken, strict=True)
        scores = aligned([child.combine(_within(rows, child, measured), context) for child, rows in branches])
        values: Any = 0.0
        valid: Any = np.zeros(len(rollouts), bool)
        mask: Any = ~np.any(taken, axis=0)
        lost = np.flatnonzero(mask)
        for rows, branch in zip(taken, scores, strict=True):
            values = where(rows, branch.read(0.0), values)
            valid = where(rows, branch.valid, valid)
            mask = where(rows, branch.mask, mask)
        failed = np.flatnonzero(to_numpy(mask & ~like(valid, mask)))
        kept = merged(self.children, scores, [int(i) for i in np.setdiff1d(failed, lost)])
        column, known = rollouts.column(self.by), ", ".join(key for key, _ in self.branches)
        kept["reasons"] |= {int(i): f"no route for {self.by}={column[int(i)]!r} (there is: {known})" for i in lost}
        return Scores(values, mask=mask, valid=valid, **kept)

    def chains(self, measured: Measured, context: Context) -> Iterator[tuple[Chain, Measured]]:
        for child, rows in zip(self.children, self._taken(context.require_rollouts()), strict=True):
            yield from child.chains(_within(rows, child, measured), context)


def _within(rows: Rows, branch: Reward, measured: Measured) -> Measured:
    """What a branch sees: its own rows, though a leaf may be measured at more of them for another branch."""
    return {leaf: measured[leaf].restrict(rows) for leaf in branch.leaves()}


def route(
    by: str, branches: Mapping[str, Reward] | None = None, *, otherwise: Reward | None = None, **named: Reward
) -> Route:
    """Score each row with the reward that its column `by` names.

    A row is not measured by the rewards of other routes, and that is not an abstention; a shaper within
    a route sees the rows of that route only. A row whose value names no route abstains, unless there is
    an `otherwise`.

    Args:
        by: the column; its entries are compared as text.
        branches: for names that are not Python's, such as "grade-school".
        otherwise: the reward of rows whose value names no route.
        named: the rewards by the value that leads to them.

    Raises:
        ValueError: for two branches of one name, or rewards of steps.

    >>> from guerdon import route
    >>> from guerdon.rewards import math, text
    >>> mixed = route("task", sum=math.answer(), essay=text.length(unit="words"))
    >>> mixed(["1+1", "Say hi"], ["2", "hi there"], task=["sum", "essay"], answer=["2", None])
    [1.0, 2.0]

    Source: routing by task, e.g. Mixed-R1 (arXiv 2505.24164).
    """
    return Route(
        by, tuple((str(key), branch) for key, branch in [*(branches or {}).items(), *named.items()]), otherwise
    )
