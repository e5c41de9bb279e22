"""Losses over pairs of trajectories of one prompt: preferred step by step, or by how far their rewards are apart."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.objectives.preference import pair_loss


def step_preference(
    logp: Float[Tensor, "n t"],
    ref_logp: Float[Tensor, "n t"],
    rewards: Float[Tensor, "n"],
    groups: Int[Tensor, "n"],
    mask: Bool[Tensor, "n t"],
    *,
    beta: float = 0.1,
    clip: float | None = 0.1,
    valid: Bool[Tensor, "n"] | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Every step of the preferred trajectory is preferred to the step of the other at the same place.

        loss = mean over pairs and steps of −log σ(β (c_w − c_l))

        c = clamp(logp − ref_logp, log(1 − ε), log(1 + ε))

    A pair is any two rows of a group of which the first has the larger reward; equals are no pair. With log-ratios
    clamped, a pair stops to pull once both sides have moved by ε: the least that a step can reach is
    −log σ(β log((1 + ε)/(1 − ε))).

    Args:
        logp: of the steps under the policy; gradients pass.
        ref_logp: under the reference; no gradient passes.
        rewards: numbers that order the rows of a group: a metric, or 1 for the preferred of two and 0 for the other.
        groups: rows with equal numbers are compared.
        mask: True at the steps that count; a pair has those that both rows have. One step at a time is one update at
            a time, as in the source.
        beta: β > 0.
        clip: ε in (0, 1); None: log-ratios as they are.
        valid: False where the reward abstained: such a row is in no pair.
        denominator: the number of pairs times steps of the whole batch, where this is a part of it.

    Returns:
        The loss, 0 without pairs, and sums, detached: "terms" (pairs times steps), "right" (those in their order) and
        "held" (those whose two log-ratios are both at a bound).

    Raises:
        ValueError: if the shapes do not fit, or an option is out of range.

    Source: D3PO (arXiv 2311.13231; yk7333/d3po), β = ε = 0.1.

    >>> logp, steps = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    >>> loss, _ = step_preference(logp, logp, torch.tensor([1.0, 0.0]), torch.tensor([0, 0]), steps)
    >>> round(loss.item(), 5)  # log 2
    0.69315
    """
    ratios = _log_ratios(logp, ref_logp, rewards, groups, mask, valid)
    if not beta > 0 or (clip is not None and not 0 < clip < 1):
        raise ValueError(f"beta must be positive and clip in (0, 1), got {beta} and {clip}")
    better, worse = _pairs(groups, valid)
    swapped = rewards[better] < rewards[worse]
    better, worse = torch.where(swapped, worse, better), torch.where(swapped, better, worse)
    differ = rewards[better] > rewards[worse]
    better, worse = better[differ], worse[differ]
    low, high = (-math.inf, math.inf) if clip is None else (math.log1p(-clip), math.log1p(clip))
    held = ((ratios <= low) | (ratios >= high)).detach()
    ratios = ratios.clamp(low, high)
    both = mask[better] & mask[worse]
    loss, sums = pair_loss(beta * (ratios[better] - ratios[worse]), mask=both, denominator=denominator)
    stuck = (both & held[better] & held[worse]).sum()
    return loss, {"terms": sums["pairs"], "right": sums["right"], "held": stuck.to(loss)}


