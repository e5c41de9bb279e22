"""Scores of players as scores of teams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from guerdon.core.arrays import Array, is_tensor, like, to_numpy
from guerdon.core.context import Context
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores
from guerdon.shaping.shaper import Shaper


@dataclass(frozen=True)
class team_spirit(Shaper):
    """Share what a player earns with the team, and take off what the opponents earn:

        r'ᵢ = (1 − τ) rᵢ + τ · mean(own team) − mean(opponents)

    Between teams of one size the scores of a match sum to 0: what both teams can collect together is worth nothing to
    either. A group is a match, and its rollouts are the players; of rewards of steps, each step is shared by itself.
    The opponents are all players of the match who are of no own team; without any, nothing is taken off.

    A player abstains if one whose score is needed does: a mate for τ > 0, or an opponent.

    Args:
        share: τ in [0, 1]: 0 is every player for itself, 1 all for the team.
        by: the column that holds a player's team, compared as text.

    Raises:
        ValueError: if the share is outside of [0, 1].

    >>> from guerdon import Scores, Context, Rollouts
    >>> match = Context(Rollouts(["m"] * 3, [""] * 3, {"team": ["red", "red", "blue"]}))
    >>> team_spirit()(Scores.of([1.0, 0.0, 0.5]), match).read(0.0).round(2)
    array([ 0.35, -0.35,  0.  ])

    Source: the reward distribution of Lucy-SKG (Enkhai/lucy-utils; arXiv 2305.15801), τ = 0.3, after OpenAI Five.
    """

    share: float = 0.3
    by: str = "team"

    scope = "group"

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share lies between 0 and 1, got {self.share}")

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({self.by})

    def range(self, inner: Range) -> Range:
        width = inner[1] - inner[0]
        return min(inner[0], -width), max(inner[1], width)

    def __call__(self, scores: Scores, context: Context) -> Scores:
        rollouts = context.require_rollouts()
        _, match = np.unique(rollouts.groups, return_inverse=True)
        names, team = np.unique(np.array([str(entry) for entry in rollouts.column(self.by)], str), return_inverse=True)
        team = match * len(names) + team
        values, absent = scores.read(0.0), to_numpy(scores.abstained)
        ours, count, missing = (_shared(x, team) for x in (values, to_numpy(scores.mask) * 1.0, absent * 1.0))
        theirs, others, lost = (
            _shared(x, match) - own
            for x, own in ((values, ours), (to_numpy(scores.mask) * 1.0, count), (absent * 1.0, missing))
        )
        shaped = (1 - self.share) * values + self.share * ours / like(np.maximum(count, 1.0), values)
        shaped = shaped - theirs / like(np.maximum(others, 1.0), values)
        unknown = (lost > 0) | ((missing > 0) & (self.share > 0))
        reasons: dict[int, str] = {}
        for row in np.flatnonzero(unknown if unknown.ndim == 1 else unknown.any(-1)):
            other = next(r for r in scores.abstained_rows if match[r] == match[row])
            reasons[int(row)] = f"row {other}, of the same match: {scores.reasons[other]}"
        return scores.with_values(
            shaped, valid=scores.valid & like(~unknown, scores.valid), reasons={**reasons, **scores.reasons}
        )


def _shared(values: Any, index: Int[np.ndarray[Any, Any], "n"]) -> Array:
    """For each row the sum over the rows of its number."""
    n = int(index.max(initial=-1)) + 1
    if is_tensor(values):
        at = like(index, values)
        return values.new_zeros(n, *values.shape[1:]).index_add(0, at, values)[at]
    total = np.zeros((n, *values.shape[1:]))
    np.add.at(total, index, values)
    return total[index]
