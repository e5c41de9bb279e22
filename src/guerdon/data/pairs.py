"""Pairs to prefer between, mined from the scores of a group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from guerdon.core.arrays import sigmoid, to_numpy
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.data.selection import places


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which rollout of a batch is preferred to which.

    Args:
        chosen: Int["m"], row numbers.
        rejected: Int["m"], row numbers, each in the group of the chosen one.
        margin: Float["m"], how much higher the chosen one scored.
    """

    chosen: Int[np.ndarray[Any, Any], "m"]
    rejected: Int[np.ndarray[Any, Any], "m"]
    margin: Float[np.ndarray[Any, Any], "m"]

    def __len__(self) -> int:
        return len(self.chosen)

    def records(self, rollouts: Rollouts, *, prompts: Sequence[Any] | None = None) -> list[dict[str, Any]]:
        """One dictionary per pair: prompt, chosen, rejected, margin; what preference trainers read.

        Args:
            rollouts: the batch.
            prompts: one per rollout, in place of its own: of an attempt under guidance, the prompt without it, so
                that what is learned does not need the guidance.

        Raises:
            ValueError: if the prompts of a pair differ: a preference is between answers to one prompt.
        """
        asked = rollouts.prompts if prompts is None else prompts
        if len(asked) != len(rollouts):
            raise ValueError(f"{len(asked)} prompts for {len(rollouts)} rollouts")
        found = []
        for better, worse, margin in zip(self.chosen.tolist(), self.rejected.tolist(), self.margin, strict=True):
            if asked[better] != asked[worse]:
                raise ValueError(f"rows {better} and {worse} answer different prompts: pass prompts= to give them one")
            completions = rollouts.completions[better], rollouts.completions[worse]
            found.append(
                {"prompt": asked[better], "chosen": completions[0], "rejected": completions[1], "margin": float(margin)}
            )
        return found


def preference_pairs(
    scores: Scores,
    groups: Int[np.ndarray[Any, Any], "n"],
    *,
    which: Literal["extremes", "all"] = "extremes",
    margin: float = 0.0,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    most: int | None = None,
) -> Pairs:
    """The rollouts of each group that are to be preferred to one another.

    Args:
        scores: one per rollout; those that abstained are in no pair.
        groups: rows with equal numbers answer one prompt.
        which: the "extremes", the best and the worst; or "all" pairs of a better and a worse one.
        margin: the scores must differ by more than this. Equal scores are never a preference.
        at_least: the least score of the chosen one: the better of two bad answers is no example.
        at_most: the highest score of the rejected one.
        most: of each group, so many pairs: those of the largest margin, the earlier of equals.

    Returns:
        Pairs in the order of the groups' numbers, within a group by falling margin.

    Raises:
        ValueError: if the scores are of steps, the shapes differ, or an option is out of range.

    Source: argmax and argmin of N candidates: FLR (arXiv 2409.13948) and CDR (2411.02481); passing over failing
    trajectories of one task: Agent-RLVR (2506.11425); clearly concise over clearly redundant: CRM (2511.09158), which
    states no threshold.

    >>> found = preference_pairs(Scores.of([0.1, 0.9, 0.4, 0.5]), np.array([0, 0, 0, 1]))
    >>> found.chosen, found.rejected, found.margin
    (array([1]), array([0]), array([0.8]))
    """
    groups = np.asarray(groups)
    if scores.level != "rollout" or groups.shape != (len(scores),):
        raise ValueError(f"pairs need one score per rollout and groups ({len(scores)},), got {groups.shape}")
    if which not in ("extremes", "all"):
        raise ValueError(f"which is 'extremes' or 'all', got {which!r}")
    if margin < 0 or (most is not None and most < 0):
        raise ValueError(f"margin and most must not be negative, got {margin} and {most}")
    values, valid = to_numpy(scores.read(0.0)).astype(np.float64), to_numpy(scores.valid)
    _, index = np.unique(groups, return_inverse=True)
    better, worse = valid & (values >= at_least), valid & (values <= at_most)
    if which == "extremes":
        (top, _), (bottom, _) = places(values, index, valid), places(-values, index, valid)
        better, worse = better & (top == 0), worse & (bottom == 0)
    first, second = _crossed(np.flatnonzero(better), np.flatnonzero(worse), index)
    gap = values[first] - values[second]
    wide = gap > margin
    first, second, gap = first[wide], second[wide], gap[wide]
    order = np.lexsort((second, first, -gap, index[first]))
    first, second, gap = first[order], second[order], gap[order]
    if most is not None:
        place, _ = places(gap, index[first], np.ones(len(gap), bool))
        first, second, gap = first[place < most], second[place < most], gap[place < most]
    return Pairs(first, second, gap)


def preference_labels(
    first: Float[np.ndarray[Any, Any], "m"],
    second: Float[np.ndarray[Any, Any], "m"],
    *,
    scale: float = 1.0,
    rng: np.random.Generator | None = None,
) -> Float[np.ndarray[Any, Any], "m"]:
    """What people who see rewards would say of pairs: p = σ((r₁ − r₂)/scale) that the first is better, or a verdict.

    Args:
        first: r₁.
        second: r₂, in the same unit.
        scale: > 0; the smaller, the surer they are.
        rng: draw 1 or 0 with that chance. Without one the chance itself, whose loss has the same mean and less noise.

    Returns:
        In [0, 1]: labels of `objectives.pair_terms`.

    Raises:
        ValueError: if the shapes differ, a reward is not finite, or scale ≤ 0.

    Source: RPO (arXiv 2407.12164), which draws.

    >>> preference_labels(np.array([1.0, 0.0]), np.array([0.0, 0.0])).round(4)
    array([0.7311, 0.5   ])
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 1 or not (np.isfinite(first) & np.isfinite(second)).all():
        raise ValueError(f"first {first.shape} and second {second.shape} need one shape (m,) and finite rewards")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be positive, got {scale}")
    chance = np.asarray(sigmoid((first - second) / scale))
    return chance if rng is None else (rng.random(len(chance)) < chance).astype(np.float64)


def _crossed(
    left: Int[np.ndarray[Any, Any], "l"], right: Int[np.ndarray[Any, Any], "r"], index: Int[np.ndarray[Any, Any], "n"]
) -> tuple[Int[np.ndarray[Any, Any], "m"], Int[np.ndarray[Any, Any], "m"]]:
    """Every row of `left` with every row of `right` in its group."""
    right = right[np.argsort(index[right], kind="stable")]
    begin, end = (np.searchsorted(index[right], index[left], side) for side in ("left", "right"))
    counts = end - begin
    offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(left, counts), right[np.repeat(begin, counts) + offset]
