"""What trajectories are made of: log R of their ends, log P_F of their steps, and what to draw them from."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
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
