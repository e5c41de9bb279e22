"""Learning from tokens that the policy did not write itself: another sampler's, a demonstration's."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.objectives.aggregate import Aggregate, denominator as denominator_of
from guerdon.objectives.clip import Rule, none
from guerdon.objectives.policy import policy_gradient
from guerdon.objectives.ratio import Ratio


def truncated_importance(
    logp: Float[Tensor, "n t"],
    sampler_logp: Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    cap: float = 5.0,
) -> Float[Tensor, "n t"]:
    r"""The weight min(π/μ, cap) of tokens that a sampler μ drew and the trainer holds for drawn by π.

    An inference engine's probabilities differ from the trainer's in the last digits, sometimes in more; without the
    weight the gradient is that of another policy. Pass it as `off_policy` of `policy_gradient`.

    Args:
        logp: log-probabilities under the policy as the trainer computes them; no gradient passes through.
        sampler_logp: as the sampler reported them.
        mask: True at the tokens written by the sampler; the weight is 1 elsewhere.
        cap: the largest weight.

    Returns:
        Weights in [0, cap], 1 where masked, without gradient.

    Raises:
        ValueError: if the shapes differ.

    Source: truncated importance sampling, Ionides (2008); cap 5: G-OPD (arXiv 2602.12125), code.

    >>> logp, sampler_logp = torch.tensor([[[0.4, 0.9]], [[0.5, 0.1]]]).log()
    >>> truncated_importance(logp, sampler_logp, logp < 0)
    tensor([[0.8000, 5.0000]])
    """
    if not logp.shape == sampler_logp.shape == mask.shape:
        shapes = [tuple(x.shape) for x in (logp, sampler_logp, mask)]
        raise ValueError(f"logp, sampler_logp and mask must have one shape, got {shapes}")
    wide = torch.promote_types(logp.dtype, torch.float32)
    difference = torch.where(mask, logp.detach().to(wide) - sampler_logp.detach().to(wide), 0.0)
    return difference.clamp(max=math.log(cap)).exp()


def explorative(
    advantages: Float[Tensor, "n"] | Float[Tensor, "n t"],
    logp: Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    exponent: float = 0.5,
) -> Float[Tensor, "n t"]:
    r"""Advantages that fade where the policy is sure already: A·(1 − π)^exponent.

    A demonstration is worth learning from where the policy would not have gone by itself; its other tokens would
    only sharpen what is sharp.

    Args:
        advantages: one per row or per token.
        logp: log-probabilities of the tokens under the policy; no gradient passes through.
        mask: True where there is a token; the result is 0 elsewhere.
        exponent: 0 leaves the advantages as they are.

    Returns:
        Advantages per token, in the unit given.

    Raises:
        ValueError: if the shapes do not fit, or exponent < 0.

    Source: exploration-based advantage, RL-PLUS (arXiv 2508.00222, §3.3).

    >>> explorative(torch.tensor([2.0]), torch.tensor([[0.75, 1.0]]).log(), torch.tensor([[True, True]]))
    tensor([[1., 0.]])
    """
    if logp.shape != mask.shape or advantages.shape not in (logp.shape, logp.shape[:1]):
        shapes = [tuple(x.shape) for x in (advantages, logp, mask)]
        raise ValueError(f"logp and mask (n, t) and advantages (n,) or (n, t) do not fit: {shapes}")
    if exponent < 0:
        raise ValueError(f"exponent must not be negative, got {exponent}")
    wide = torch.promote_types(logp.dtype, torch.float32)
    # 1 − eˣ by expm1: exact where π is nearly 1. A log-probability above 0 by rounding counts as 0.
    rest = torch.expm1(torch.where(mask, logp.detach().to(wide), 0.0).clamp(max=0.0)).abs()
    whole = (advantages if advantages.ndim == 2 else advantages[:, None]).detach().to(wide)
    return torch.where(mask, whole * rest**exponent, 0.0)


def hybrid_policy_gradient(
    logp: Float[Tensor, "n t"],
    old_logp: Float[Tensor, "n t"],
    advantages: Float[Tensor, "n"] | Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    external: Bool[Tensor, "n t"],
    ratio: Ratio = "token",
    clip: Rule = none,
    external_ratio: Ratio = "mixture",
    external_clip: Rule = none,
    exponent: float = 0.5,
    aggregate: Aggregate = "constant",
    length: int | None = None,
    kl: Float[Tensor, "n t"] | None = None,
    denominator: float | Float[Tensor, "*n"] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""The policy gradient on the policy's own tokens, plus one on external tokens with their own ratio.

        loss = policy_gradient(own tokens, A) + policy_gradient(external tokens, A·(1 − π)^exponent)

    Both divided by one denominator, so a token weighs the same whoever wrote it; without external tokens this *is*
    `policy_gradient`.

    Args:
        logp, old_logp, advantages, mask: as for `policy_gradient`; `old_logp` is that of the policy before the update
            for external tokens too, or their writer's where that is known and external_ratio is "token".
        external: True at the tokens that another than the policy wrote.
        ratio, clip: of the policy's own tokens.
        external_ratio: how external tokens are weighed; see `importance_ratio`.
        external_clip: the clip rule of external tokens; the ratio "mixture" is bounded by itself.
        exponent: of the exploration-based advantage; see `explorative`.
        aggregate: how tokens and rows are weighed; "constant" is a fixed divisor.
        length: the constant of aggregate "constant", when `denominator` is not given.
        kl: penalty per token, on all tokens, already times its coefficient.
        denominator: D of the whole batch, where this is a part of it.

    Returns:
        The loss, and the sums of `policy_gradient` over all tokens, with "external" (their number) and
        "external_ratio" (the sum of their ratios) beside them.

    Raises:
        ValueError: as `policy_gradient`, or if `external` does not fit.

    Source: RL-PLUS (arXiv 2508.00222), with ratio, exponent and divisor of its code.

    >>> logp, old = torch.tensor([[0.25]]).log(), torch.tensor([[0.2]]).log()
    >>> here = torch.ones(1, 1, dtype=bool)
    >>> loss, _ = hybrid_policy_gradient(logp, old, torch.tensor([1.0]), here, external=here, length=1)
    >>> round(loss.item(), 4)
    -0.5413
    """
    if external.shape != mask.shape:
        raise ValueError(f"external must be {tuple(mask.shape)} like mask, got {tuple(external.shape)}")
    if denominator is None:
        denominator = denominator_of(mask, aggregate, length=length)
    own_loss, own = policy_gradient(
        logp, old_logp, advantages, mask & ~external, ratio=ratio, clip=clip, kl=kl, denominator=denominator
    )
    outside = mask & external
    external_loss, others = policy_gradient(
        logp,
        old_logp,
        explorative(advantages, logp, outside, exponent=exponent),
        outside,
        ratio=external_ratio,
        clip=external_clip,
        kl=kl,
        denominator=denominator,
    )
    sums = {name: value + others[name] for name, value in own.items()}
    return own_loss + external_loss, sums | {"external": others["tokens"], "external_ratio": others["ratio"]}
