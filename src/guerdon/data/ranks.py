"""Rollouts drawn by the rank of their reward, and how far the reward can be trusted on what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from guerdon.data.selection import checked, places

Weights = Literal["none", "best", "best-random", "best-worst", "magnitude"]


def rank_weights(
    rewards: Float[np.ndarray[Any, Any], "n"],
    groups: Int[np.ndarray[Any, Any], "n"],
    *,
    weights: Weights | Sequence[float] = "best-worst",
    mask: Any = None,
) -> Float[np.ndarray[Any, Any], "n"]:
    """The probability with which each rollout stands for its group.

    By rank of the reward, highest first, of N: "none" 1/N each; "best" (1, 0, …); "best-random" (1/2, then 1/2 shared
    by the others); "best-worst" (1/2, 0, …, 0, 1/2). A reward model is reliable at the ends and not in the middle,
    where a sample teaches noise. "magnitude": in proportion to r². Numbers: a weight for each rank.

    Args:
        rewards: any real unit.
        groups: rows with equal numbers were sampled for one prompt.
        weights: which; numbers need one for every rank of the largest group, none negative.
        mask: rows that were scored; the others have probability 0 and no rank.

    Returns:
        Probabilities, which add up to 1 in each group with a scored row. Where all weights are 0 they are equal.

    Raises:
        ValueError: if the shapes differ, a reward is not finite, or the weights are not as above.

    Source: PF-PPO (arXiv 2409.06957; swtheing/PF-PPO-RLHF, whose buffer also weighs by r², and 0.4 : 0.1).

    >>> rank_weights(np.array([0.1, 0.9, 0.5]), np.zeros(3, int), weights="best-random")
    array([0.25, 0.5 , 0.25])
    """
    rewards, mask, index, count = checked("rewards", rewards, groups, mask)
    place, size = places(rewards, index, mask)
    first, last = place == 0, place == size - 1
    if not isinstance(weights, str):
        table = np.asarray(weights, np.float64)
        if table.ndim != 1 or len(table) < size.max(initial=0) or not (np.isfinite(table) & (table >= 0)).all():
            raise ValueError(f"weights must be {size.max(initial=0)} numbers, none negative, got {list(weights)}")
        weight = table[np.minimum(place, len(table) - 1)] if len(table) else np.zeros(len(place))
    elif weights not in get_args(Weights):
        raise ValueError(f"weights is one of {', '.join(map(repr, get_args(Weights)))} or numbers, got {weights!r}")
    elif weights == "best":
        weight = first.astype(np.float64)
    elif weights == "best-random":
        weight = np.where(first, np.maximum(size - 1, 1), 1.0)
    elif weights == "best-worst":
        weight = (first | last).astype(np.float64)
    elif weights == "magnitude":
        peak = np.zeros(count)
        np.maximum.at(peak, index, np.abs(rewards))
        weight = (rewards / np.where(peak > 0, peak, 1.0)[index]) ** 2
    else:
        weight = np.ones(len(place))
    weight = np.where(mask, weight, 0.0)
    total = np.bincount(index, weight, minlength=count)
    weight = np.where(total[index] > 0, weight, mask.astype(np.float64))
    total = np.bincount(index, weight, minlength=count)
    return np.asarray(weight / np.where(total > 0, total, 1.0)[index])


def draw_rows(
    probabilities: Float[np.ndarray[Any, Any], "n"],
    groups: Int[np.ndarray[Any, Any], "n"],
    *,
    count: int = 1,
    rng: np.random.Generator,
) -> Int[np.ndarray[Any, Any], "m"]:
    """Rows of each group drawn by their probabilities, in the order of the groups.

    Each row waits for a time that is exponential with its probability as the rate; the first to come are drawn
    (Efraimidis & Spirakis, 2006).

    Args:
        probabilities: of `rank_weights`; weights that do not add up to 1 are taken in proportion.
        groups: rows with equal numbers belong together.
        count: rows of each group, without replacement, or as many as have any probability.
        rng: one number per row is drawn.

    Raises:
        ValueError: if the shapes differ, a probability is negative or not finite, or the count is negative.

    Source: PF-PPO (arXiv 2409.06957).

    >>> draw_rows(np.array([0.0, 1.0, 1.0]), np.array([7, 7, 2]), rng=np.random.default_rng(0))
    array([2, 1])
    """
    weight, _, index, _ = checked("probabilities", probabilities, groups, None)
    if (weight < 0).any() or count < 0:
        raise ValueError("probabilities and count must not be negative")
    possible = weight > 0
    rate = weight / max(weight.max(initial=0.0), np.finfo(np.float64).tiny)
    # A row of hardly any weight waits for ever: later than all others, which is all that is asked of it.
    with np.errstate(over="ignore", divide="ignore"):
        wait = np.where(possible, rng.exponential(size=len(weight)) / rate, np.inf)
    place, _ = places(-wait, index, possible)
    rows = np.flatnonzero(possible & (place < count))
    return rows[np.lexsort((place[rows], index[rows]))]


def linear_fidelity(
    rewards: Float[np.ndarray[Any, Any], "m"],
    truths: Float[np.ndarray[Any, Any], "m"],
    *,
    bins: int | None = None,
) -> float | None:
    """How much of the true score a straight line in the reward explains.

        R² = 1 − Σ (s − aR − b)² / Σ (s − s̄)²        a, b by least squares

    Args:
        rewards: of the samples that a filter lets through.
        truths: their true scores.
        bins: first average both over so many equally wide bins of the reward, as the source does; how many it does
            not state. None: each sample counts by itself.

    Returns:
        R² in [0, 1]; None where there is no variation to explain, or to explain it by.

    Raises:
        ValueError: if the shapes differ, a number is not finite, or bins < 1.

    Source: PF-PPO (arXiv 2409.06957): the filter to train with is the one with the highest R².

    >>> round(linear_fidelity(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0])), 2)
    0.75
    """
    rewards, truths = np.asarray(rewards, np.float64), np.asarray(truths, np.float64)
    if rewards.ndim != 1 or rewards.shape != truths.shape:
        raise ValueError(f"rewards {rewards.shape} and truths {truths.shape} need one shape (m,)")
    if not (np.isfinite(rewards).all() and np.isfinite(truths).all()):
        raise ValueError("rewards and truths must be finite: leave out what was not scored")
    if bins is not None:
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        low, high = rewards.min(initial=np.inf), rewards.max(initial=-np.inf)
        width = (high - low) / bins if high > low else 1.0
        index = np.clip((rewards - low) / width, 0, bins - 1).astype(np.int64) if len(rewards) else np.zeros(0, int)
        count = np.bincount(index, minlength=bins)
        rewards, truths = (
            np.bincount(index, x, minlength=bins)[count > 0] / count[count > 0] for x in (rewards, truths)
        )
    if len(rewards) < 2 or np.ptp(rewards) <= 0 or np.ptp(truths) <= 0:
        return None
    x, y = rewards - rewards.mean(), truths - truths.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    return float(min((x @ y) ** 2 / ((x @ x) * (y @ y)), 1.0))


def fidelity_by_filter(
    rewards: Float[np.ndarray[Any, Any], "n"],
    truths: Float[np.ndarray[Any, Any], "n"],
    groups: Int[np.ndarray[Any, Any], "n"],
    *,
    filters: Sequence[Weights] = ("none", "best", "best-random", "best-worst"),
    bins: int | None = None,
    rng: np.random.Generator,
) -> dict[str, float | None]:
    """R² between reward and true score on what each filter lets through: look before choosing one.

    Args:
        rewards: of the reward model.
        truths: true scores of the same rollouts; of a held-out set where they can be checked.
        groups: rows with equal numbers were sampled for one prompt.
        filters: `weights` of `rank_weights`.
        bins: see `linear_fidelity`.
        rng: draws.

    Source: PF-PPO (arXiv 2409.06957): .886 for none, .454, .922 and .952 for best, best-random and best-worst.

    >>> reward = np.array([0.0, 1.0, 0.0, 1.0])
    >>> fidelity_by_filter(reward, reward, np.array([0, 0, 1, 1]), filters=["best"], rng=np.random.default_rng(0))
    {'best': None}
    """
    rewards, truths = np.asarray(rewards, np.float64), np.asarray(truths, np.float64)
    if rewards.shape != truths.shape:
        raise ValueError(f"rewards {rewards.shape} and truths {truths.shape} need one shape (n,)")
    drawn = {name: draw_rows(rank_weights(rewards, groups, weights=name), groups, rng=rng) for name in filters}
    return {name: linear_fidelity(rewards[rows], truths[rows], bins=bins) for name, rows in drawn.items()}
