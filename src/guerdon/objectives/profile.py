"""What an objective does to short and to long rollouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.objectives.policy import policy_gradient


def length_profile(
    logp: Float[Tensor, "n t"],
    old_logp: Float[Tensor, "n t"],
    advantages: Float[Tensor, "n"] | Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    edges: Sequence[int],
    objective: Callable[..., tuple[Tensor, dict[str, Tensor]]] = policy_gradient,
) -> dict[str, Float[Tensor, "b"]]:
    r"""Gradient and clip share of rollouts by their length: does the objective favour short or long ones?

    Rows are sorted into bins by their number of written tokens |y|: below edges[0], from one edge up to the next, and
    from the last edge on. With g = ∂loss/∂logp, of a bin's rows:

        rows       how many there are
        length     mean |y|
        norm       mean over rows of ‖gᵢ‖₂
        pull       mean over tokens of |gᵢₜ|: GSPO's falls as 1/|y|, LUSPO's is the same for all lengths
        clipped    share of the tokens that a bound holds

    Args:
        logp, old_logp, advantages, mask: as for the objective.
        edges: rising, in tokens.
        objective: `policy_gradient` with its options set by `functools.partial`.

    Returns:
        One number per bin, len(edges) + 1 of them, without gradient; 0 for a bin without rows.

    Raises:
        ValueError: if the edges do not rise, or as the objective.

    Source: the analysis of length in LUSPO (arXiv 2602.05261).

    >>> logp, mask = torch.zeros(2, 4), torch.tensor([[True, False, False, False], [True, True, True, True]])
    >>> length_profile(logp, logp, torch.ones(2), mask, edges=[2])["pull"]
    tensor([0.2000, 0.2000])
    """
    if list(edges) != sorted(set(edges)):
        raise ValueError(f"edges must rise, got {list(edges)}")
    with torch.enable_grad():
        leaf = logp.detach().clone().requires_grad_()
        loss, _ = objective(leaf, old_logp, advantages, mask)
        (gradient,) = torch.autograd.grad(loss, leaf)
    gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    lengths = mask.sum(1)
    bins = torch.bucketize(lengths, torch.as_tensor(list(edges), device=mask.device), right=True)
    number = len(edges) + 1

    def total(values: Tensor) -> Tensor:
        rows = torch.where(lengths > 0, values.to(gradient.dtype), 0.0)
        return torch.zeros(number, dtype=gradient.dtype, device=mask.device).index_add(0, bins, rows)

    rows, tokens = total(torch.ones_like(lengths)), total(lengths)
    held = []
    for b in range(number):
        _, sums = objective(logp.detach(), old_logp, advantages, mask & (bins == b)[:, None])
        held.append(sums["clip_low"] + sums["clip_high"])
    return {
        "rows": rows,
        "length": tokens / rows.clamp(min=1),
        "norm": total(gradient.norm(dim=1)) / rows.clamp(min=1),
        "pull": total(gradient.abs().sum(1)) / tokens.clamp(min=1),
        "clipped": torch.stack(held) / tokens.clamp(min=1),
    }
