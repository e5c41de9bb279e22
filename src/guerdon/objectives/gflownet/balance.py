"""The balance of flows as losses: of whole trajectories, of all their parts, of single edges."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.objectives.gflownet import steps


def trajectory_balance(
    forward_logp: Float[Tensor, "n t"],
    log_reward: Float[Tensor, "n"],
    mask: Bool[Tensor, "n t"],
    *,
    groups: Int[Tensor, "n"] | None = None,
    log_z: Float[Tensor, ""] | Float[Tensor, "n"] | None = None,
    backward_logp: Float[Tensor, "n t"] | None = None,
    rows: Bool[Tensor, "n"] | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Trajectory balance; without log Z, its variance form, which needs no network for it.

        ζᵢ = Σₜ (log P_F − log P_B) − log R        loss = 1/N Σᵢ (ζᵢ + log Z)²

    In the variance form −log Z is the mean of ζ over the trajectories from the same start (its group). The loss is 0
    exactly when trajectories are drawn in proportion to R. Any trajectories will do, also those of another policy.

    Losses of parts add up to the whole with `denominator` given, in the variance form if no group is cut in two.

    Args:
        forward_logp: log P_F of each step.
        log_reward: log R(x) of the object each trajectory ends in; finite.
        mask: True where there is a step.
        groups: rows with equal numbers have the same start; None: all have.
        log_z: of the start, learned; None: the variance form.
        backward_logp: log P_B of each step; None: a tree, where it is 0.
        rows: False for a row that has no reward (it abstained); None: all have one.
        denominator: the number of trajectories of the whole batch, where this is a part of it.

    Returns:
        The loss, and sums, detached: "trajectories", "log_z" (over trajectories: what stands for it).

    Raises:
        ValueError: if the shapes do not fit.

    Source: trajectory balance (arXiv 2201.13259); variance form: VarGrad (2010.10436), GFlowVLM (2503.06514).

    >>> half, here = torch.tensor([[0.5], [0.5]]).log(), torch.ones(2, 1, dtype=bool)
    >>> trajectory_balance(half, torch.tensor([0.0, 2.0]), here)[0]
    tensor(1.)
    """
    _check_shapes(mask, 1, log_reward=log_reward, groups=groups, rows=rows)
    _check_shapes(mask, 2, forward_logp=forward_logp, backward_logp=backward_logp)
    if log_z is not None and log_z.shape not in ((), mask.shape[:1]):
        raise ValueError(f"log_z must be a scalar or ({len(mask)},), got {tuple(log_z.shape)}")
    wide = torch.promote_types(forward_logp.dtype, torch.float32)
    counted = mask.new_ones(len(mask)) if rows is None else rows
    zeta = _path(forward_logp, backward_logp, mask, wide).sum(1) - log_reward.detach().to(wide)
    zeta = torch.where(counted, zeta, 0.0)
    if log_z is None:
        group = torch.zeros_like(mask.sum(1)) if groups is None else torch.unique(groups, return_inverse=True)[1]
        cells = zeta.new_zeros(len(zeta))
        count = cells.index_add(0, group, counted.to(wide)).clamp(min=1)
        estimate = -(cells.index_add(0, group, zeta) / count)[group]
    else:
        estimate = torch.where(counted, log_z.to(wide), 0.0)
    number = counted.sum().to(wide)
    squares = torch.where(counted, (zeta + estimate) ** 2, 0.0)
    loss = squares.sum() / (number.clamp(min=1) if denominator is None else denominator)
    return loss, {"trajectories": number, "log_z": torch.where(counted, estimate.detach(), 0.0).sum()}


