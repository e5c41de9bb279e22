"""Which tokens of a reference a group's reasonings make a difference to, and what follows from that."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

Weights = Literal["spread", "top"]


def token_weights(
    logp: Float[np.ndarray[Any, Any], "n t"],
    mask: Bool[np.ndarray[Any, Any], "n t"],
    groups: Int[np.ndarray[Any, Any], "n"],
    *,
    weights: Weights = "spread",
    top: float = 0.2,
) -> tuple[Float[np.ndarray[Any, Any], "n t"], Float[np.ndarray[Any, Any], "n"]]:
    """The weight of each token of a target that the rows of a group share: see `reflection`.

    Args:
        logp: in nats.
        mask: True where there is a token; a row without tokens is not counted.
        groups: which rows share a target.
        weights: 'spread' or 'top'.
        top: the share of tokens of 'top'; at least one.

    Returns:
        Weights, which add up to 1 over each row's tokens, and max σⱼ of each row's group.

    Source: DRO (arXiv 2506.13351); σ is the population's, over the rows of the group.

    >>> logp = np.array([[-0.1, -2.0, -0.1], [-0.1, -0.2, -0.1]])
    >>> token_weights(logp, np.ones((2, 3), bool), np.array([0, 0]))[0]
    array([[0., 1., 0.],
           [0., 1., 0.]])
    """
    _, index = np.unique(groups, return_inverse=True)
    m = index.max(initial=-1) + 1
    rows = mask.astype(np.float64)
    values = np.where(mask, logp, 0.0)

    def by_group(x: Float[np.ndarray[Any, Any], "n t"]) -> Float[np.ndarray[Any, Any], "m t"]:
        total = np.zeros((m, x.shape[1]))
        np.add.at(total, index, x)
        return total

    count = np.maximum(by_group(rows), 1.0)
    centred = np.where(mask, values - (by_group(values) / count)[index], 0.0)
    # A token that is the same to all has no spread, whatever rounding leaves of it.
    sigma = np.sqrt(by_group(centred**2) / count)[index]
    sigma = np.where(mask & (sigma > 1e-9 * np.maximum(np.abs(values), 1.0)), sigma, 0.0)
    length = mask.sum(1, keepdims=True)
    if weights == "top":
        place = np.argsort(np.argsort(-np.where(mask, sigma, -1.0), axis=1, kind="stable"), axis=1)
        chosen = mask & (place < np.maximum(np.ceil(top * length - 1e-9), 1))
    total = sigma.sum(1, keepdims=True)
    share = (
        chosen / np.maximum(chosen.sum(1, keepdims=True), 1) if weights == "top" else sigma / np.where(total, total, 1)
    )
    share = np.where(total > 0, share, mask / np.maximum(length, 1))
    return share, sigma.max(1, initial=0.0)


def reflect(
    logp: Float[np.ndarray[Any, Any], "n t"],
    base: Float[np.ndarray[Any, Any], "n t"],
    mask: Bool[np.ndarray[Any, Any], "n t"],
    weight: Float[np.ndarray[Any, Any], "n t"],
) -> Float[np.ndarray[Any, Any], "n"]:
    """Σⱼ wⱼ (lⱼ − mⱼ), in nats; 0 without tokens. Source: DRO (arXiv 2506.13351)."""
    difference = np.where(mask, logp, 0.0) - np.where(mask, base, 0.0)
    return np.asarray(np.where(mask, weight * difference, 0.0).sum(1))


def propagated(
    logp: Float[np.ndarray[Any, Any], "n t"],
    mask: Bool[np.ndarray[Any, Any], "n t"],
    reflective: Bool[np.ndarray[Any, Any], "n t"],
    *,
    gamma: float,
) -> Float[np.ndarray[Any, Any], "n t"]:
    """Log-probabilities that do not forget how unlikely an earlier token was.

        log p'ⱼ = log pⱼ + Σ over reflective k < j of log Pₖ        Pₖ = pₖ + (1 − pₖ)(1 − e^{−γ(j − k)})

    Teacher forcing tells the model each token before it asks for the next: a reasoning that made a token
    unlikely is forgiven at once. Here it is forgiven with the distance. The costly alternative to a masked context.

    Args:
        logp: in nats.
        mask: True where there is a token.
        reflective: True at the tokens that the reasoning decides.
        gamma: γ > 0; the larger, the sooner it is forgiven.

    Returns:
        Log-probabilities, at most those given; 0 where masked. Takes n t² numbers.

    Raises:
        ValueError: if the shapes differ, or γ ≤ 0.

    Source: DRO (arXiv 2506.13351).

    >>> there = np.ones((1, 2), bool)
    >>> np.exp(propagated(np.log([[0.2, 0.5]]), there, there, gamma=1.0)).round(4)  # .5 · (.2 + .8 · .6321)
    array([[0.2   , 0.3528]])
    """
    if not logp.shape == mask.shape == reflective.shape or logp.ndim != 2:
        raise ValueError(
            f"logp, mask and reflective must have one shape (n, t), got {logp.shape}, {mask.shape}, {reflective.shape}"
        )
    if not gamma > 0:
        raise ValueError(f"gamma must be positive, got {gamma}")
    logp = np.where(mask, logp, 0.0)
    p = np.exp(logp)[:, :, None]
    distance = np.arange(logp.shape[1]) - np.arange(logp.shape[1])[:, None]
    counted = (distance > 0) & (mask & reflective)[:, :, None]
    forgiven = 1 - np.exp(-gamma * np.maximum(distance, 0))
    factor = np.where(counted, p + (1 - p) * forgiven, 1.0)
    return np.asarray(np.where(mask, logp + np.log(factor).sum(1), 0.0))


def teachable(
    worst_rank: Float[np.ndarray[Any, Any], "n"],
    spread: Float[np.ndarray[Any, Any], "n"],
    groups: Int[np.ndarray[Any, Any], "n"],
    *,
    rank: float = 100.0,
    drop: float = 0.2,
) -> Bool[np.ndarray[Any, Any], "n"]:
    """Which prompts a policy can learn from now: not out of its reach, and not all the same to it.

    Args:
        worst_rank: the mean rank of the reference's worst tokens under each reasoning, from the details of
            `reflection`.
        spread: max σ of each rollout's group, from the same.
        groups: the rollouts of one prompt.
        rank: a prompt stays if a reasoning brings the worst tokens below this rank.
        drop: of those that stay, the share with the lowest spread is dropped. The source states neither number.

    Returns:
        True at the rollouts of prompts to keep.

    Raises:
        ValueError: if the shapes differ, or `drop` is outside of [0, 1).

    Source: DRO (arXiv 2506.13351), its dynamic filter, applied anew each round.

    >>> teachable(np.array([500.0, 3, 2, 1]), np.array([1.0, 1, 0.1, 2]), np.array([0, 1, 2, 3]), drop=0.5)
    array([False,  True, False,  True])
    """
    if not len(worst_rank) == len(spread) == len(groups):
        raise ValueError(
            f"worst_rank, spread and groups have {len(worst_rank)}, {len(spread)} and {len(groups)} entries"
        )
    if not 0 <= drop < 1:
        raise ValueError(f"drop is a share in [0, 1), got {drop}")
    prompts, index = np.unique(groups, return_inverse=True)
    best = np.full(len(prompts), np.inf)
    np.minimum.at(best, index, worst_rank)
    widest = np.full(len(prompts), -np.inf)
    np.maximum.at(widest, index, spread)
    within = np.flatnonzero(best < rank)
    ordered = within[np.argsort(widest[within], kind="stable")]
    keep = np.zeros(len(prompts), bool)
    keep[ordered[int(drop * len(ordered)) :]] = True
    return np.asarray(keep[index])
