"""Credit over a moving window, and the errors of growing prefixes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.credit.potentials import in_front


def window_credit(
    values: Float[Tensor, "n t"], mask: Bool[Tensor, "n t"], *, width: int = 5, stride: int = 2
) -> tuple[Float[Tensor, "n w"], Bool[Tensor, "n w"]]:
    r"""Means over windows of `width` steps, one every `stride`.

        x̃ⱼ = mean(x_{js}, …, x_{js+k−1})

    Rewards and losses of tokens, both averaged so and multiplied, train each step in its neighbourhood and with less
    noise: with k = s = 1 that is REINFORCE per token, with k ≥ T the mean reward times the mean log-probability.
    Differentiable.

    Args:
        values: one per step; any real unit.
        mask: True where the step exists; the steps of a row stand at its front.
        width: k ≥ 1.
        stride: s, from 1 to k, so that no step is left out between windows.

    Returns:
        The means, and which windows exist. The last window of a row may have fewer than k steps, and is their mean; a
        row with k steps or fewer has one window, a row without steps none.

    Raises:
        ValueError: if the shapes differ, a row has a step behind a missing one, or the sizes do not fit.

    Source: pseudo-convolutional policy gradient, PCPG (arXiv 2003.03983), whose sizes are not stated.

    >>> window_credit(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.ones(1, 4, dtype=torch.bool), width=3, stride=2)
    (tensor([[2.0000, 3.5000]]), tensor([[True, True]]))
    """
    in_front("values", values, mask)
    if not 1 <= stride <= width:
        raise ValueError(f"width must be at least stride, and stride at least 1, got {width} and {stride}")
    wide = torch.promote_types(values.dtype, torch.float32)
    known, there = torch.where(mask, values, 0).to(wide), mask.to(wide)
    t = values.shape[1]
    if not t:
        return known, mask
    windows = max(1 - (width - t) // stride, 1)
    padding = (0, max((windows - 1) * stride + width - t, 0))
    known, there = (torch.nn.functional.pad(x, padding) for x in (known, there))
    sums, counts = (x.unfold(1, width, stride).sum(2) for x in (known, there))
    lengths = mask.sum(1, keepdim=True)
    begin = torch.arange(windows, device=mask.device) * stride
    # The next window is needed only if the one before it did not reach the end of its row.
    exists = (lengths > 0) & ((begin == 0) | (begin - stride + width < lengths))
    means = torch.where(exists, sums / counts.clamp(min=1), 0)
    return means.to(values.dtype if values.is_floating_point() else wide), exists


def smooth(
    values: Float[Tensor, "n t"], mask: Bool[Tensor, "n t"], *, width: int = 5, stride: int = 2
) -> Float[Tensor, "n t"]:
    r"""What each step earns in the windows of `window_credit` that it is in: their means, shared out evenly.

        Aₜ = Σ_{j: t ∈ j} x̃ⱼ / |j|        Σₜ Aₜ lₜ = Σⱼ x̃ⱼ l̃ⱼ

    The credit whose loss per step is the loss per window: rewards and losses, both averaged over windows and
    multiplied, have this gradient. Differentiable.

    Args:
        values: one per step, e.g. rewards less a baseline; any real unit.
        mask, width, stride: see `window_credit`.

    Returns:
        One per step, 0 where masked; the unit of the values.

    Raises:
        ValueError: as `window_credit`.

    Source: pseudo-convolutional policy gradient, PCPG (arXiv 2003.03983).

    >>> smooth(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.ones(1, 4, dtype=torch.bool), width=3, stride=2)
    tensor([[0.6667, 0.6667, 2.4167, 1.7500]])
    """
    means, exists = window_credit(values, mask, width=width, stride=stride)
    n, windows = means.shape
    begin = torch.arange(windows, device=mask.device) * stride
    sizes = (mask.sum(1, keepdim=True) - begin).clamp(1, width)
    shares = torch.where(exists, means / sizes, 0)
    reach = max((windows - 1) * stride + width, values.shape[1])
    places = (begin[:, None] + torch.arange(width, device=mask.device)).flatten()
    spread_out = shares.new_zeros(n, reach).index_add(1, places, shares.repeat_interleave(width, 1))
    return torch.where(mask, spread_out[:, : values.shape[1]], 0)


@torch.no_grad()
def prefix_error_rates(
    ids: Int[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    reference: Int[Tensor, "n u"],
    reference_mask: Bool[Tensor, "n u"],
) -> Float[Tensor, "n t+1"]:
    r"""The error rate of each prefix against the reference's prefix of the same length; the last against all of it.

        CERₜ = Levenshtein(y₁…yₜ, ref₁…refₜ) / max(1, |ref₁…refₜ|)        CER₀ = 0

    −CER is a potential: `progress` of it gives the drop CERₜ₋₁ − CERₜ per step, whose sum is minus the final rate.
    Rates may exceed 1. A few vector operations per token, over all samples.

    Args:
        ids: the sampled characters or tokens.
        mask: True where there is one; each row stands at its front.
        reference: the true ones.
        reference_mask: True where there is one; each row stands at its front.

    Returns:
        Before the first token and after each; behind the end of a row, its final rate.

    Raises:
        ValueError: if the shapes do not fit, or a row has a token behind a missing one.

    Source: PCPG (arXiv 2003.03983), which leaves open whether the rate or its drop is the reward.

    >>> here = torch.ones(1, 3, dtype=torch.bool)
    >>> prefix_error_rates(torch.tensor([[1, 9, 3]]), here, torch.tensor([[1, 2, 3]]), here)
    tensor([[0.0000, 0.0000, 0.5000, 0.3333]])
    """
    in_front("ids", ids, mask)
    in_front("reference", reference, reference_mask)
    if len(ids) != len(reference):
        raise ValueError(f"ids have {len(ids)} rows, reference {len(reference)}")
    n, t = ids.shape
    size, length = reference_mask.sum(1), mask.sum(1)
    place = torch.arange(reference.shape[1] + 1, device=ids.device)
    distances = place.expand(n, -1)
    rates = [distances.new_zeros(n, dtype=torch.float32)]
    for k in range(1, t + 1):
        changed = distances[:, :-1] + (ids[:, k - 1 : k] != reference)
        best = torch.cat([distances[:, :1] + 1, torch.minimum(changed, distances[:, 1:] + 1)], 1)
        distances = (best - place).cummin(1).values + place  # insertions, from left to right
        against = torch.where(length == k, size, size.clamp(max=k))
        rate = distances.gather(1, against[:, None])[:, 0] / against.clamp(min=1)
        rates.append(torch.where(k <= length, rate, rates[-1]))
    return torch.stack(rates, 1)
