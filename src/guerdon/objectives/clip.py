r"""Clip rules: how far the policy may move on the evidence of one batch.

A rule maps (ratio, logp, advantages) to a `Surrogate`, the quantity to be maximised. Options are set with
`functools.partial`, which keeps the rule data: `partial(clip.ppo, high=0.28)` is written `{part: objectives.clip.ppo,
high: 0.28}` in a recipe. r is the ratio π/π_old (one per token, or one per row), A the advantage.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Surrogate(NamedTuple):
    """What a rule gives back.

    Args:
        value: to be maximised; its gradient is the update.
        low: True where a lower bound on the ratio was in force.
        high: True where an upper bound was.
    """

    value: Float[Tensor, "n t"]
    low: Bool[Tensor, "n t"]
    high: Bool[Tensor, "n t"]


Rule = Callable[[Tensor, Tensor, Tensor], Surrogate]


def none(
    ratio: Float[Tensor, "n _"],
    logp: Float[Tensor, "n t"],
    advantages: Float[Tensor, "n t"],
) -> Surrogate:
    """The importance-weighted advantage itself, r·A: unbiased, and unbounded.

    Source: conservative policy iteration's surrogate, as in PPO (arXiv 1707.06347, eq. 6).

    >>> none(torch.tensor([[1.5]]), torch.tensor([[-1.0]]), torch.tensor([[2.0]])).value
    tensor([[3.]])
    """
    value = ratio * advantages
    never = torch.zeros_like(value, dtype=torch.bool)
    return Surrogate(value, never, never)


def reinforce(
    ratio: Float[Tensor, "n _"],
    logp: Float[Tensor, "n t"],
    advantages: Float[Tensor, "n t"],
) -> Surrogate:
    """logp·A, whose gradient is the policy gradient when the tokens are the policy's own; no ratio is looked at.

    Source: REINFORCE, Williams (1992), "Simple statistical gradient-following algorithms".

    >>> reinforce(torch.tensor([[9.0]]), torch.tensor([[-1.0]]), torch.tensor([[2.0]])).value
    tensor([[-2.]])
    """
    value = logp * advantages
    never = torch.zeros_like(value, dtype=torch.bool)
    return Surrogate(value, never, never)


def ppo(
    ratio: Float[Tensor, "n _"],
    logp: Float[Tensor, "n t"],
    advantages: Float[Tensor, "n t"],
    *,
    low: float = 0.2,
    high: float = 0.2,
) -> Surrogate:
    """min(r·A, clip(r, 1 − low, 1 + high)·A): no reward for moving the ratio further than the bound.

    Args:
        ratio, logp, advantages: as for every rule.
        low: distance of the lower bound from 1, in [0, 1]; in force for A < 0.
        high: distance of the upper bound from 1; in force for A > 0. More than `low` lets unlikely tokens
            grow ("clip-higher").

    Source: PPO (arXiv 1707.06347, eq. 7); two distances: DAPO (2503.14476, §3.1), with 0.2 and 0.28.

    >>> ppo(torch.tensor([[1.5, 1.5]]), torch.zeros(1, 2), torch.tensor([[1.0, -1.0]])).value
    tensor([[ 1.2000, -1.5000]])
    """
    value = torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
    return Surrogate(value, (ratio < 1 - low) & (advantages < 0), (ratio > 1 + high) & (advantages > 0))


def truncated(
    ratio: Float[Tensor, "n _"],
    logp: Float[Tensor, "n t"],
    advantages: Float[Tensor, "n t"],
    *,
    low: float = 0.0,
    high: float = math.inf,
) -> Surrogate:
    """clip(r, low, high)·A, whichever the sign of A: outside the bounds a token has no gradient at all.

    Without the minimum of `ppo` there is no pulling back of a token that has moved too far in the wrong direction.

    Args:
        ratio, logp, advantages: as for every rule.
        low: the smallest ratio; the ratio itself, not its distance from 1.
        high: the largest.

    Source: bounds on the ratio of external tokens, RL-PLUS (arXiv 2508.00222), code.

    >>> truncated(torch.tensor([[1.5, 1.5]]), torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]), high=1.2).value
    tensor([[ 1.2000, -1.2000]])
    """
    value = ratio.clamp(low, high) * advantages
    return Surrogate(value, (ratio < low).expand_as(value), (ratio > high).expand_as(value))


def guarded(
    ratio: Float[Tensor, "n _"],
    logp: Float[Tensor, "n t"],
    advantages: Float[Tensor, "n t"],
    *,
    low: float = 0.1,
    high: float = 0.1,
    limit: float = 10.0,
) -> Surrogate:
    """`ppo`, except that a row in which any ratio exceeds `limit` is held to the clipped branch alone.

    `ppo` leaves r·A unbounded for A < 0 and r large; one runaway token then outweighs the batch. Here the whole row
    has no gradient at its tokens outside the bounds.

    Args:
        ratio, logp, advantages: as for every rule; a row is not to be cut over t, which would hide its largest ratio.
        low: distance of the lower bound from 1, in [0, 1].
        high: distance of the upper bound from 1.
        limit: the largest ratio at which a row is still trusted; at least 1 + high.

    Raises:
        ValueError: if limit < 1 + high.

    Source: VL-DAC (arXiv 2508.04280), code.

    >>> guarded(torch.tensor([[1.0, 5.0], [1.0, 50.0]]), torch.zeros(2, 2), -torch.ones(2, 2)).value
    tensor([[-1.0000, -5.0000],
            [-1.0000, -1.1000]])
    """
    if limit < 1 + high:
        raise ValueError(f"limit is a ratio beyond the clip range: at least 1 + high = {1 + high}, not {limit}")
    runaway = (ratio > limit).any(1, keepdim=True)
    free = ppo(ratio, logp, advantages, low=low, high=high)
    held = truncated(ratio, logp, advantages, low=1 - low, high=1 + high)
    return Surrogate(*(torch.where(runaway, closed, open_) for closed, open_ in zip(held, free, strict=True)))


def dual(
    ratio: Float[Tensor, "n _"],
    logp: Float[Tensor, "n t"],
    advantages: Float[Tensor, "n t"],
    *,
    low: float = 0.2,
    high: float = 0.2,
    delta: float = 3.0,
) -> Surrogate:
    """`ppo` that also bounds the ratio for A < 0: max(ppo, delta·A) there.

    A bad token that has become much *more* likely would otherwise push without bound. The same as clipping r
    at delta before `ppo`: for A > 0 the tighter bound 1 + high is already in force.

    Args:
        ratio, logp, advantages: as for every rule.
        low: distance of the lower bound from 1, in [0, 1].
        high: distance of the upper bound from 1 for A > 0.
        delta: the ratio's upper bound for A < 0; at least 1 + high.

    Raises:
        ValueError: if delta < 1 + high, where the two readings above differ.

    Source: dual-clip PPO (arXiv 1912.09729, c = 3); two-sided clipping, INTELLECT-2 (2505.07291) and TRL's `delta`.

    >>> dual(torch.tensor([[8.0, 8.0]]), torch.zeros(1, 2), torch.tensor([[1.0, -1.0]])).value
    tensor([[ 1.2000, -3.0000]])
    """
    if delta < 1 + high:
        raise ValueError(f"delta bounds what `high` leaves open, so it is at least 1 + high = {1 + high}, not {delta}")
    value, below, above = ppo(ratio.clamp(max=delta), logp, advantages, low=low, high=high)
    return Surrogate(value, below, above | ((ratio > delta) & (advantages < 0)))


def cispo(
    ratio: Float[Tensor, "n _"],
    logp: Float[Tensor, "n t"],
    advantages: Float[Tensor, "n t"],
    *,
    cap: float = 5.0,
) -> Surrogate:
    """min(r, cap)·A·logp with the weight held constant: no token loses its gradient, it is only bounded.

    Args:
        ratio, logp, advantages: as for every rule.
        cap: the largest weight; the ratio itself, not its distance from 1.

    Source: CISPO, MiniMax-M1 (arXiv 2506.13585, without the lower bound that it does not use); cap: ScaleRL
    (2510.13786).

    >>> cispo(torch.tensor([[8.0]]), torch.tensor([[-1.0]]), torch.tensor([[2.0]])).value
    tensor([[-10.]])
    """
    value = ratio.clamp(max=cap).detach() * logp * advantages
    return Surrogate(value, torch.zeros_like(value, dtype=torch.bool), (ratio > cap).expand_as(value))


def soft(
    ratio: Float[Tensor, "n _"],
    logp: Float[Tensor, "n t"],
    advantages: Float[Tensor, "n t"],
    *,
    positive: float = 1.0,
    negative: float = 1.05,
) -> Surrogate:
    """4/τ·σ(τ(r − 1))·A: a gate with slope 1 at r = 1 that closes smoothly on both sides.

    Args:
        ratio, logp, advantages: as for every rule.
        positive: τ > 0 where A > 0.
        negative: τ > 0 elsewhere; larger closes sooner, since pushing a token down lifts all the others.

    Source: SAPO (arXiv 2511.20347).

    >>> soft(torch.tensor([[1.0, 9.0]]), torch.zeros(1, 2), torch.ones(1, 2)).value
    tensor([[2.0000, 3.9987]])
    """
    temperature = torch.full_like(advantages, negative).masked_fill(advantages > 0, positive)
    value = 4 / temperature * torch.sigmoid(temperature * (ratio - 1)) * advantages
    never = torch.zeros_like(value, dtype=torch.bool)
    return Surrogate(value, never, never)


def saturating(
    ratio: Float[Tensor, "n _"],
    logp: Float[Tensor, "n t"],
    advantages: Float[Tensor, "n t"],
    *,
    gamma: float = 0.1,
) -> Surrogate:
    """r/(r + γ)·A: where r is small it counts 1/γ-fold, and where it is large it hardly moves any more.

    For tokens of another hand, whose density is not known. With the ratio "probability" the weight of a token's
    gradient is γπ/(π + γ)², largest at π = γ; that of π·A is π, which learns least of what the policy does not do yet.

    Args:
        ratio, logp, advantages: as for every rule.
        gamma: γ > 0, the ratio at which half of the most is reached.

    Raises:
        ValueError: if γ is not positive.

    Source: policy shaping of LUFFY (arXiv 2504.14945), γ = 0.1; our reading of what SCOPE (2602.24110) does with the
    steps of its mender.

    >>> saturating(torch.tensor([[0.1, 0.9]]), torch.zeros(1, 2), torch.ones(1, 2)).value
    tensor([[0.5000, 0.9000]])
    """
    if not gamma > 0:
        raise ValueError(f"gamma must be positive, got {gamma}")
    value = ratio / (ratio + gamma) * advantages
    never = torch.zeros_like(value, dtype=torch.bool)
    return Surrogate(value, never, never)
