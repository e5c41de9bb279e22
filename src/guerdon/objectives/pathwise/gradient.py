"""The reward of samples as the loss of the policy that made them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.core.errors import NotDifferentiable
from guerdon.core.scores import Scores
from guerdon.objectives.denoising.chain import Chain
from guerdon.objectives.denoising.chains import Condition, Policy
from guerdon.objectives.pathwise.chains import denoise, one_step
from guerdon.objectives.pathwise.rewards import SampleReward, check_differentiable, values_of


def pathwise_gradient(
    policy: Policy,
    noise: Float[Tensor, "n *d"],
    chain: Chain,
    reward: SampleReward,
    *,
    graph_from: int = 0,
    checkpoint: bool = True,
    estimate_at: int | None = None,
    condition: Condition | None = None,
    generator: torch.Generator | None = None,
    draws: Float[Tensor, "n t *d"] | None = None,
    target: float | None = None,
    scale: float = 1.0,
    weight: Float[Tensor, "n"] | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Make samples, score them, and send the reward's gradient back into the policy.

        loss = reward_loss(reward(denoise(policy, noise, chain)))

    Where the reward is differentiable this needs far fewer samples than a policy gradient, which knows of a sample only
    how good it was and not what would make it better. It also finds a reward's blind spots as much faster: keep the
    policy near its origin (LoRA, `parameter_drift`) and watch what is not rewarded.

    Args:
        policy, noise, chain, graph_from, checkpoint, condition, generator, draws: as for `denoise`.
        reward: of clean samples; a decoder is part of it. See `balanced`, `guidance`, `spsa`, `segmental`.
        estimate_at: score the policy's own clean estimate at this state of the chain instead of its end, and keep the
            graph of that estimate alone: 0 is the noise, T − 1 the last step. With random ones the gradient is short
            and yet reaches every level.
        target, scale, weight, denominator: as for `reward_loss`.

    Returns:
        The loss, and the sums of `reward_loss`.

    Raises:
        NotDifferentiable: before a sample is made, if the reward has no gradient (see `check_differentiable`).
        ValueError: as `denoise`, or for an estimate_at that is not a step of the chain.

    Source: AlignProp (arXiv 2310.03739); estimate_at: R0+ (2503.13070).

    >>> shift = torch.tensor([1.0], requires_grad=True)
    >>> policy, chain = lambda x, time: shift.expand_as(x), Chain(torch.tensor([1.0, 0.5, 0.0]), "ode")
    >>> loss, sums = pathwise_gradient(policy, torch.zeros(2, 1), chain, lambda x: x[:, 0])
    >>> loss.backward()
    >>> loss.item(), shift.grad, sums["reward"]
    (1.0, tensor([1.]), tensor(-2.))
    """
    if estimate_at is not None and not 0 <= estimate_at < len(chain):
        raise ValueError(f"estimate_at is one of the {len(chain)} steps of the chain, from 0, got {estimate_at}")
    check_differentiable(reward, noise)
    if estimate_at is None:
        clean = denoise(
            policy,
            noise,
            chain,
            graph_from=graph_from,
            checkpoint=checkpoint,
            condition=condition,
            generator=generator,
            draws=draws,
        )
    else:
        with torch.no_grad():
            before = None if draws is None else draws[:, :estimate_at]
            x = denoise(policy, noise, chain[:estimate_at], condition=condition, generator=generator, draws=before)
        told = None if chain.times is None else chain.times[estimate_at].to(x.device).expand(len(x))
        level = chain.levels[estimate_at].to(x).expand(len(x))
        clean = one_step(policy, x, level, kind=chain.kind, time=told, condition=condition)
    return reward_loss(reward(clean), target=target, scale=scale, weight=weight, denominator=denominator)


def reward_loss(
    rewards: Float[Tensor, "n"] | Scores,
    *,
    target: float | None = None,
    scale: float = 1.0,
    weight: Float[Tensor, "n"] | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Rewards with a gradient as a loss: −scale · Σ w r / D, or scale · Σ w |r − target| / D.

    Losses of parts of a batch add up to that of the whole with its `denominator` given.

    Args:
        rewards: of samples; where they abstain, a sample has no weight.
        target: a reward that is good enough; None: the more the better.
        scale: of the loss.
        weight: w, per sample, without gradient: exp(−10 · its denoising error) makes the reward speak less for samples
            that the policy cannot denoise any more. None: 1.
        denominator: D; None: the number of samples with a reward.

    Returns:
        The loss, and sums, detached: "samples" (with a reward) and "reward".

    Raises:
        NotDifferentiable: if the rewards have no gradient where one is being recorded.
        ValueError: if the shapes differ, or a reward is not finite.

    Source: AlignProp (arXiv 2310.03739; 0.01 is its scale, 10 its target for aesthetics); weight: the data-alignment
    coefficient of InstructVideo's code (2312.12490).

    >>> reward_loss(torch.tensor([1.0, 3.0], requires_grad=True), target=2.5)[0].item()
    1.0
    """
    values, there = values_of(rewards)
    if weight is not None and weight.shape != values.shape:
        raise ValueError(f"weight must be {tuple(values.shape)} like the rewards, got {tuple(weight.shape)}")
    if torch.is_grad_enabled() and not values.requires_grad:
        raise NotDifferentiable("the rewards have no gradient: the path from the samples to them is broken")
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    counted = torch.ones_like(values, dtype=torch.bool) if there is None else there
    values = torch.where(counted, values, 0.0)
    if not bool(torch.isfinite(values).all()):
        row = int((~torch.isfinite(values)).nonzero()[0])
        raise ValueError(
            f"the reward of sample {row} is {float(values[row].detach())}: a reward is finite or an abstention"
        )
    each = -values if target is None else (values - target).abs()
    if weight is not None:
        each = each * weight.detach().to(each)
    number = counted.sum().to(values)
    loss = scale * torch.where(counted, each, 0.0).sum()
    loss = loss / (number.clamp(min=1) if denominator is None else denominator)
    return loss, {"samples": number, "reward": values.detach().sum()}


def parameter_drift(parameters: Iterable[Tensor], origin: Iterable[Tensor]) -> Float[Tensor, ""]:
    r"""‖θ − θ₀‖²: how far the weights have gone, to be multiplied by its coefficient λ and added to a loss.

    A linear reward has no best θ; with λ‖θ − θ₀‖² it is θ₀ + a/(2λ). LoRA of a small rank bounds the drift by itself.

    Args:
        parameters: θ, those that are trained.
        origin: θ₀, in the same order; no gradient passes through.

    Raises:
        ValueError: if they are not as many, or of other shapes.

    Source: the weight-space term of R0 (arXiv 2503.13070).

    >>> parameter_drift([torch.tensor([1.0, 2.0])], [torch.tensor([0.0, 0.0])])
    tensor(5.)
    """
    now, before = list(parameters), list(origin)
    if len(now) != len(before) or any(x.shape != y.shape for x, y in zip(now, before, strict=False)):
        raise ValueError(f"{len(now)} parameters and {len(before)} of their origin do not fit, one by one")
    found = [(x.float() - y.detach().to(x.device).float()).square().sum() for x, y in zip(now, before, strict=True)]
    return torch.stack(found).sum() if found else torch.zeros(())
