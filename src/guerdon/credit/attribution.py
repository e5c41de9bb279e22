"""One return as rewards of the steps that earned it, and rewards of steps made of several signals."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@torch.no_grad()
def redistribute(
    total: Float[Tensor, "n"],
    importance: Float[Tensor, "n s"],
    mask: Bool[Tensor, "n s"],
    *,
    temperature: float = 1.0,
    gamma: float = 1.0,
) -> Float[Tensor, "n s"]:
    r"""Share a return out among its steps by their importance.

        rᵢ = wᵢ R / γⁱ        w = softmax(u / T)        Σᵢ γⁱ rᵢ = R

    Args:
        total: R, one per rollout; any real unit.
        importance: u, e.g. the bound gained by a branching or the attention of the last step; higher earns more.
        mask: True where the step exists. The return of a rollout without steps goes nowhere.
        temperature: T > 0, in the unit of the importance: as it falls, all goes to the most important step.
        gamma: γ in (0, 1], the discount under which the return at the first step is to stay R. With γ < 1 and plain
            shares, it would shrink the later they are paid.

    Returns:
        One per step, 0 where masked; the unit of the return.

    Raises:
        ValueError: if the shapes do not fit or an option is out of range.

    Source: reward redistribution as in ReviBranch (arXiv 2508.17452), whose importance score is not stated.

    >>> redistribute(torch.tensor([6.0]), torch.zeros(1, 3), torch.tensor([[True, True, True]]))
    tensor([[2., 2., 2.]])
    """
    _check("importance", importance, mask)
    if total.shape != mask.shape[:1]:
        raise ValueError(f"total must be ({len(mask)},), one per row of mask, got {tuple(total.shape)}")
    if not temperature > 0 or not 0 < gamma <= 1:
        raise ValueError(f"temperature must be positive and gamma in (0, 1], got {temperature} and {gamma}")
    if not importance.numel():
        return torch.zeros_like(importance)
    wide = torch.promote_types(importance.dtype, torch.promote_types(total.dtype, torch.float32))
    known = torch.where(mask, importance.to(wide), -torch.inf)
    best = known.amax(1, keepdim=True)
    shares = torch.where(mask, ((known - best) / temperature).exp(), 0)
    shares = shares / shares.sum(1, keepdim=True).clamp(min=torch.finfo(wide).tiny)
    steps = mask.cumsum(1) - 1
    return torch.where(mask, total.to(wide)[:, None] * shares / gamma ** steps.to(wide), 0)


def renormalize(
    process: Float[Tensor, "n s"],
    outcome: Float[Tensor, "n"],
    mask: Bool[Tensor, "n s"],
    *,
    center: float | None = 1.0,
) -> Float[Tensor, "n s"]:
    r"""Scores of turns with the outcome at the last, the others shifted so that no turn of a lost episode pays.

        r̂ₜ = pₜ + r_o − μ before the last turn        r̂ = r_o at the last

    With p and r_o in [0, 1] and μ = 1 every turn of a won episode earns at least 0 and of a lost one at most 0; at
    μ = 0 further turns would raise the return of a lost episode.

    Args:
        process: p, one per turn; that of the last turn, where the outcome is paid, is not read.
        outcome: r_o, one per rollout.
        mask: True where the turn exists and was scored; the last that exists is the last turn. An unscored turn is
            left out: 0.
        center: μ, in the unit of the rewards; None: the outcome is paid at the last turn only.

    Returns:
        One per turn, 0 where masked; a rollout of one turn has its outcome.

    Raises:
        ValueError: if the shapes do not fit.

    Source: ReNorm of PPR (arXiv 2509.25598; Zhuohao-Li/ppr); None: IGPO (2510.14967).

    >>> renormalize(torch.tensor([[0.2, 0.8, 0.0]]), torch.tensor([0.0]), torch.ones(1, 3, dtype=torch.bool))
    tensor([[-0.8000, -0.2000,  0.0000]])
    """
    _check("process", process, mask)
    if outcome.shape != mask.shape[:1]:
        raise ValueError(f"outcome must be ({len(mask)},), one per row of mask, got {tuple(outcome.shape)}")
    later = mask.flip(1).cumsum(1).flip(1) > 1
    own, end = torch.where(mask, process.detach(), 0), outcome.detach()[:, None]
    return torch.where(mask, torch.where(later, own if center is None else own + end - center, end), 0)


def grounded_rewards(
    progress: Float[Tensor, "n s"],
    executed: Bool[Tensor, "n s"],
    mask: Bool[Tensor, "n s"],
    *,
    alpha: float = 1.0,
    beta: float = 0.5,
    remaining: bool = False,
) -> Float[Tensor, "n s"]:
    r"""Step rewards from attributed progress and from whether the action could be carried out: r = α c + β g.

    Args:
        progress: c, one per step, e.g. of a model whose sum over the steps is fitted to the return.
        executed: g, True where the environment carried the action out; the last action counts as carried out.
        mask: True where the step exists.
        alpha: of c.
        beta: of g, in the unit of c; 0.5 is what the release adds.
        remaining: times the number of later steps, as the release has it, which leaves the last step nothing.

    Returns:
        One per step, 0 where masked; the unit of `progress`.

    Raises:
        ValueError: if the shapes differ.

    Source: SPA-RL (arXiv 2505.20732; WangHanLinHenry/SPA-RL-Agent).

    >>> ran = torch.tensor([[False, True]])
    >>> grounded_rewards(torch.tensor([[0.25, 0.75]]), ran, torch.ones(1, 2, dtype=torch.bool))
    tensor([[0.2500, 1.2500]])
    """
    _check("progress", progress, mask)
    _check("executed", executed, mask)
    later = mask.flip(1).cumsum(1).flip(1) - mask.long()
    fused = alpha * progress.detach() + beta * (executed | (later == 0))
    return torch.where(mask, fused * later if remaining else fused, 0)


def subgoal_bonus(
    achieved: Bool[Tensor, "n s m"],
    mask: Bool[Tensor, "n s"],
    *,
    weights: Float[Tensor, "m"] | None = None,
    once: bool = True,
) -> Float[Tensor, "n s"]:
    r"""What each step earns for the subgoals reached on it: Σ_g w_g 1[g reached on this step].

    The share of subgoals done so far is a potential: `progress` of it pays the same in a form under which the best
    policy stays the best; `subgoal_potential` gives it.

    Args:
        achieved: whether each of `m` subgoals is reached on each step, as a judge of transitions says.
        mask: True where the step exists.
        weights: one per subgoal, in the unit of the reward; by default 1.
        once: pay a subgoal the first time only: a loop that drops a key to pick it up again would otherwise collect
            for ever.

    Returns:
        One per step, 0 where masked.

    Raises:
        ValueError: if the shapes do not fit.

    Source: CALM (arXiv 2409.12798), where a subgoal pays every time.

    >>> picked = torch.tensor([[[True], [False], [True]]])
    >>> subgoal_bonus(picked, torch.ones(1, 3, dtype=torch.bool))
    tensor([[1., 0., 0.]])
    """
    reached = _reached(achieved, mask)
    if weights is not None and weights.shape != achieved.shape[2:]:
        raise ValueError(f"weights must be ({achieved.shape[2]},), one per subgoal, got {tuple(weights.shape)}")
    if once:
        reached = reached & (reached.cumsum(1) == 1)
    each = reached.new_ones(achieved.shape[2], dtype=torch.float32) if weights is None else weights
    return reached.to(each.dtype) @ each


def subgoal_potential(achieved: Bool[Tensor, "n s m"], mask: Bool[Tensor, "n s"]) -> Float[Tensor, "n s+1"]:
    r"""The share of subgoals reached before the first step and after each: a potential for `progress`.

    Args:
        achieved: whether each of `m` subgoals is reached on each step.
        mask: True where the step exists.

    Raises:
        ValueError: if the shapes do not fit, or there is no subgoal.

    Source: CALM (arXiv 2409.12798); as a potential: ours.

    >>> subgoal_potential(torch.tensor([[[True, False], [True, True]]]), torch.ones(1, 2, dtype=torch.bool))
    tensor([[0.0000, 0.5000, 1.0000]])
    """
    reached = _reached(achieved, mask)
    if not achieved.shape[2]:
        raise ValueError("achieved has no subgoals: a share of none is not a number")
    share = (reached.cumsum(1) > 0).float().mean(2)
    return torch.cat([share.new_zeros(len(share), 1), share], 1)


def _reached(achieved: Tensor, mask: Tensor) -> Tensor:
    if achieved.ndim != 3 or achieved.shape[:2] != mask.shape:
        raise ValueError(f"achieved must be (n, s, m) beside mask (n, s): {tuple(achieved.shape)}, {tuple(mask.shape)}")
    return achieved & mask[:, :, None]


def _check(name: str, values: Tensor, mask: Tensor) -> None:
    if values.shape != mask.shape or mask.ndim != 2:
        raise ValueError(f"{name} {tuple(values.shape)} and mask {tuple(mask.shape)} need one shape (n, s)")
