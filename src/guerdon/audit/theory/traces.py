"""Is a verifier worth having? How much the rewards of a prompt's traces differ, and how far up they reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

Array = np.ndarray[Any, Any]


def bilevel_reward(first: Int[Array, "*n"], horizon: int) -> Float[Array, "*n"]:
    """The budget that was left when a trace first had the right answer, in [0, H]: H − step, or 0 for never.

    Args:
        first: the step (or token) at which it was first right, counted from 0; negative if never.
        horizon: H, the budget in steps.

    Raises:
        ValueError: if a step is beyond the horizon.

    Source: "Scaling Test-Time Compute Without Verification or RL is Suboptimal" (arXiv 2502.12118, §3).

    >>> bilevel_reward(np.array([0, 3, -1]), 4)
    array([4., 1., 0.])
    """
    first = np.asarray(first)
    if (first > horizon).any():
        raise ValueError(f"first must be at most the horizon, {horizon}, got {first.max()}")
    return np.where(first >= 0, horizon - first, 0).astype(float)


def trace_variance(rewards: Float[Array, "x n"], mask: Bool[Array, "x n"] | None = None) -> Float[Array, "x"]:
    r"""Heterogeneity σ² of each prompt: the variance of its traces' rewards.

        σ² = Σ_h E_{s_h} Var_{a~π}[Q(s_h, a)] = Var_τ[R(τ)]

    The sum over steps is what limits cloning; for text, whose state is its history, it is the variance of the whole
    trace (the law of total variance, step by step), which needs no Q. Estimated without bias.

    Args:
        rewards: of each prompt's traces under the policy.
        mask: False where a trace has no reward; None: all have.

    Returns:
        σ², in squared units of the reward.

    Raises:
        ValueError: if the shapes do not fit, or a prompt has fewer than two rewards, which say nothing of it.

    Source: arXiv 2502.12118, definition 5.1.

    >>> trace_variance(np.array([[0.0, 1.0, 0.0, 1.0]])).round(4)
    array([0.3333])
    """
    values, here, count = _rows(rewards, mask, least=2)
    mean = values.sum(1) / count
    variance: Array = np.where(here, (values - mean[:, None]) ** 2, 0.0).sum(1) / (count - 1)
    return variance


def anti_concentration(
    rewards: Float[Array, "x n"], eps: Float[Array, "e"], mask: Bool[Array, "x n"] | None = None
) -> Float[Array, "x e"]:
    r"""c(ε) = P[R ≥ E R + σ √ε]: how often a trace is well above the mean of its prompt.

    Where it is bounded away from 0, good traces can be found by a verifier but not by imitating the average.

    Args:
        rewards: of each prompt's traces under the policy.
        eps: distances, in variances, at least 0.
        mask: False where a trace has no reward; None: all have.

    Returns:
        Shares of the traces.

    Raises:
        ValueError: if the shapes do not fit, an ε is negative, or a prompt has fewer than two rewards.

    Source: arXiv 2502.12118, definition 5.4.

    >>> anti_concentration(np.array([[0.0, 0.0, 0.0, 1.0]]), np.array([1.0, 4.0]))
    array([[0.25, 0.  ]])
    """
    values, here, count = _rows(rewards, mask, least=2)
    eps = np.asarray(eps, float)
    if (eps < 0).any():
        raise ValueError(f"eps must not be negative, got {eps.min()}")
    mean = values.sum(1) / count
    bound = mean[:, None] + np.sqrt(trace_variance(values, here))[:, None] * np.sqrt(eps)
    # A trace exactly at the bound counts, also where the mean is rounded.
    slack = 1e-12 * np.abs(values).max(1, initial=0.0)
    above = here[:, :, None] & (values[:, :, None] >= bound[:, None, :] - slack[:, None, None])
    shares: Array = above.sum(1) / count[:, None]
    return shares


def q_variance(policy: Sequence[Float[Array, "s a"]], rewards: Float[Array, "l"]) -> Float[Array, "h"]:
    """E_{s_h} Var_a[Q(s_h, a)] of each step, exactly, on a tree; their sum is the variance of the reward.

    Args:
        policy: for each depth, the chances of the actions at every state of it: 1 row at first, then as many as there
            were entries before, in the same order.
        rewards: of the leaves, in the order of the last depth's entries.

    Raises:
        ValueError: if the sizes do not make a tree.

    Source: arXiv 2502.12118, definition 5.1.

    >>> q_variance([np.array([[0.5, 0.5]])], np.array([0.0, 2.0]))
    array([1.])
    """
    sizes = [1, *(np.size(chances) for chances in policy)]
    if any(len(chances) != size for chances, size in zip(policy, sizes, strict=False)) or len(rewards) != sizes[-1]:
        raise ValueError(f"a tree's states at each depth are the entries of the depth before: {sizes}, {len(rewards)}")
    reach = [np.ones(1)]
    for chances in policy:
        reach.append((reach[-1][:, None] * chances).ravel())
    value, spread = np.asarray(rewards, float), []
    for chances, arrived in zip(reversed(policy), reversed(reach[:-1]), strict=True):
        q = value.reshape(chances.shape)
        value = (chances * q).sum(1)
        spread.append(arrived @ (chances * (q - value[:, None]) ** 2).sum(1))
    return np.array(spread[::-1])


def verification_gap(
    rewards: Float[Array, "x m"], n: int, mask: Bool[Array, "x m"] | None = None
) -> dict[str, Float[Array, "x"]]:
    r"""What choosing among n traces by their reward brings over imitating them.

        verified = E[max of n traces]        cloned = E[R]        gap = verified − cloned

    A clone of the traces, good and bad alike, has their mean; the gap grows with their spread σ, and so with the
    horizon that the rewards are measured in.

    Args:
        rewards: of each prompt's traces under the policy.
        n: traces drawn per prompt, with replacement.
        mask: False where a trace has no reward; None: all have.

    Returns:
        "verified", "cloned" and "gap" of each prompt.

    Raises:
        ValueError: if the shapes do not fit, n < 1, or a prompt has no rewards.

    Source: the comparison of arXiv 2502.12118, with a perfect verifier.

    >>> verification_gap(np.array([[0.0, 1.0]]), 2)
    {'verified': array([0.75]), 'cloned': array([0.5]), 'gap': array([0.25])}
    """
    values, here, count = _rows(rewards, mask, least=1)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    ordered = np.sort(np.where(here, values, np.inf), 1)
    place = np.minimum(np.arange(values.shape[1] + 1), count[:, None]) / count[:, None]
    chances = np.diff(place**n, axis=1)
    verified = np.where(chances > 0, chances * np.where(np.isinf(ordered), 0.0, ordered), 0.0).sum(1)
    cloned = values.sum(1) / count
    return {"verified": verified, "cloned": cloned, "gap": verified - cloned}


def planted_rewards(horizon: int, prompts: int, traces: int, *, seed: int = 0) -> Float[Array, "x n"]:
    """Bi-level rewards of a planted task: the right answer comes first at a step uniform on 0 … H.

    The known case to hold a verifier against: cloning is worth H/2, the best of n about H·n/(n + 1), so the one falls
    short by an amount that grows with H and the other by H/(n + 1).

    Raises:
        ValueError: if the horizon is negative.

    Source: a task with the properties that arXiv 2502.12118 asks for (σ of the order of H, c(ε) constant).

    >>> planted_rewards(4, 1, 5).shape
    (1, 5)
    """
    if horizon < 0:
        raise ValueError(f"horizon must not be negative, got {horizon}")
    first = np.random.default_rng(seed).integers(0, horizon + 1, size=(prompts, traces))
    return bilevel_reward(first, horizon)


def _rows(rewards: Array, mask: Array | None, *, least: int) -> tuple[Array, Array, Array]:
    """The rewards, 0 where there are none; where they are; and how many each prompt has."""
    rewards = np.asarray(rewards, float)
    here = np.ones(rewards.shape, bool) if mask is None else np.asarray(mask, bool)
    if rewards.ndim != 2 or here.shape != rewards.shape:
        raise ValueError(f"rewards and mask must be (prompts, traces), got {rewards.shape} and {here.shape}")
    count = here.sum(1)
    if (count < least).any():
        row = int(np.argmax(count < least))
        raise ValueError(f"prompt {row} has {count[row]} rewards, and {least} are needed: leave it out")
    return np.where(here, rewards, 0.0), here, count
