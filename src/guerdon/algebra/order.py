"""The order of a group by several rewards, the most important first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from guerdon.algebra.combine import Composite
from guerdon.algebra.expression import Reward, one_level, widest
from guerdon.core.arrays import Array, like, to_numpy
from guerdon.core.context import Context
from guerdon.core.protocols import Range, Scope
from guerdon.core.scores import Scores


@dataclass(frozen=True, repr=False)
class Lexicographic(Composite):
    """The place in a group's order by the first reward, ties broken by the next."""

    keyword = "lexicographic"

    tolerance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance is a distance, got {self.tolerance}")

    @property
    def range(self) -> Range:
        return 0.0, 1.0

    @property
    def scope(self) -> Scope:
        return widest(("group", super().scope))

    @property
    def differentiable(self) -> bool:
        """A place in an order has no gradient."""
        return False

    def _check_levels(self) -> None:
        one_level(self.terms, "order")
        if self.level == "step":
            raise ValueError("lexicographic orders rollouts: reduce(…) rewards of steps first")

    def _values(self, scores: Sequence[Scores], context: Context) -> tuple[Array, Array]:
        groups = context.require_rollouts().groups
        values, valid = np.zeros(len(groups)), np.ones(len(groups), bool)
        for group in np.unique(groups):
            rows = np.flatnonzero((groups == group) & np.all([to_numpy(s.mask) for s in scores], 0))
            places, known = self._order([(to_numpy(s.read(0.0))[rows], to_numpy(s.valid)[rows]) for s in scores])
            values[rows] = places / max(1, places.max(initial=0))
            valid[rows] = known
        return like(values, scores[0].read(0.0)), like(valid, scores[0].valid)

    def _order(self, terms: list[tuple[Array, Array]]) -> tuple[Array, Array]:
        """Dense places (0 the worst) and where they are known: the first term is asked, a later one on ties only."""
        places = np.zeros(len(terms[0][0]), np.int64)
        known = np.ones(len(places), bool)
        for term, (values, valid) in enumerate(terms):
            tied = np.bincount(places, weights=known, minlength=len(places) + 1)[places] > 1
            known &= valid | (~tied if term else False)
            refined = np.zeros_like(places)
            place = -1
            for current in np.unique(places):
                members = np.flatnonzero((places == current) & known)
                members = members[np.argsort(values[members], kind="stable")]
                steps = [True, *(b - a > self.tolerance for a, b in pairwise(values[members]))] if len(members) else []
                for member, step in zip(members, steps, strict=True):
                    place += bool(step)
                    refined[member] = place
            places = refined
        return places, known


def lexicographic(*rewards: Reward, tolerance: float = 0.0) -> Lexicographic:
    """Order a group by the first reward, break its ties by the second, and so on.

    Returns each rollout's place, from 0 for the worst to 1 for the best, with equal places for equal
    rollouts; a group without any difference is at 0. No amount of a later reward makes up for an earlier
    one. A later term is needed only on ties: where it abstains without one, nothing is lost. A rollout
    that abstains is left out of the order.

    Args:
        rewards: the most important first.
        tolerance: two neighbouring scores at most this far apart are a tie.

    Raises:
        ValueError: for rewards of steps, or a negative tolerance.

    Source: lexicographic preferences; the group order is ours.
    """
    return Lexicographic(rewards, float(tolerance))
