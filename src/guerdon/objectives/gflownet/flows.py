"""The balance of the flows that a critic learns, in rollouts of a language policy: of single edges, of all parts.

Text is a tree: a state is a prefix, its flow F the sum of R over all that it can become, and log P_B is 0. A token is
an edge; tokens between that the policy did not write are passed over, as the environment's they have no choice in them.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.objectives.gflownet import steps
from guerdon.objectives.gflownet.balance import edge_balance, subtrajectory_balance

Place = Literal["end", "edges"]


def reward_edge_balance(
    logp: Float[Tensor, "n t"],
    rewards: Float[Tensor, "n"],
    mask: Bool[Tensor, "n t"],
    *,
    values: Float[Tensor, "n t"],
    ref_logp: Float[Tensor, "n t"] | None = None,
    place: Place = "end",
    kind: Literal["exp", "floor"] = "exp",
    temperature: float = 1.0,
    floor: float = 1e-3,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""`edge_balance` of rollouts: detailed balance with the flows of a critic, the mean over tokens.

        loss = 1/D Σ (log F(sₜ) + log π(yₜ|sₜ) − log F(sₜ₊₁))²        log F(end) = log R

    It is 0 exactly when the policy writes in proportion to R (with a reference, to π_ref · R), the values being the
    logarithms of the flows. Every token has an equation of its own, where `reward_balance` has one for all.

    Args:
        logp: log-probabilities of the tokens under the policy, in nats; with gradients.
        rewards: one per rollout.
        mask: True at the tokens written by the policy, in rows that have a score.
        values: log F of the state before each token, learned; with gradients.
        ref_logp: under the reference; None: a uniform one.
        place: of the reward. "end": it is the flow of what the rollout ends in. "edges", outcome teleportation, for
            rewards of 1 and 0 ("floor"), given an outcome that the prompt states: log R stands in every equation and
            the flow at the end is 1, so that the first tokens learn of it at once. Rollouts of reward 1 are then what
            the policy keeps to; of other rewards it is another distribution than R's.
        kind, temperature, floor: as for `log_reward`.
        denominator: the number of tokens of the whole batch, where this is a part of it.

    Returns:
        The loss, and sums, detached: "tokens", "edge_error" (squared), "trajectories" and "log_z" (the value before the
        first token of each).

    Raises:
        ValueError: as `log_reward` and `edge_balance`.

    Source: detailed balance (arXiv 2111.09266); outcomes: OC-GFN (2310.03419, §4.1).

    >>> half, here = torch.tensor([[0.5, 0.5]]).log(), torch.ones(1, 2, dtype=bool)
    >>> flows = torch.tensor([[4.0, 2.0]]).log()  # the rollout is worth 1, and so are the three others
    >>> reward_edge_balance(half, torch.tensor([0.0]), here, values=flows)[0]
    tensor(0.)
    """
    path, flow, there = _written(logp, values, mask, ref_logp)
    target = steps.log_reward(rewards, kind=kind, temperature=temperature, floor=floor)
    at_end = place == "end"
    loss, sums = edge_balance(
        flow,
        path,
        torch.zeros_like(path),
        target if at_end else torch.zeros_like(target),
        there,
        log_outcome=None if at_end else target,
        denominator=denominator,
    )
    return loss, {"tokens": sums["steps"], "edge_error": sums["error"], **_start(flow, there)}


def reward_subtrajectory_balance(
    logp: Float[Tensor, "n t"],
    rewards: Float[Tensor, "n"],
    mask: Bool[Tensor, "n t"],
    *,
    values: Float[Tensor, "n t"],
    rows: Bool[Tensor, "n"],
    ref_logp: Float[Tensor, "n t"] | None = None,
    place: Place = "end",
    kind: Literal["exp", "floor"] = "exp",
    temperature: float = 1.0,
    floor: float = 1e-3,
    decay: float = 0.9,
    longest: int | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""`subtrajectory_balance` of rollouts, with the flows of a critic: between all states of each, near ones more.

        loss = 1/N Σᵢ Σ_{j<k} λ^{k−j} (log F(sⱼ) + Σ_{j≤t<k} log π(yₜ|sₜ) − log F(sₖ))² / Σ_{j<k} λ^{k−j}

    Between `reward_edge_balance` (λ → 0), which hands a reward on from token to token, and `reward_balance`, of the
    longest part alone, whose gradients have more noise. Takes n t² numbers.

    Args:
        logp, rewards, mask, values, ref_logp, place, kind, temperature, floor: as for `reward_edge_balance`.
        rows: rollouts with a score.
        decay: λ in (0, 1], per token of distance.
        longest: the most tokens between two states that are compared; None: all.
        denominator: the number of rollouts with a score of the whole batch, where this is a part of it.

    Returns:
        The loss, and sums, detached: "tokens", "trajectories" and "log_z" (the value before the first token of each).

    Raises:
        ValueError: as `log_reward` and `subtrajectory_balance`.

    Source: SubTB(λ) (arXiv 2209.12782).

    >>> half, here = torch.tensor([[0.5, 0.5]]).log(), torch.ones(1, 2, dtype=bool)
    >>> flows = torch.tensor([[4.0, 2.0]]).log()
    >>> reward_subtrajectory_balance(half, torch.tensor([0.0]), here, values=flows, rows=here[:, 0])[0]
    tensor(0.)
    """
    path, flow, there = _written(logp, values, mask & rows[:, None], ref_logp)
    target = steps.log_reward(rewards, kind=kind, temperature=temperature, floor=floor)
    after = torch.nn.functional.pad(flow, (0, 1))
    # Where parts are compared, a state's log F stands as the log P_stop − log R of a state that may stop stands there.
    end = torch.zeros_like(after, dtype=target.dtype).scatter(1, there.sum(1, keepdim=True), target[:, None])
    at_end = place == "end"
    loss, sums = subtrajectory_balance(
        path,
        -after,
        end if at_end else torch.zeros_like(end),
        there,
        decay=decay,
        longest=longest,
        backward_logp=None if at_end else target[:, None].expand_as(path),
        denominator=denominator,
    )
    return loss, {"tokens": there.sum().to(sums["trajectories"]), **_start(flow, there)}


def _written(
    logp: Tensor, values: Tensor, mask: Tensor, ref_logp: Tensor | None
) -> tuple[Float[Tensor, "n t"], Float[Tensor, "n t"], Bool[Tensor, "n t"]]:
    """log π − log π_ref and log F at the written tokens of each row, which are put first, and where there are any."""
    wanted = tuple(mask.shape)
    for name, value in (("logp", logp), ("values", values), ("ref_logp", ref_logp)):
        if value is not None and tuple(value.shape) != wanted:
            raise ValueError(f"{name} must be {wanted} like mask, got {tuple(value.shape)}")
    order = mask.argsort(dim=1, descending=True, stable=True)
    wide = torch.promote_types(logp.dtype, torch.float32)
    path = logp.to(wide) if ref_logp is None else logp.to(wide) - ref_logp.detach().to(wide)
    path, flow = (torch.where(mask, x, 0.0).gather(1, order) for x in (path, values.to(wide)))
    return path, flow, mask.gather(1, order)


def _start(flow: Tensor, there: Tensor) -> dict[str, Tensor]:
    return {"trajectories": there.any(1).sum().to(flow), "log_z": flow.detach()[:, :1].sum()}
