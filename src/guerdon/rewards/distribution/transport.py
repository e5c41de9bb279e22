"""Entropic transport between tokens: which part of a text is which part of a picture or film."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def sinkhorn(
    cost: Float[Tensor, "*h n m"], *, eps: float = 0.05, mass: float = 0.9, steps: int = 200
) -> Float[Tensor, "*h n m"]:
    r"""The plan that moves equal weights on rows to equal weights on columns, all of them or most of them.

        log K = −C/ε        log u ← τ (log 1/n − log K v)        log v ← τ (log 1/m − log Kᵀu)        P = u K v

    with τ = ρ/(ρ + ε) of a penalty ρ on what is not moved. With ρ = ε·mass/(1 − mass) τ is `mass`: 1 moves everything,
    less leaves out what is dear to move. It is a relaxation and no constraint: the plan's total is only near `mass`.

    Args:
        cost: C ≥ 0.
        eps: ε > 0, in the unit of the cost; small plans are sharp and need more steps.
        mass: τ in (0, 1]; from .999 on it is 1.
        steps: of the iteration, in logarithms: no ε underflows.

    Returns:
        P ≥ 0, with gradients to the cost.

    Raises:
        ValueError: if there is no row or column, a cost is not finite, or an option is out of range.

    >>> sinkhorn(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), mass=1.0).round(decimals=6)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])

    Source: Chizat et al. (arXiv 1607.05816), as the partial transport of PISCES (2602.01624).
    """
    if cost.ndim < 2 or not min(cost.shape[-2:]) or not bool(torch.isfinite(cost).all()):
        raise ValueError(f"costs must be (n, m), neither of them 0, and finite, got {tuple(cost.shape)}")
    if not (eps > 0 and 0 < mass <= 1 and steps >= 1):
        raise ValueError(f"eps and steps must be positive and mass in (0, 1], got {eps}, {steps} and {mass}")
    power = 1.0 if mass >= 0.999 else mass
    n, m = cost.shape[-2:]
    log_k = -cost.to(torch.promote_types(cost.dtype, torch.float32)) / eps
    rows, columns = log_k.new_zeros(log_k.shape[:-1]), log_k.new_zeros((*log_k.shape[:-2], m))
    for _ in range(steps):
        rows = power * (-math.log(n) - torch.logsumexp(log_k + columns[..., None, :], -1))
        columns = power * (-math.log(m) - torch.logsumexp(log_k + rows[..., None], -2))
    return torch.exp(log_k + rows[..., None] + columns[..., None, :])


def token_cost(
    texts: Float[Tensor, "*h n d"],
    patches: Float[Tensor, "*h m d"],
    attention: Float[Tensor, "*h n m"],
    times: Float[Tensor, "m"],
    places: Float[Tensor, "m k"],
    *,
    temporal: float = 0.2,
    spatial: float = 0.2,
) -> Float[Tensor, "*h n m"]:
    r"""What it costs that word i is patch j: unlike in meaning, or far from where the word looks.

        C = [1 − cos(yᵢ, xⱼ)] + γ [(τᵢ − tⱼ)²] + η [‖πᵢ − sⱼ‖²]        τᵢ = Σ A t / Σ A        πᵢ = Σ A s / Σ A

    each bracket brought to [0, 1] by its range over the pairs of a head, and then their sum. A term that is the same
    for all pairs says nothing: 0.

    Args:
        texts: y, a vector for each word; none of them zero.
        patches: x, likewise.
        attention: A ≥ 0, of each word over the patches, of as many heads as lead.
        times: t of each patch; of frames, counted or in seconds.
        places: s of each patch, in its frame.
        temporal: γ ≥ 0.
        spatial: η ≥ 0.

    Returns:
        In [0, 1]; a constant where the vectors are.

    Raises:
        ValueError: if the shapes do not fit, or a weight or an attention is negative.

    Source: PISCES (arXiv 2602.01624).
    """
    n, m = attention.shape[-2:]
    if texts.shape[-2] != n or patches.shape[-2] != m or times.shape != (m,) or places.shape[:1] != (m,):
        shapes = [tuple(x.shape) for x in (texts, patches, attention, times, places)]
        raise ValueError(f"texts (n, d), patches (m, d), attention (n, m), times (m,), places (m, k), got {shapes}")
    if min(temporal, spatial) < 0 or bool((attention < 0).any()):
        raise ValueError("temporal, spatial and attention must not be negative")
    wide = torch.promote_types(attention.dtype, torch.float32)
    look = attention.to(wide)
    look = look / look.sum(-1, keepdim=True).clamp(min=torch.finfo(wide).tiny)
    times, places = times.to(wide), places.to(wide)
    meaning = 1 - torch.nn.functional.normalize(texts, dim=-1) @ torch.nn.functional.normalize(patches, dim=-1).mT
    later = ((look @ times)[..., None] - times) ** 2
    aside = ((look @ places)[..., :, None, :] - places) ** 2
    return _to_unit(_to_unit(meaning) + temporal * _to_unit(later) + spatial * _to_unit(aside.sum(-1)))


def transported_attention(
    attention: Float[Tensor, "*h n m"], plan: Float[Tensor, "*h n m"], *, floor: float = 1e-8
) -> Float[Tensor, "*h n m"]:
    """Attention where the transport agrees: Ã ∝ (A + δ)(P + δ), each word's summing to 1.

    Args:
        attention: A ≥ 0; gradients pass.
        plan: P; a constant.
        floor: δ > 0.

    Raises:
        ValueError: if the shapes differ or δ ≤ 0.

    >>> transported_attention(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.3, 0.1]]), floor=1e-9)
    tensor([[0.7500, 0.2500]])

    Source: PISCES (arXiv 2602.01624).
    """
    if attention.shape != plan.shape or not floor > 0:
        raise ValueError(f"attention and plan need one shape and floor > 0: {attention.shape}, {plan.shape}, {floor}")
    return torch.softmax((attention + floor).log() + (plan.detach() + floor).log(), -1)


def transported_match(
    texts: Float[Tensor, "*h n d"],
    patches: Float[Tensor, "*h m d"],
    attention: Float[Tensor, "*h n m"],
    times: Float[Tensor, "m"],
    places: Float[Tensor, "m k"],
    *,
    matching: Callable[[Float[Tensor, "*h n d"]], Float[Tensor, "2"]],
    temporal: float = 0.2,
    spatial: float = 0.2,
    eps: float = 0.05,
    mass: float = 0.9,
) -> Float[Tensor, ""]:
    """Whether a film shows what its text says: a matching head, given what each word looks at once transport agrees.

        R = softmax(matching(Ã x))₁

    Args:
        texts, patches, attention, times, places, temporal, spatial: see `token_cost`.
        matching: from a vector for each word to two logits, the second for 'they match': of a model for text and
            video, whose cross-attention this is.
        eps: of `sinkhorn`.
        mass: of `sinkhorn`: words that are nowhere to be seen are left out.

    Returns:
        In [0, 1], with gradients through the patches and the attention and none through the plan.

    Raises:
        ValueError: as `token_cost` and `sinkhorn`.

    Source: the semantic reward of PISCES (arXiv 2602.01624).
    """
    with torch.no_grad():
        cost = token_cost(texts, patches, attention, times, places, temporal=temporal, spatial=spatial)
        plan = sinkhorn(cost, eps=eps, mass=mass)
    seen = transported_attention(attention, plan)
    return matching(seen @ patches).softmax(-1)[..., 1]


def _to_unit(table: Tensor) -> Tensor:
    low, high = table.amin((-1, -2), keepdim=True), table.amax((-1, -2), keepdim=True)
    return (table - low) / torch.where(high > low, high - low, 1.0)
