"""Credit for answers forced at several budgets: thinking that pays early is worth more."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.core.spans import Spans
from guerdon.credit.group import group_moments

Baseline = Literal["both", "recent", "group", "none"]


@torch.no_grad()
def budget_relative(
    scores: Float[Tensor, "n b"],
    groups: Int[Tensor, "n"],
    *,
    valid: Bool[Tensor, "n"] | None = None,
    prior: tuple[float, ...] | None = None,
    baseline: Baseline = "both",
) -> Float[Tensor, "n b"]:
    r"""Advantages of the stretches of thinking between budgets.

        Rₛ = Σ_{j≥s} Pⱼ rⱼ        Aₛ = Rₛ − (s V1ₛ + (S − s) V2ₛ) / S        s = 0 … S−1
        V1ₛ = Σ_{j<s} 2ʲ rⱼ / Σ_{j<s} 2ʲ · Σ_{j≥s} Pⱼ        V2ₛ = the group's mean of Rₛ

    What a rollout's own earlier answers already earned foretells the later ones better and better: the baseline goes
    over from the group to the rollout. With one budget it is the group mean. A constant.

    Args:
        scores: r, mean reward of the answers forced at each budget, in order; a rollout that ends before a budget
            repeats its score there.
        groups: rows with equal numbers are compared.
        valid: False where a rollout's scores abstained: advantage 0, and in no mean.
        prior: P, how likely each budget is to be the one that counts, at least 0; None: all equally.
        baseline: "both"; "recent", V1 alone; "group", V2 alone; or "none".

    Returns:
        One per stretch, the one that ends at the budget; the unit of the scores.

    Raises:
        ValueError: if the shapes do not fit, or a prior is negative.

    Source: budget relative policy optimisation, AnytimeReasoner (arXiv 2505.13438; sail-sg/AnytimeReasoner).

    >>> budget_relative(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.tensor([0, 0]))
    tensor([[-0.2500,  0.2500],
            [ 0.2500,  0.0000]])
    """
    if scores.ndim != 2 or (prior is not None and len(prior) != scores.shape[1]):
        given = None if prior is None else len(prior)
        raise ValueError(f"scores must be (n, b) and prior have b entries, got {tuple(scores.shape)} and {given}")
    rows = scores.shape[:1]
    if groups.shape != rows or (valid is not None and valid.shape != rows):
        raise ValueError(f"groups and valid must be {tuple(rows)}, one per row of scores")
    if prior is not None and any(p < 0 for p in prior):
        raise ValueError("prior must not be negative")
    if baseline not in get_args(Baseline):
        raise ValueError(f"baseline is one of {get_args(Baseline)}, got {baseline!r}")
    scored = torch.ones(len(scores), dtype=torch.bool, device=scores.device) if valid is None else valid
    wide = torch.promote_types(scores.dtype, torch.float32)
    known = torch.where(scored[:, None], scores, 0).to(wide)
    even = [1 / max(scores.shape[1], 1)] * scores.shape[1]
    share = torch.tensor(even if prior is None else prior, dtype=wide, device=scores.device)
    left = share.flip(0).cumsum(0).flip(0)
    earned = (known * share).flip(1).cumsum(1).flip(1)
    budgets = scores.shape[1]
    place = torch.arange(budgets, device=scores.device, dtype=wide)
    ago = place[None, :] - place[:, None]
    weights = torch.where(ago > 0, 2.0 ** (1 - ago), 0)
    recent = known @ (weights / weights.sum(0).clamp(min=1)) * left
    columns = earned.T.flatten()  # one statistic per group and budget
    _, group = torch.unique(groups, return_inverse=True)
    number = (torch.arange(budgets, device=scores.device)[:, None] * (len(groups) + 1) + group).flatten()
    mean = group_moments(columns, number, scored.repeat(budgets))[0].view(budgets, -1).T
    reference = {
        "both": (place * recent + (budgets - place) * mean) / max(budgets, 1),
        "recent": recent,
        "group": mean,
        "none": torch.zeros_like(earned),
    }[baseline]
    return torch.where(scored[:, None], earned - reference, 0)


def stretches(lengths: Int[Tensor, "n"], budgets: Int[Tensor, "b"]) -> Spans:
    """The tokens between one budget and the next, for `spread`; one that a rollout does not reach is none.

    Args:
        lengths: tokens of each rollout's thinking.
        budgets: in tokens, rising.

    Raises:
        ValueError: if the budgets do not rise, or a number is negative.

    Source: AnytimeReasoner (arXiv 2505.13438).

    >>> stretches(torch.tensor([5, 9]), torch.tensor([4, 8])).rows()
    [[(0, 4), (4, 5)], [(0, 4), (4, 8)]]
    """
    if bool((budgets.diff() <= 0).any()) or bool((budgets < 0).any()) or bool((lengths < 0).any()):
        raise ValueError("budgets must rise, and neither budgets nor lengths may be negative")
    edges = torch.nn.functional.pad(budgets.long(), (1, 0))
    cut = torch.minimum(edges, lengths.long()[:, None])
    return Spans(cut[:, :-1], cut[:, 1:], cut[:, :-1] < cut[:, 1:])
