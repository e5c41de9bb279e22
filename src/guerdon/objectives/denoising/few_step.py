"""A generator of a few deterministic steps: a surrogate learns the reward from its states, and it learns from that.

What the surrogate learns by is a loss of implicit rewards: `pair_loss` of `group_margins`, over errors of denoising.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


def renoised(
    x: Float[Tensor, "n *d"],
    level: float | Float[Tensor, "n"],
    following: float | Float[Tensor, "n"],
    noise: Float[Tensor, "n *d"],
) -> tuple[Float[Tensor, "n *d"], Float[Tensor, "n *d"]]:
    r"""A state of a flow at time s, brought to a noisier time s', and the velocity there that a model is to learn.

        x' = α x + σ e        α = (1 − s')/(1 − s)        σ² = s'² − (α s)²        v = ∂x'/∂s' at fixed x and e

    The mean of v given x' is the velocity of the flow whose marginal at s is that of x. From a clean sample (s = 0)
    it is the usual x' = (1 − s') x₀ + s' e and v = e − x₀.

    Args:
        x: states at time s.
        level: s in [0, 1), one number or one per row.
        following: s' in (s, 1].
        noise: e, in the shape of x.

    Raises:
        ValueError: if the times are not in this order, or the shapes differ.

    Source: the surrogate of TDM-R1 is trained on re-noised states (arXiv 2603.07700); its velocity is ours to derive.

    >>> renoised(torch.tensor([[1.0]]), 0.0, 0.25, torch.tensor([[3.0]]))
    (tensor([[1.5000]]), tensor([[2.]]))
    """
    if noise.shape != x.shape:
        raise ValueError(f"noise {tuple(noise.shape)} must have the shape of x {tuple(x.shape)}")
    wide = torch.promote_types(x.dtype, torch.float32)
    shape = (-1, *[1] * (x.ndim - 1))
    s, to = (torch.as_tensor(y, dtype=wide, device=x.device).expand(len(x)).reshape(shape) for y in (level, following))
    if bool(((s < 0) | (to <= s) | (to > 1)).any()):
        raise ValueError("states are brought from a time in [0, 1) to a later one, at most 1")
    ratio = s / (1 - s)
    sigma = (to**2 - ((1 - to) * ratio) ** 2).sqrt()
    moved = (1 - to) / (1 - s) * x + sigma * noise
    return moved, -x / (1 - s) + (to + (1 - to) * ratio**2) / sigma * noise


def directed(
    x0: Float[Tensor, "n *d"], direction: Float[Tensor, "n *d"], *, normalize: bool = True
) -> Float[Tensor, ""]:
    r"""Regress the generator's clean samples on themselves moved in a direction: mean (x₀ − sg(x₀ + w))² / c.

    The gradient is −2w/c per element. Differences of denoisers' clean estimates are such directions: surrogate less
    its reference raises the reward, teacher less fake score keeps the distribution, conditional less unconditional
    is guidance.

    Args:
        x0: of the generator; gradients pass.
        direction: w; no gradient passes.
        normalize: c is the mean |w| of each sample, so that directions of any size count alike; else c = 1.

    Returns:
        The mean over all elements; a sample whose direction is 0 has no gradient.

    Raises:
        ValueError: if the shapes differ.

    Source: distribution matching as in TDM-R1 (arXiv 2603.07700): 0.3 · guidance (3.5 times its difference) + 0.7 ·
    reward + 1 · distribution; its normalisation is our reading.

    >>> directed(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, -0.5]]))
    tensor(0.5000)
    """
    if x0.shape != direction.shape:
        raise ValueError(f"direction {tuple(direction.shape)} must have the shape of x0 {tuple(x0.shape)}")
    wide = torch.promote_types(x0.dtype, torch.float32)
    x0, direction = x0.to(wide), direction.detach().to(wide)
    terms = (x0 - (x0.detach() + direction)) ** 2
    if normalize and len(x0):
        size = direction.reshape(len(x0), -1).abs().mean(1).reshape(-1, *[1] * (x0.ndim - 1))
        terms = terms / torch.where(size > 0, size, 1.0)
    return terms.sum() / max(terms.numel(), 1)


@torch.no_grad()
def follow(reference: nn.Module, model: nn.Module, step: int, *, most: float = 0.3, rate: float = 1e-3) -> None:
    r"""Move a reference towards the model: ref ← d ref + (1 − d) model, d = min(rate · (1 + step), most).

    A reference that follows lets the model go on learning; it holds it back the more the longer training goes on.

    Args:
        reference: changed in place; of the same parameters as the model.
        model: is read.
        step: of training, from 0.
        most: the largest d, in [0, 1].
        rate: how fast d grows.

    Source: the reference of TDM-R1 (arXiv 2603.07700; Luo-Yihong/DGPO); with most = 0.5 that of GDRO (2601.02036).
    """
    decay = min(rate * (1 + step), most)
    for old, new in zip(reference.parameters(), model.parameters(), strict=True):
        old.lerp_(new.to(old), 1 - decay)
