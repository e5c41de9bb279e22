"""GFlowNets that are told which outcome to reach, and become the policy of any reward without training."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def reached(
    outcome: Int[Tensor, "n"],
    target: Int[Tensor, "n"],
    *,
    floor: float = 1e-4,
) -> Float[Tensor, "n"]:
    """log R(x|y) of trajectories that were to end in y: 0 where they did, log floor where not.

    Contrastive pre-training takes both kinds: what an exploring policy reached, relabelled as its own target, and the
    attempts of the conditioned policy at that target.

    Args:
        outcome: the number of the outcome x that each trajectory ended in.
        target: the number of the outcome y it was conditioned on.
        floor: above 0; the log of 0 does not exist. Not stated by the source, which has log 0.

    Raises:
        ValueError: if the shapes differ, or floor ≤ 0.

    Source: OC-GFN (arXiv 2310.03419, §4.1).

    >>> reached(torch.tensor([2, 1]), torch.tensor([2, 2]))
    tensor([ 0.0000, -9.2103])
    """
    if outcome.shape != target.shape:
        raise ValueError(f"outcome and target must have one shape, got {tuple(outcome.shape)}, {tuple(target.shape)}")
    if not floor > 0:
        raise ValueError(f"floor must be above 0, got {floor}")
    return torch.where(outcome == target, 0.0, torch.tensor(floor, device=outcome.device).log())


def converted(
    log_flow: Float[Tensor, "*n y"],
    forward_logp: Float[Tensor, "*n y a"],
    log_reward: Float[Tensor, "y"],
) -> Float[Tensor, "*n a"]:
    r"""The policy for a new reward, from an outcome-conditioned one and without training.

        P^r(s'|s) = Σ_y r(y) F(s|y) P_F(s'|s, y) / Σ_y r(y) F(s|y)

    Args:
        log_flow: log F(s|y), for each outcome; −∞ where y cannot be reached from s.
        forward_logp: log P_F(s'|s, y), for each outcome and action.
        log_reward: log r(y); a constant added to it changes nothing.

    Returns:
        log P^r of each action; where no outcome can be reached, −∞ for every action.

    Raises:
        ValueError: if the shapes do not fit.

    Source: OC-GFN (arXiv 2310.03419, prop. 4.1).

    >>> forward = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).log()
    >>> converted(torch.zeros(2), forward, torch.tensor([1.0, 3.0]).log()).exp()
    tensor([0.2500, 0.7500])
    """
    if forward_logp.shape[:-1] != log_flow.shape or log_reward.shape != log_flow.shape[-1:]:
        shapes = [tuple(x.shape) for x in (log_flow, forward_logp, log_reward)]
        raise ValueError(f"log_flow (*n, y), forward_logp (*n, y, a) and log_reward (y,) do not fit: {shapes}")
    wide = torch.promote_types(log_flow.dtype, torch.float32)
    weight = log_reward.to(wide) + log_flow.to(wide)
    joint = (weight[..., None] + forward_logp.to(wide)).logsumexp(-2)
    total = weight.logsumexp(-1, keepdim=True)
    return torch.where(total == -torch.inf, -torch.inf, joint - torch.where(total == -torch.inf, 0.0, total))


def amortised_numerator(
    log_numerator: Float[Tensor, "*n"],
    sampler_logp: Float[Tensor, "*n"],
    log_reward: Float[Tensor, "*n"],
    log_flow: Float[Tensor, "*n"],
    forward_logp: Float[Tensor, "*n"],
) -> Float[Tensor, "*n"]:
    r"""The loss that learns the sum over outcomes of `converted`, where there are too many to sum.

        (log N(s'|s) + log Q(y|s', s) − log r(y) − log F(s|y) − log P_F(s'|s, y))²        for y drawn from Q, or any y

    At loss 0 for all y, N is the sum and Q the share of each outcome in it; the policy is N(s'|s) / Σ_{s''} N(s''|s).

    Args:
        log_numerator: log N of the edge, learned.
        sampler_logp: log Q(y|s', s), learned; see `exploring` for what to draw y from.
        log_reward: log r(y).
        log_flow, forward_logp: of the outcome-conditioned GFlowNet, which is held fixed: no gradient passes.

    Returns:
        One loss per pair of an edge and an outcome.

    Raises:
        ValueError: if the shapes differ.

    Source: OC-GFN (arXiv 2310.03419, §4.2).

    >>> one = torch.tensor([0.0])
    >>> amortised_numerator(torch.tensor([2.0]), one, one, torch.tensor([1.0]), one)
    tensor([1.])
    """
    values = (log_numerator, sampler_logp, log_reward, log_flow, forward_logp)
    if len({x.shape for x in values}) > 1:
        raise ValueError(f"all arguments must have one shape, got {[tuple(x.shape) for x in values]}")
    return (log_numerator + sampler_logp - (log_reward + log_flow + forward_logp).detach()) ** 2