def reward_balance(
    logp: Float[Tensor, "n t"],
    rewards: Float[Tensor, "n"],
    mask: Bool[Tensor, "n t"],
    *,
    groups: Int[Tensor, "n"],
    rows: Bool[Tensor, "n"],
    ref_logp: Float[Tensor, "n t"] | None = None,
    values: Float[Tensor, "n t"] | None = None,
    kind: Literal["exp", "floor"] = "exp",
    temperature: float = 1.0,
    floor: float = 1e-3,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""`trajectory_balance` of rollouts of a language policy: in its variance form within each prompt, or with log Z.

    The loss is 0 exactly when the policy writes in proportion to `log_reward`'s R or, with a reference, to π_ref · R:
    at kind "exp" that is the optimum of KL-regularised RL with β = T. The variance form learns nothing from a rollout
    that is alone in its group; a learned log Z needs no group.

    Args:
        logp: log-probabilities of the tokens under the policy, in nats; with gradients.
        rewards: one per rollout.
        mask: True at the tokens written by the policy.
        groups: rows with equal numbers answer the same prompt.
        rows: rollouts with a score.
        ref_logp: under the reference; None: a uniform one.
        values: log F of the state before each token, learned, with gradients; that before the first is log Z. None:
            the variance form.
        kind, temperature, floor: as for `log_reward`.
        denominator: the number of rollouts with a score of the whole batch, where this is a part of it.

    Returns:
        The loss, and the sums of `trajectory_balance`, with "tokens" beside them.

    Raises:
        ValueError: as `log_reward` and `trajectory_balance`.

    Source: trajectory balance (arXiv 2201.13259); the variance form as in GFlowVLM (2503.06514), with the reference
    TBA's objective (2503.18929).

    >>> half, two = torch.tensor([[0.5], [0.5]]).log(), torch.ones(2, dtype=bool)
    >>> reward_balance(half, torch.tensor([0.0, 2.0]), two[:, None], groups=torch.zeros(2, dtype=int), rows=two)[0]
    tensor(1.)
    """
    target = steps.log_reward(rewards, kind=kind, temperature=temperature, floor=floor)
    log_z = None
    if values is not None:
        _check_shapes(mask, 2, values=values)
        log_z = torch.where(mask & (mask.cumsum(1) == 1), values, 0.0).sum(1)
    loss, sums = trajectory_balance(
        logp,
        target,
        mask,
        groups=groups,
        log_z=log_z,
        backward_logp=None if ref_logp is None else ref_logp.detach(),
        rows=rows,
        denominator=denominator,
    )
    return loss, sums | {"tokens": mask.sum().to(loss)}


def subtrajectory_balance(
    forward_logp: Float[Tensor, "n t"],
    stop_logp: Float[Tensor, "n t+1"],
    log_reward: Float[Tensor, "n t+1"],
    mask: Bool[Tensor, "n t"],
    *,
    decay: float = 0.9,
    longest: int | None = None,
    backward_logp: Float[Tensor, "n t"] | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Balance between all pairs of states of a trajectory, where every state may stop and be an object.

        loss = 1/N Σᵢ Σ_{j<k} λ^{k−j} (aᵢₖ − aᵢⱼ)² / Σ_{j<k} λ^{k−j}
        aₖ = Σ_{u<k} (log P_F − log P_B) + log P_stop(sₖ) − log R(sₖ)

    The logarithm of a pair's equation, R(sⱼ) P_F(sⱼ→sₖ) P_stop(sₖ) = R(sₖ) P_stop(sⱼ), is a difference of one number
    per state. `longest=1` compares neighbours only: detailed balance.

    Args:
        forward_logp: log P_F of each step, the chance of not stopping before it included.
        stop_logp: log P_stop at each state, the first one and the last one included.
        log_reward: log R of each state as an object; finite.
        mask: True where there is a step; the steps of a row come first, without holes.
        decay: λ in (0, 1], per step of distance; not stated by GFlowVLM.
        longest: the most steps between the states of a pair.
        backward_logp: log P_B of each step; None: a tree.
        denominator: the number of trajectories with a step, of the whole batch, where this is a part of it.

    Returns:
        The loss, and sums, detached: "trajectories" (with at least one step) and "pairs".

    Raises:
        ValueError: if the shapes do not fit, a row has a hole, λ is outside (0, 1] or longest < 1.

    Source: SubTB(λ) (arXiv 2209.12782) in the form for states that may all stop (2202.13903), as in GFlowVLM
    (2503.06514).

    >>> zero = torch.zeros(1, 2)
    >>> subtrajectory_balance(torch.zeros(1, 1), zero, torch.tensor([[0.0, 2.0]]), torch.tensor([[True]]))[0]
    tensor(4.)
    """
    _check_shapes(mask, 2, forward_logp=forward_logp, backward_logp=backward_logp)
    n, t = mask.shape
    for name, value in (("stop_logp", stop_logp), ("log_reward", log_reward)):
        if value.shape != (n, t + 1):
            raise ValueError(f"{name} must be {(n, t + 1)}, one per state, got {tuple(value.shape)}")
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("mask has a hole: the steps of a trajectory come first, without gaps")
    if not 0 < decay <= 1 or (longest is not None and longest < 1):
        raise ValueError(f"decay must be in (0, 1] and longest at least 1, got {decay} and {longest}")
    wide = torch.promote_types(forward_logp.dtype, torch.float32)
    reached = torch.nn.functional.pad(mask, (1, 0), value=True)
    path = torch.nn.functional.pad(_path(forward_logp, backward_logp, mask, wide).cumsum(1), (1, 0))
    stop = torch.where(reached, stop_logp.to(wide) - log_reward.detach().to(wide), 0.0)
    level = path + stop
    position = torch.arange(t + 1, device=mask.device)
    distance = position[None, :] - position[:, None]
    allowed = (distance > 0) & (distance <= (t if longest is None else longest))
    pairs = allowed & reached[:, None, :] & reached[:, :, None]
    weights = torch.where(pairs, decay ** distance.clamp(min=0).to(wide), 0.0)
    squares = torch.where(pairs, (level[:, None, :] - level[:, :, None]) ** 2, 0.0)
    each = (weights * squares).sum((1, 2)) / weights.sum((1, 2)).clamp(min=torch.finfo(wide).tiny)
    number = mask.any(1).sum().to(wide)
    loss = each.sum() / (number.clamp(min=1) if denominator is None else denominator)
    return loss, {"trajectories": number, "pairs": pairs.sum().to(wide)}


def edge_balance(
    log_flow: Float[Tensor, "n t"],
    forward_logp: Float[Tensor, "n t"],
    backward_logp: Float[Tensor, "n t"],
    log_end: Float[Tensor, "n"],
    mask: Bool[Tensor, "n t"],
    *,
    log_outcome: Float[Tensor, "n"] | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Detailed balance with a learned state flow, edge by edge; with an outcome, its reward at every edge.

        loss = 1/D Σ (log F(s) + log P_F(s'|s) − log F(s') − log P_B(s|s') − log R(x|y))²

    For an ordinary GFlowNet F of the last state is the reward (`log_end` = log R) and there is no outcome. For one that
    is conditioned on an outcome y, "outcome teleportation" puts log R(x|y) on every edge and 0 at the end: a binary
    reward at the end alone would reach the first steps only after many updates. Every sub-path then holds R(x|y) once
    per edge, so the equations fix the flows where R(x|y) = 1.

    Args:
        log_flow: log F at the state before each step (given y).
        forward_logp, backward_logp: log P_F and log P_B of each step (given y).
        log_end: log F of the state each trajectory ends in.
        mask: True where there is a step; the steps of a row come first, without holes.
        log_outcome: log R(x|y) of each trajectory, from `reached`.
        denominator: the number of steps of the whole batch, where this is a part of it.

    Returns:
        The loss, and sums, detached: "steps" and "error", squared.

    Raises:
        ValueError: if the shapes do not fit, or a row has a hole.

    Source: detailed balance (arXiv 2111.09266); outcome teleportation: OC-GFN (2310.03419, §4.1).

    >>> zero, here = torch.zeros(1, 2), torch.ones(1, 2, dtype=bool)
    >>> edge_balance(torch.tensor([[1.0, 0.0]]), zero, zero, torch.tensor([0.0]), here)[0]
    tensor(0.5000)
    """
    _check_shapes(mask, 2, log_flow=log_flow, forward_logp=forward_logp, backward_logp=backward_logp)
    _check_shapes(mask, 1, log_end=log_end, log_outcome=log_outcome)
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("mask has a hole: the steps of a trajectory come first, without gaps")
    wide = torch.promote_types(log_flow.dtype, torch.float32)
    flow = torch.where(mask, log_flow.to(wide), 0.0)
    last = mask & ~torch.nn.functional.pad(mask[:, 1:], (0, 1))[:, : mask.shape[1]]
    following = torch.nn.functional.pad(flow[:, 1:], (0, 1))[:, : mask.shape[1]]
    following = torch.where(last, log_end.to(wide)[:, None], following)
    residual = flow - following + _path(forward_logp, backward_logp, mask, wide)
    if log_outcome is not None:
        residual = residual - log_outcome.detach().to(wide)[:, None]
    squares = torch.where(mask, residual**2, 0.0)
    steps = mask.sum().to(wide)
    loss = squares.sum() / (steps.clamp(min=1) if denominator is None else denominator)
    return loss, {"steps": steps, "error": squares.detach().sum()}


def _path(forward_logp: Tensor, backward_logp: Tensor | None, mask: Tensor, wide: torch.dtype) -> Tensor:
    path = forward_logp.to(wide) if backward_logp is None else forward_logp.to(wide) - backward_logp.to(wide)
    return torch.where(mask, path, 0.0)


def _check_shapes(mask: Tensor, ndim: int, **others: Tensor | None) -> None:
    if mask.ndim != 2:
        raise ValueError(f"mask must be (n, t), got {tuple(mask.shape)}")
    shape = mask.shape[:ndim]
    for name, value in others.items():
        if value is not None and value.shape != shape:
            raise ValueError(f"{name} must be {tuple(shape)} beside mask {tuple(mask.shape)}, got {tuple(value.shape)}")