def reward_difference(
    logp: Float[Tensor, "n t"],
    ref_logp: Float[Tensor, "n t"],
    rewards: Float[Tensor, "n"],
    groups: Int[Tensor, "n"],
    mask: Bool[Tensor, "n t"],
    *,
    beta: float = 1.0,
    old_logp: Float[Tensor, "n t"] | None = None,
    clip: float | None = None,
    valid: Bool[Tensor, "n"] | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Regress the difference of summed log-ratios of two trajectories on the difference of their rewards.

        loss = mean over pairs of max(ℓ, ℓ_clip)        ℓ = (Δ Σₜ dₜ − Δr / β)²        d = logp − ref_logp

    Δ is between the two rows of a pair. The loss is 0 exactly at the optimum of KL-regularised RL, p ∝ p_ref exp(r/β)
    over trajectories. Under `clip`, ℓ_clip is ℓ with every dₜ held to within ε of where the batch's own policy had
    it: a pair that would only improve by leaving that range has no gradient. Without it, and with one group of n rows,
    the loss is 2n/(n − 1) times the variance form of `gflownet.reward_balance`. A regression of η Δ Σ d on Δr (REBEL)
    is η² times this with β = η and ref_logp of the policy that sampled.

    Args:
        logp: of the steps under the policy; gradients pass.
        ref_logp: under the reference, or under the policy that sampled; no gradient passes.
        rewards: r, or advantages: only differences within a group count.
        groups: rows with equal numbers are compared, in all pairs.
        mask: True at the steps that were chosen.
        beta: β > 0, in the unit of the rewards per nat.
        old_logp: under the policy that sampled; needed by `clip`.
        clip: ε > 0 in nats per step; None: no proximal bound.
        valid: False where the reward abstained: such a row is in no pair.
        denominator: the number of pairs of the whole batch, where this is a part of it.

    Returns:
        The loss, 0 without pairs, and sums, detached: "terms" (pairs) and "held" (those where ℓ_clip was larger).

    Raises:
        ValueError: if the shapes do not fit, an option is out of range, or `clip` has no old_logp.

    Source: PRDP (arXiv 2402.08714, no published code); REBEL (2404.16767) as in RLCM (2404.03673), η = 1.

    >>> logp, there = torch.tensor([[1.0], [0.0]]), torch.ones(2, 1, dtype=torch.bool)
    >>> reward_difference(logp, 0 * logp, torch.tensor([3.0, 0.0]), torch.tensor([0, 0]), there)[0]
    tensor(4.)
    """
    ratios = _log_ratios(logp, ref_logp, rewards, groups, mask, valid)
    if not beta > 0 or (clip is not None and not clip > 0):
        raise ValueError(f"beta and clip must be positive, got {beta} and {clip}")
    first, second = _pairs(groups, valid)
    target = (rewards[first] - rewards[second]).detach().to(ratios.dtype) / beta

    def missed(table: Tensor) -> Tensor:
        total = table.sum(1)
        return (total[first] - total[second] - target) ** 2

    terms = missed(ratios)
    held = torch.zeros_like(terms, dtype=torch.bool)
    if clip is not None:
        if old_logp is None:
            raise ValueError("clip holds log-ratios near those of the policy that sampled: pass old_logp")
        old = _log_ratios(old_logp, ref_logp, rewards, groups, mask, valid).detach()
        clipped = missed(torch.minimum(torch.maximum(ratios, old - clip), old + clip))
        held = clipped > terms
        terms = torch.maximum(terms, clipped)
    count = torch.as_tensor(float(len(first)), dtype=terms.dtype, device=terms.device)
    loss = terms.sum() / (count.clamp(min=1) if denominator is None else denominator)
    return loss, {"terms": count, "held": held.sum().to(terms.dtype)}


def _pairs(groups: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Row numbers of all pairs within groups, the smaller first."""
    same = groups[:, None] == groups
    if valid is not None:
        same = same & valid[:, None] & valid
    first, second = same.triu(1).nonzero(as_tuple=True)
    return first, second


def _log_ratios(
    logp: Tensor, ref_logp: Tensor, rewards: Tensor, groups: Tensor, mask: Tensor, valid: Tensor | None
) -> Tensor:
    if not logp.shape == ref_logp.shape == mask.shape or logp.ndim != 2:
        shapes = [tuple(x.shape) for x in (logp, ref_logp, mask)]
        raise ValueError(f"logp, ref_logp and mask must have one shape (n, t), got {shapes}")
    for name, value in {"rewards": rewards, "groups": groups, "valid": valid}.items():
        if value is not None and value.shape != logp.shape[:1]:
            raise ValueError(f"{name} must be ({len(logp)},), one per row, got {tuple(value.shape)}")
    wide = torch.promote_types(logp.dtype, torch.float32)
    now, then = (torch.where(mask, x.to(wide), 0.0) for x in (logp, ref_logp.detach()))
    return now - then
