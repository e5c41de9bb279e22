"""Sequences as a tree of the prefixes they share, and what each prefix is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.credit.group import group_moments


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """The prefixes of a batch of sequences; prefix t of a row ends with its token t.

    Args:
        nodes: Int["n t"], a number for each distinct prefix of each group; −1 where there is no token.
        size: Int["n t"], how many rows of the group share the prefix; 0 where there is no token.
        value: Float["n t"], the mean reward of those that have one; 0 where none has.
        before: Float["n t"], the value of the prefix one token shorter: at first the mean of the group.
    """

    nodes: Int[Tensor, "n t"]
    size: Int[Tensor, "n t"]
    value: Float[Tensor, "n t"]
    before: Float[Tensor, "n t"]


@torch.no_grad()
def prefix_tree(
    ids: Int[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    rewards: Float[Tensor, "n"],
    groups: Int[Tensor, "n"],
    *,
    valid: Bool[Tensor, "n"] | None = None,
) -> PrefixTree:
    r"""The trie of the sequences of each group, with the mean reward of all rows below each prefix.

    V(prefix) = mean of r over the rows that begin with it. No further sampling: rollouts of one prompt share prefixes
    by themselves. Exact (rows are sorted, not hashed), in O(n t) memory.

    Args:
        ids: what the sequences are made of: tokens, or numbers of steps; not negative.
        mask: True where they are; each row stands at its front.
        rewards: one per row; any real unit.
        groups: rows with equal numbers are in one tree.
        valid: False where the reward abstained: the row is in the tree and not in the values.

    Returns:
        The tree, its values in the unit of the rewards.

    Raises:
        ValueError: if the shapes do not fit, an id is negative, or a row has a token behind a missing one.

    Source: prefix-to-tree of TEMPO (arXiv 2509.18314).

    >>> ids = torch.tensor([[1, 2], [1, 3], [4, 3]])
    >>> tree = prefix_tree(ids, torch.ones(3, 2, dtype=torch.bool), torch.tensor([1.0, 0.0, 0.0]), torch.zeros(3))
    >>> tree.value
    tensor([[0.5000, 1.0000],
            [0.5000, 0.0000],
            [0.0000, 0.0000]])
    """
    n, t = _check(ids, mask, rewards, groups, valid)
    wide = torch.promote_types(rewards.dtype, torch.float32)
    scored = torch.ones_like(rewards, dtype=torch.bool) if valid is None else valid
    known = torch.where(scored, rewards, 0).to(wide)
    mean, _ = group_moments(known, groups, scored)
    if n * t == 0:
        empty = known.new_zeros(n, t)
        return PrefixTree(torch.zeros_like(ids), torch.zeros_like(ids), empty, empty)
    _, group = torch.unique(groups, return_inverse=True)
    # In lexicographic order the rows that share a prefix are neighbours, and those that share a longer one within them.
    padded = torch.cat([group[:, None], torch.where(mask, ids.long(), -1)], 1)
    _, rank = torch.unique(padded, dim=0, return_inverse=True)
    order = rank.argsort()
    ordered = padded.index_select(0, order)
    place = torch.arange(t + 1, device=ids.device)
    shared = torch.where(ordered[1:] == ordered[:-1], t + 1, place).amin(1)  # with the group's number in front
    # Depth by depth, so that the rows of one prefix are a stretch of the flattened table.
    first = torch.ones(t, n, dtype=torch.bool, device=ids.device)
    first[:, 1:] = shared <= place[1:, None]
    flat = first.flatten().cumsum(0) - 1
    nodes = flat.view(t, n).t().contiguous().index_select(0, order.argsort())
    size = torch.bincount(flat)
    count = size if valid is None else torch.bincount(flat, scored[order].repeat(t))
    total = torch.zeros(len(size), dtype=torch.float64, device=ids.device)
    total.index_add_(0, flat, known.double()[order].repeat(t))
    worth = (total / count.clamp(min=1)).to(wide)
    shares, value = (x.index_select(0, nodes.view(-1)).view(n, t).masked_fill_(~mask, 0) for x in (size, worth))
    before = torch.cat([mean[:, None], value[:, :-1]], 1).masked_fill_(~mask, 0)
    return PrefixTree(nodes.masked_fill_(~mask, -1), shares, value, before)


@torch.no_grad()
def branch_relative(
    rewards: Float[Tensor, "n"],
    tree: PrefixTree,
    groups: Int[Tensor, "n"],
    *,
    valid: Bool[Tensor, "n"] | None = None,
    scale: Literal["std", "none"] = "std",
    ddof: int = 1,
    eps: float = 1e-6,
) -> Float[Tensor, "n t"]:
    r"""A rollout's advantage in its group, corrected where it parts from the others by what that choice changed.

        Aᵢⱼ = ((rᵢ − mean_G r) + V(Sⱼ) − V(Sⱼ₋₁)) / (std_G r + eps)

    Sⱼ are the rows that share row i's tokens up to j. Where all agree, and once the row is alone, V does not change,
    and A is the group's own advantage; σ is that of the rewards, not of the differences. Groups whose rewards are
    equal up to rounding get 0.

    Args:
        rewards: one per row, those the tree was made with.
        tree: of `prefix_tree`.
        groups: as for the tree.
        valid: False where the reward abstained: advantage 0, and in no statistic.
        scale: "none" leaves the division out.
        ddof: σ² = Σ(r − mean)² / (count − ddof).
        eps: added to σ, in the unit of the rewards.

    Returns:
        One per token, 0 where there is none: without unit if scaled, else in the unit of the rewards.

    Raises:
        ValueError: if the shapes do not fit.

    Source: TEMPO (arXiv 2509.18314; fatebreaker/tempo).
    """
    rows = (len(tree.nodes),)
    for name, value in {"rewards": rewards, "groups": groups, "valid": valid}.items():
        if value is not None and value.shape != rows:
            raise ValueError(f"{name} must be {rows}, one per row of the tree, got {tuple(value.shape)}")
    scored = torch.ones_like(rewards, dtype=torch.bool) if valid is None else valid
    mean, sigma = group_moments(rewards, groups, scored, ddof=ddof)
    own = torch.where(scored, rewards, 0).to(mean.dtype) - mean
    found = own[:, None] + tree.value - tree.before
    if scale == "std":
        found = found / (sigma + eps)[:, None]
    return torch.where((tree.size > 0) & (scored & (sigma > 0))[:, None], found, 0)


def _check(ids: Tensor, mask: Tensor, rewards: Tensor, groups: Tensor, valid: Tensor | None) -> tuple[int, int]:
    if ids.ndim != 2 or mask.shape != ids.shape:
        raise ValueError(f"ids {tuple(ids.shape)} and mask {tuple(mask.shape)} need one shape (n, t)")
    for name, value in {"rewards": rewards, "groups": groups, "valid": valid}.items():
        if value is not None and value.shape != ids.shape[:1]:
            raise ValueError(f"{name} must be ({len(ids)},), one per row of ids, got {tuple(value.shape)}")
    behind = (mask[:, 1:] & ~mask[:, :-1]).any(1)
    if bool(behind.any()):
        raise ValueError(f"mask: row {int(behind.nonzero()[0])} has a token behind a missing one")
    if bool((mask & (ids < 0)).any()):
        raise ValueError(f"ids: row {int((mask & (ids < 0)).any(1).nonzero()[0])} has a negative one")
    return ids.shape[0], ids.shape[1]
