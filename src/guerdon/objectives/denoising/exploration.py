"""Which steps of a chain explore, and how much: tables that a `Chain` takes for `a`."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def uniform(steps: int, a: float = 0.7, *, first: int = 0, last: int | None = None) -> Float[Tensor, "t"]:
    """The same noise at the steps from `first` to before `last`, and none elsewhere.

    Args:
        steps: t of the chain.
        a: how much noise.
        first: the first step that explores.
        last: the first that does so no more; default: to the end.

    Raises:
        ValueError: if these are not steps of the chain.

    Source: windows of stochastic steps, as in Flow-GRPO-Fast (yifan123/flow_grpo).

    >>> uniform(4, 0.5, first=1, last=3)
    tensor([0.0000, 0.5000, 0.5000, 0.0000])
    """
    last = steps if last is None else last
    if not 0 <= first <= last <= steps:
        raise ValueError(f"steps {first} to {last} are not in a chain of {steps}")
    place = torch.arange(steps)
    return torch.where((place >= first) & (place < last), a, 0.0)


def singular(steps: int, at: Int[Tensor, "k"], a: float = 0.7) -> Float[Tensor, "k t"]:
    """One row for each of some steps, in which that step alone explores: all that follows differs by its noise only.

    Args:
        steps: t of the chain.
        at: the steps, numbered from 0.
        a: how much noise.

    Raises:
        ValueError: if one of them is not a step of the chain.

    Source: singular stochastic sampling of G2RPO (arXiv 2510.01982), a = 0.7 at the first 8 of 16 steps.

    >>> singular(3, torch.tensor([0, 2]), 0.5)
    tensor([[0.5000, 0.0000, 0.0000],
            [0.0000, 0.0000, 0.5000]])
    """
    if at.ndim != 1 or bool(((at < 0) | (at >= steps)).any()):
        raise ValueError(f"steps are numbered from 0 to {steps - 1}, got {at.tolist()}")
    return torch.where(torch.arange(steps, device=at.device) == at[:, None], a, 0.0)


@torch.no_grad()
def calibrated(
    table: Float[Tensor, "t"],
    gains: Float[Tensor, "n t"],
    *,
    mask: Bool[Tensor, "n t"] | None = None,
    balance: float = 0.1,
    change: float = 0.02,
    floor: float = 0.01,
) -> Float[Tensor, "t"]:
    r"""More noise where it helps about as often as it harms, less where it does not.

        ψₜ += change  where |#(Δrₜ > 0) − #(Δrₜ < 0)| < balance · N,        ψₜ −= change  elsewhere, not below floor

    A step whose noise mostly harms has too much of it to explore from. Repeated over rounds of rollouts, on a `Chain`
    of kind "dance" whose `a` is the table; begin with the deviations a √(s/(1 − s)) of flow_sde.

    Args:
        table: ψ, the noise of each step.
        gains: Δr, the step gains of N trajectories: `credit.progress` of completed rewards.
        mask: False where a gain is not known; it is counted neither way. A step without any stays as it is.
        balance: share of the trajectories.
        change: in the unit of ψ.
        floor: above 0: a step without noise has no gain any more, and would never have noise again.

    Returns:
        The table for the next round.

    Raises:
        ValueError: if the shapes do not fit, or an option is out of range.

    Source: exploration calibrated by reward, DenseGRPO (arXiv 2601.20218), which publishes none of the numbers.

    >>> calibrated(torch.tensor([0.5, 0.5]), torch.tensor([[1.0, -1.0], [-1.0, -1.0]]))
    tensor([0.5200, 0.4800])
    """
    if gains.ndim != 2 or table.shape != gains.shape[1:] or (mask is not None and mask.shape != gains.shape):
        raise ValueError(f"table (t,) {tuple(table.shape)} and mask must fit gains (n, t) {tuple(gains.shape)}")
    if not 0 <= balance <= 1 or not change > 0 or not floor > 0:
        raise ValueError(f"balance {balance} is in [0, 1], change {change} and floor {floor} are above 0")
    known = torch.ones_like(gains, dtype=torch.bool) if mask is None else mask
    count = known.sum(0)
    surplus = torch.where(known, gains.sign(), 0.0).sum(0).abs()
    moved = torch.where(surplus < balance * count, table + change, (table - change).clamp(min=floor))
    return torch.where(count > 0, moved, table)


def interval(stage: int, stages: int, *, shortest: int = 14, longest: int = 20) -> int:
    r"""How many of the last steps are learned at a stage: from the clean side, growing towards the noise.

        n = shortest + ⌊(longest − shortest + 1) · stage / stages⌋

    `branch` at step t − n; what is before is shared.

    Args:
        stage: numbered from 0.
        stages: of the whole training.
        shortest: n of the first stage, at least 1.
        longest: n of the last.

    Raises:
        ValueError: if there is no such stage, or the ends do not fit.

    Source: backward progressive training of B²-DiffuRL (arXiv 2503.11240; hu-zijing/B2-DiffuRL), of T = 20 steps.

    >>> [interval(stage, 100) for stage in (0, 50, 99)]
    [14, 17, 20]
    """
    if not 0 <= stage < stages or not 1 <= shortest <= longest:
        raise ValueError(f"stage {stage} of {stages}, from {shortest} to {longest} steps: not a schedule")
    return shortest + (longest - shortest + 1) * stage // stages
