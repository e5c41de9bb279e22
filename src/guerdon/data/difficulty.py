"""Prompts by how well they are done now: the hardest, the easiest, or those between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from guerdon.core.context import Context
from guerdon.core.scores import Scores
from guerdon.data.filter import Filter
from guerdon.data.filters import Statistic, check_statistic, measured, taken
from guerdon.shaping.pools import moments, pooled

PLACES = ("lowest", "middle", "highest", "random")


@dataclass(frozen=True, kw_only=True)
class ranked(Filter):
    """Keep so many prompts by the rank of a statistic of their group.

    Of groups that have a score; of equal ones, those with the lower numbers.

    Args:
        count: how many; all, if there are fewer.
        place: "lowest" for the hardest prompts, "highest" for the easiest, "middle" for those around the median;
            "random" for any, which the others have to be better than.
        of: the part of the reward, by its name, or the detail that is read; None: the scores themselves.
        statistic: "mean", "std", "min" or "max".
        seed: of "random".

    Raises:
        ValueError: for another place or statistic, or a negative count.

    >>> from guerdon.core import Context, Rollouts, Scores
    >>> batch = Context(Rollouts(["p", "q", "r"], [""] * 3))
    >>> ranked(count=2).keep(Scores.of([0.9, 0.1, 0.4]), batch)
    array([False,  True,  True])

    Source: the hard, medium, easy and random examples of BLEUBERI (arXiv 2505.11080), by the BLEU of the base model.
    """

    count: int
    place: Literal["lowest", "middle", "highest", "random"] = "lowest"
    of: str | None = None
    statistic: Statistic = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        check_statistic(self.statistic)
        if self.place not in PLACES:
            raise ValueError(f"place is one of {', '.join(map(repr, PLACES))}, got {self.place!r}")
        if self.count < 0:
            raise ValueError(f"count must not be negative, got {self.count}")

    def keep(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "g"]:
        values, valid = measured(scores, self.of)
        index, groups = pooled(scores, context, "group")
        known = moments(values, valid, index, groups)
        scored = np.flatnonzero(known.size > 0)
        value = taken(known, self.statistic)[scored]
        if self.place == "random":
            order = np.random.default_rng(self.seed).permutation(len(scored))
        else:
            order = np.lexsort((scored, -value if self.place == "highest" else value))
        begin = max(0, len(scored) - self.count) // 2 if self.place == "middle" else 0
        kept = np.zeros(groups, bool)
        kept[scored[order[begin : begin + self.count]]] = True
        return kept
