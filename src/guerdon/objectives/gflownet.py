"""GFlowNet objectives: sample in proportion to the reward, and so find many solutions, instead of the best one.

A trajectory s₀ → s₁ → … → s_T builds an object x step by step. Everything is in logarithms; where the construction
graph is a tree (text, whose state is its whole history) the backward policy is 1 and may be left out.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def log_reward(
    rewards: Float[Tensor, "*n"],
    *,
    kind: Literal["exp", "floor"] = "exp",
    temperature: float = 1.0,
    floor: float = 1e-3,
) -> Float[Tensor, "*n"]:
    r"""A reward of any sign as log R of a positive one: "exp", log R = r/T; "floor", log R = log max(r, floor).

    Args:
        rewards: r.
        kind: "exp" keeps differences of rewards, "floor" their ratios.
        temperature: T > 0 of "exp", in the unit of the rewards; smaller is greedier.
        floor: of "floor", above 0: the log of a reward of 0 does not exist.

    Raises:
        ValueError: if T or the floor is not above 0.

    Source: GFlowVLM (arXiv 2503.06514), which leaves the transform open.

    >>> log_reward(torch.tensor([0.0, 1.0]), kind="floor", floor=0.5)
    tensor([-0.6931,  0.0000])
    """
    if not temperature > 0 or not floor > 0:
        raise ValueError(f"temperature and floor must be above 0, got {temperature} and {floor}")
    wide = torch.promote_types(rewards.dtype, torch.float32)
    rewards = rewards.to(wide)
    return rewards / temperature if kind == "exp" else rewards.clamp(min=floor).log()


def step_logp(
    action_logp: Float[Tensor, "n t"],
    thought_logp: Float[Tensor, "n t"],
    *,
    thought: float = 0.4,
    lengths: Int[Tensor, "n t"] | None = None,
) -> Float[Tensor, "n t"]:
    r"""log P_F of a step that thinks before it acts: log P(a | c, s) + λ log P(c | s).

    A thought is a hundred tokens and an action a few: unweighted, the thought's probability is all there is.

    Args:
        action_logp: log-probability of the action's text, one per step.
        thought_logp: of the thought's text.
        thought: λ in [0, 1].
        lengths: tokens of each thought, by which its log-probability is divided; None: the sum as it is.

    Raises:
        ValueError: if the shapes differ, or λ is outside [0, 1].

    Source: GFlowVLM (arXiv 2503.06514); it does not state λ, 0.4 is that of RL4VLM (2405.10292) for card games.

    >>> step_logp(torch.tensor([[-1.0]]), torch.tensor([[-10.0]]), lengths=torch.tensor([[5]]))
    tensor([[-1.8000]])
    """
    if action_logp.shape != thought_logp.shape or (lengths is not None and lengths.shape != action_logp.shape):
        shapes = [tuple(x.shape) for x in (action_logp, thought_logp, lengths) if x is not None]
        raise ValueError(f"action_logp, thought_logp and lengths must have one shape, got {shapes}")
    if not 0 <= thought <= 1:
        raise ValueError(f"thought must be in [0, 1], got {thought}")
    return action_logp + thought * (thought_logp if lengths is None else thought_logp / lengths.clamp(min=1))


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
        estimate = log_z.to(wide).expand(len(zeta))
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
    kind: Literal["exp", "floor"] = "exp",
    temperature: float = 1.0,
    floor: float = 1e-3,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""`trajectory_balance` of rollouts of a language policy, in its variance form within each prompt.

    The loss is 0 exactly when the policy writes in proportion to `log_reward`'s R or, with a reference, to π_ref · R:
    at kind "exp" that is the optimum of KL-regularised RL with β = T, without a learned log Z.

    Args:
        logp: log-probabilities of the tokens under the policy, in nats; the only argument with gradients.
        rewards: one per rollout.
        mask: True at the tokens written by the policy.
        groups: rows with equal numbers answer the same prompt.
        rows: rollouts with a score.
        ref_logp: under the reference; None: a uniform one.
        kind, temperature, floor: as for `log_reward`.
        denominator: the number of rollouts with a score of the whole batch, where this is a part of it.

    Returns:
        The loss, and the sums of `trajectory_balance`, with "tokens" beside them.

    Raises:
        ValueError: as `log_reward` and `trajectory_balance`.

    Source: the variance form as in GFlowVLM (arXiv 2503.06514); with the reference it is TBA's objective (2503.18929).

    >>> half, two = torch.tensor([[0.5], [0.5]]).log(), torch.ones(2, dtype=bool)
    >>> reward_balance(half, torch.tensor([0.0, 2.0]), two[:, None], groups=torch.zeros(2, dtype=int), rows=two)[0]
    tensor(1.)
    """
    target = log_reward(rewards, kind=kind, temperature=temperature, floor=floor)
    behind = None if ref_logp is None else ref_logp.detach()
    loss, sums = trajectory_balance(
        logp, target, mask, groups=groups, backward_logp=behind, rows=rows, denominator=denominator
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


def reached(
    outcome: Int[Tensor, "n"],
    target: Int[Tensor, "n"],
    *,
    floor: float = 1e-4,
) -> Float[Tensor, "n"]:
    """log R(x|y) of trajectories that were to end in y: 0 where they did, log floor where not.

    Contrastive pre-training takes both kinds: what an exploring policy reached, relabelled as its own target, and the
    attempts of the conditioned policy at that target.

    Args:
        outcome: the number of the outcome x that each trajectory ended in.
        target: the number of the outcome y it was conditioned on.
        floor: above 0; the log of 0 does not exist. Not stated by the source, which has log 0.

    Raises:
        ValueError: if the shapes differ, or floor ≤ 0.

    Source: OC-GFN (arXiv 2310.03419, §4.1).

    >>> reached(torch.tensor([2, 1]), torch.tensor([2, 2]))
    tensor([ 0.0000, -9.2103])
    """
    if outcome.shape != target.shape:
        raise ValueError(f"outcome and target must have one shape, got {tuple(outcome.shape)}, {tuple(target.shape)}")
    if not floor > 0:
        raise ValueError(f"floor must be above 0, got {floor}")
    return torch.where(outcome == target, 0.0, torch.tensor(floor, device=outcome.device).log())


def converted(
    log_flow: Float[Tensor, "*n y"],
    forward_logp: Float[Tensor, "*n y a"],
    log_reward: Float[Tensor, "y"],
) -> Float[Tensor, "*n a"]:
    r"""The policy for a new reward, from an outcome-conditioned one and without training.

        P^r(s'|s) = Σ_y r(y) F(s|y) P_F(s'|s, y) / Σ_y r(y) F(s|y)

    Args:
        log_flow: log F(s|y), for each outcome; −∞ where y cannot be reached from s.
        forward_logp: log P_F(s'|s, y), for each outcome and action.
        log_reward: log r(y); a constant added to it changes nothing.

    Returns:
        log P^r of each action; where no outcome can be reached, −∞ for every action.

    Raises:
        ValueError: if the shapes do not fit.

    Source: OC-GFN (arXiv 2310.03419, prop. 4.1).

    >>> forward = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).log()
    >>> converted(torch.zeros(2), forward, torch.tensor([1.0, 3.0]).log()).exp()
    tensor([0.2500, 0.7500])
    """
    if forward_logp.shape[:-1] != log_flow.shape or log_reward.shape != log_flow.shape[-1:]:
        shapes = [tuple(x.shape) for x in (log_flow, forward_logp, log_reward)]
        raise ValueError(f"log_flow (*n, y), forward_logp (*n, y, a) and log_reward (y,) do not fit: {shapes}")
    wide = torch.promote_types(log_flow.dtype, torch.float32)
    weight = log_reward.to(wide) + log_flow.to(wide)
    joint = (weight[..., None] + forward_logp.to(wide)).logsumexp(-2)
    total = weight.logsumexp(-1, keepdim=True)
    return torch.where(total == -torch.inf, -torch.inf, joint - torch.where(total == -torch.inf, 0.0, total))


def amortised_numerator(
    log_numerator: Float[Tensor, "*n"],
    sampler_logp: Float[Tensor, "*n"],
    log_reward: Float[Tensor, "*n"],
    log_flow: Float[Tensor, "*n"],
    forward_logp: Float[Tensor, "*n"],
) -> Float[Tensor, "*n"]:
    r"""The loss that learns the sum over outcomes of `converted`, where there are too many to sum.

        (log N(s'|s) + log Q(y|s', s) − log r(y) − log F(s|y) − log P_F(s'|s, y))²        for y drawn from Q, or any y

    At loss 0 for all y, N is the sum and Q the share of each outcome in it; the policy is N(s'|s) / Σ_{s''} N(s''|s).

    Args:
        log_numerator: log N of the edge, learned.
        sampler_logp: log Q(y|s', s), learned; see `exploring` for what to draw y from.
        log_reward: log r(y).
        log_flow, forward_logp: of the outcome-conditioned GFlowNet, which is held fixed: no gradient passes.

    Returns:
        One loss per pair of an edge and an outcome.

    Raises:
        ValueError: if the shapes differ.

    Source: OC-GFN (arXiv 2310.03419, §4.2).

    >>> one = torch.tensor([0.0])
    >>> amortised_numerator(torch.tensor([2.0]), one, one, torch.tensor([1.0]), one)
    tensor([1.])
    """
    values = (log_numerator, sampler_logp, log_reward, log_flow, forward_logp)
    if len({x.shape for x in values}) > 1:
        raise ValueError(f"all arguments must have one shape, got {[tuple(x.shape) for x in values]}")
    return (log_numerator + sampler_logp - (log_reward + log_flow + forward_logp).detach()) ** 2


def exploring(
    logp: Float[Tensor, "*n a"],
    *,
    temperature: float = 1.0,
    uniform: float = 0.1,
) -> Float[Tensor, "*n a"]:
    r"""A policy to collect data with: log((1 − ε) softmax(logp/T) + ε/number of actions).

    Balance losses hold for trajectories from anywhere, so what is drawn may explore more than what is learned. Actions
    of log-probability −∞ cannot be taken and stay so.

    Args:
        logp: log-probabilities or logits of the actions; at least one is finite.
        temperature: T > 0; above 1 flatter.
        uniform: ε in [0, 1].

    Raises:
        ValueError: if T ≤ 0 or ε is outside [0, 1].

    Source: tempered and ε-uniform behaviour policies, as in GFlowNets (arXiv 2106.04399) and OC-GFN (2310.03419).

    >>> exploring(torch.tensor([0.0, 0.0, -torch.inf]), uniform=0.5).exp()
    tensor([0.5000, 0.5000, 0.0000])
    """
    if not temperature > 0 or not 0 <= uniform <= 1:
        raise ValueError(f"temperature must be above 0 and uniform in [0, 1], got {temperature} and {uniform}")
    logp = logp.to(torch.promote_types(logp.dtype, torch.float32))
    possible = logp > -torch.inf
    spread = uniform * possible.to(logp) / possible.sum(-1, keepdim=True).clamp(min=1)
    mixed = (1 - uniform) * (logp / temperature).softmax(-1) + spread
    return torch.where(possible, mixed, 0.0).log()


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
