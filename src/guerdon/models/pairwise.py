"""Losses of a reward model that learns from pairs, and of one that is to forget how long an answer is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.objectives.preference import pair_loss


def bradley_terry(
    chosen: Float[Tensor, "m *k"],
    rejected: Float[Tensor, "m *k"],
    *,
    regularizer: float = 0.0,
    labels: Float[Tensor, "m *k"] | None = None,
    tied: Bool[Tensor, "m *k"] | None = None,
    theta: float = 1.0,
    offset: float | Float[Tensor, "m *k"] = 0.0,
    weight: float | Float[Tensor, "m *k"] = 1.0,
    mask: Bool[Tensor, "m *k"] | None = None,
) -> Float[Tensor, ""]:
    r"""The mean over pairs of −log p + λ (r_w² + r_l²); p = σ(r_w − r_l), or with labels and ties as in `pair_terms`.

    Pairs only tell how far two rewards are apart. λ keeps them near 0, so that a reward model is not sure of what it
    has not seen; a bound of the reward afterwards is `shaping.relative`.

    Args:
        chosen: r_w of the preferred answer of each pair, one column for each dimension of quality; gradients pass.
        rejected: r_l of the other.
        regularizer: λ ≥ 0.
        labels, tied, theta, offset, weight: see `pair_loss`; with labels, "chosen" is only the first of a pair. Where
            people marked each answer, the difference of their marks is an offset, or a weight.
        mask: False where a pair was not judged in a dimension; it does not count in the mean.

    Returns:
        The loss; 0 without pairs.

    Raises:
        ValueError: if the shapes differ, or λ is negative; and as `pair_loss`.

    Source: Bradley and Terry (1952); the reward regulariser of PAR's study, λ = 0.005 (arXiv 2502.18770;
    PorUna-byte/PAR); dimensions, ties, offsets and weights: VideoAlign (2501.13918).

    >>> bradley_terry(torch.tensor([1.0]), torch.tensor([1.0]), regularizer=0.005)  # log 2 + 0.01
    tensor(0.7031)
    """
    if chosen.shape != rejected.shape or not chosen.ndim:
        shapes = f"{tuple(chosen.shape)} and {tuple(rejected.shape)}"
        raise ValueError(f"chosen and rejected must have one shape (m,) or (m, k), got {shapes}")
    if not regularizer >= 0:
        raise ValueError(f"regularizer must not be negative, got {regularizer}")
    wide = torch.promote_types(chosen.dtype, torch.float32)
    here = torch.ones_like(chosen, dtype=torch.bool) if mask is None else mask
    won, lost = (torch.where(here, x.to(wide), 0.0) for x in (chosen, rejected))
    loss, sums = pair_loss(won - lost, labels=labels, tied=tied, theta=theta, offset=offset, weight=weight, mask=here)
    return loss + regularizer * (won**2 + lost**2).sum() / sums["pairs"].clamp(min=1)


class TieAccuracy(NamedTuple):
    """How well margins tell better, worse and equal.

    Args:
        share: of the pairs called right, at the best threshold.
        threshold: ε ≥ 0; a pair with |margin| ≤ ε is called a tie. −1: no pair is.
    """

    share: float
    threshold: float


def tie_accuracy(margins: Float[Tensor, "m"], verdicts: Int[Tensor, "m"]) -> TieAccuracy:
    """The accuracy with ties of a reward model that does not say tie: the best over all thresholds of its margin.

    Thresholds are tried after whole blocks of equal |margin|, and before the first: calling no pair a tie is one of
    the ways.

    Args:
        margins: the score of the first of a pair less that of the second.
        verdicts: 1 the first is better, −1 the second, 0 a tie.

    Returns:
        The share and the smallest threshold that reaches it. A margin of 0 that is called no tie is wrong.

    Raises:
        ValueError: without pairs, if the shapes differ, a margin is not finite, or for another verdict.

    Source: VideoAlign (arXiv 2501.13918), after Deutsch et al. (2305.14324). Its released sweep always calls one pair
    a tie, and counts inside of blocks of equal margins.

    >>> tie_accuracy(torch.tensor([1.0, 0.1, -0.8]), torch.tensor([1, 0, -1]))
    TieAccuracy(share=1.0, threshold=0.1...)
    """
    if margins.shape != verdicts.shape or margins.ndim != 1 or not len(margins):
        shapes = f"{tuple(margins.shape)} and {tuple(verdicts.shape)}"
        raise ValueError(f"margins and verdicts must have one shape (m,), at least one pair, got {shapes}")
    if not torch.isfinite(margins).all() or not torch.isin(verdicts, verdicts.new_tensor([-1, 0, 1])).all():
        raise ValueError("margins must be finite and verdicts 1, 0 or −1: leave out what was not judged")
    sizes, index = torch.unique(margins.abs(), return_inverse=True)
    # Calling a block of equal margins a tie gains its ties and loses what was right of it.
    told = (margins.sign() * verdicts > 0).double()
    gain = torch.zeros(len(sizes), dtype=torch.double, device=margins.device)
    gain = gain.index_add(0, index, (verdicts == 0).double() - told)
    right = told.sum() + torch.cat([gain.new_zeros(1), gain.cumsum(0)])
    best = int(right.argmax())
    return TieAccuracy(float(right[best]) / len(margins), -1.0 if best == 0 else float(sizes[best - 1]))


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
