"""Sums over the groups of a batch in logarithms, with gradients: what losses over sets of rollouts share."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def sequence_means(values: Float[Tensor, "n t"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "n"]:
    """The mean of each row over its tokens, in float32 or wider; 0, without gradient, for a row without any.

    Source: the score of a rollout in DisCO (arXiv 2505.12366) and REAL (2602.05630).

    >>> sequence_means(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor([2.])
    """
    wide = torch.promote_types(values.dtype, torch.float32)
    return torch.where(mask, values.to(wide), 0.0).sum(1) / mask.sum(1).clamp(min=1)


def group_logsumexp(
    values: Float[Tensor, "n"],
    members: Bool[Tensor, "n"],
    group: Int[Tensor, "n"],
    number: int,
    *,
    anchor: bool = False,
) -> Float[Tensor, "g"]:
    r"""log Σᵢ e^{xᵢ} over the members of each group; with an anchor, log(1 + Σᵢ e^{xᵢ}).

    Exact for values of any size. An empty group gives 0, and has no gradient: log 1 with an anchor, and nothing that
    may be used without one.

    Args:
        values: x, of any size.
        members: the rows that count.
        group: the group of each row, numbered from 0.
        number: how many groups there are.
        anchor: add a term e⁰ to every group.

    Source: log-sum-exp with a fixed logit 0, as in Circle loss (arXiv 2002.10857) and REAL (2602.05630).

    >>> x, rows = torch.tensor([0.0, 0.0, 1000.0]), torch.tensor([True, True, True])
    >>> group_logsumexp(x, rows, torch.tensor([0, 0, 1]), 3, anchor=True)
    tensor([   1.0986, 1000.0000,    0.0000])
    """
    low = torch.full((number,), 0.0 if anchor else -torch.inf, dtype=values.dtype, device=values.device)
    inside = torch.where(members, values.detach(), -torch.inf)
    peak = low.scatter_reduce(0, group, inside, "amax")
    peak = torch.where(peak == -torch.inf, 0.0, peak)
    # Rows outside are moved to the peak before the exponential, which could overflow there and make 0 · ∞.
    distance = torch.where(members, values - peak[group], 0.0)
    terms = torch.where(members, distance.exp(), 0.0)
    total = ((-peak).exp() if anchor else torch.zeros_like(peak)).index_add(0, group, terms)
    return torch.where(total > 0, peak + torch.where(total > 0, total, 1.0).log(), 0.0)
