"""Losses of a reward model that learns from pairs, and of one that is to forget how long an answer is."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


def bradley_terry(
    chosen: Float[Tensor, "m"], rejected: Float[Tensor, "m"], *, regularizer: float = 0.0
) -> Float[Tensor, ""]:
    r"""The mean over pairs of −log σ(r_w − r_l) + λ (r_w² + r_l²).

    Pairs only tell how far two rewards are apart. λ keeps them near 0, so that a reward model is not sure of what it
    has not seen; a bound of the reward afterwards is `shaping.relative`.

    Args:
        chosen: r_w of the preferred answer of each pair; gradients pass.
        rejected: r_l of the other.
        regularizer: λ ≥ 0.

    Returns:
        The loss; 0 without pairs.

    Raises:
        ValueError: if the shapes differ, or λ is negative.

    Source: Bradley and Terry (1952); the reward regulariser of PAR's study, λ = 0.005 (arXiv 2502.18770;
    PorUna-byte/PAR).

    >>> bradley_terry(torch.tensor([1.0]), torch.tensor([1.0]), regularizer=0.005)  # log 2 + 0.01
    tensor(0.7031)
    """
    if chosen.shape != rejected.shape or chosen.ndim != 1:
        shapes = f"{tuple(chosen.shape)} and {tuple(rejected.shape)}"
        raise ValueError(f"chosen and rejected must have one shape (m,), got {shapes}")
    if not regularizer >= 0:
        raise ValueError(f"regularizer must not be negative, got {regularizer}")
    wide = torch.promote_types(chosen.dtype, torch.float32)
    won, lost = chosen.to(wide), rejected.to(wide)
    terms = -logsigmoid(won - lost) + regularizer * (won**2 + lost**2)
    return terms.sum() / max(len(terms), 1)


def length_bias(
    quality: Float[Tensor, "n"], verbosity: Float[Tensor, "n"], lengths: Float[Tensor, "n"]
) -> Float[Tensor, ""]:
    r"""|ρ(r_Q, L)| − ρ(r_L, L): least, −1, where one reward follows the length and the other knows nothing of it.

    ρ is Pearson's correlation over the batch; 0 where either side is constant.

    Args:
        quality: r_Q of each answer; gradients pass.
        verbosity: r_L of each.
        lengths: L, in any unit.

    Returns:
        In [−1, 2].

    Raises:
        ValueError: if the shapes differ.

    Source: the length loss of ODIN (arXiv 2402.07319).

    >>> one, lengths = torch.tensor([1.0, -1.0, -1.0, 1.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    >>> length_bias(one, 2 * lengths, lengths).round(decimals=4)
    tensor(-1.)
    """
    if not quality.shape == verbosity.shape == lengths.shape or quality.ndim != 1:
        shapes = [tuple(x.shape) for x in (quality, verbosity, lengths)]
        raise ValueError(f"quality, verbosity and lengths must have one shape (n,), got {shapes}")
    return correlation(quality, lengths).abs() - correlation(verbosity, lengths)


def correlation(first: Float[Tensor, "n"], second: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Pearson's correlation; 0 where either side is constant up to rounding. Gradients pass.

    >>> correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])).round(decimals=4)
    tensor(1.)
    """
    wide = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    x, y = (side.to(wide) for side in (first, second))
    if not x.numel():
        return x.sum() * y.sum()
    x, y = x / x.detach().abs().max().clamp(min=1e-30), y / y.detach().abs().max().clamp(min=1e-30)
    x, y = x - x.mean(), y - y.mean()
    apart = (x.detach().abs().max() > 1e-6) & (y.detach().abs().max() > 1e-6)
    x, y = (torch.where(apart, side, torch.ones_like(side)) for side in (x, y))
    return torch.where(apart, (x * y).sum() / (x.square().sum() * y.square().sum()).sqrt(), 0.0)
