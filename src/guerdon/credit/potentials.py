"""Credit from potentials: any estimate of final success at the boundaries between steps, and its differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def progress(
    potentials: Float[Tensor, "n s+1"],
    mask: Bool[Tensor, "n s"],
    *,
    gamma: float = 1.0,
    tolerance: float = 0.0,
    lookahead: int = 0,
    decay: float = 0.7,
    limit: float | None = None,
) -> Float[Tensor, "n s"]:
    r"""What each step changed about the estimate of success.

        rⱼ = γ Φⱼ₊₁ − Φⱼ        Σⱼ rⱼ = Φ_end − Φ_0 for γ = 1

    Φ is whatever estimates success from a prefix: the accuracy of answers forced there, the probability of the true
    answer, a prover's value, the share of subgoals done, a process score. A constant: no gradient passes.

    Args:
        potentials: Φ before the first step and after each step; any real unit.
        mask: True where the step exists and both its potentials are known; the others are not read.
        gamma: the discount under which a shaped return has the optimal policy of the unshaped one.
        tolerance: changes smaller than this are none: an estimate from a few samples is never exactly still.
        lookahead: a step that changed nothing shares in the next change, if at most this many steps lie between it
            and the step of that change, the latter included: what prepares the turn is paid with it. 0: it is not.
        decay: the share for each step of distance; with `lookahead`.
        limit: clip to [−limit, limit], in the unit of the potentials.

    Returns:
        One per step, 0 where masked; the unit of the potentials.

    Raises:
        ValueError: if the shapes do not fit, or an option is out of range.

    Source: potential-based shaping, Ng et al. (1999); PAV (arXiv 2410.08146), MRT (2503.07572), IGPO
    (GuoqingWang1/IGPO), SPAE (2601.03823); look-ahead, 4 steps at 0.7 above 1e-5: VSRM (2508.10293).

    >>> progress(torch.tensor([[0.2, 0.2, 0.6, 0.6]]), torch.ones(1, 3, dtype=torch.bool), lookahead=4)
    tensor([[0.2800, 0.4000, 0.0000]])
    """
    if potentials.ndim != 2 or mask.shape != (potentials.shape[0], potentials.shape[1] - 1):
        raise ValueError(
            f"potentials {tuple(potentials.shape)} need one column more than mask {tuple(mask.shape)}: "
            "one before the first step and one after each"
        )
    if lookahead < 0 or tolerance < 0 or not 0 <= decay <= 1:
        raise ValueError(f"lookahead {lookahead} and tolerance {tolerance} are at least 0, decay {decay} is in [0, 1]")
    if limit is not None and not limit > 0:
        raise ValueError(f"limit must be positive, got {limit}")
    phi = _wide(potentials.detach())
    change = torch.where(mask, gamma * phi[:, 1:] - phi[:, :-1], 0)
    changed = (change != 0) & (change.abs() >= tolerance)
    change = torch.where(changed, change, 0)
    if lookahead and change.shape[1]:
        place = torch.arange(change.shape[1], device=change.device)
        found = torch.where(changed, place, change.shape[1]).flip(1).cummin(1).values.flip(1)
        distance = found - place
        ahead = change.gather(1, found.clamp(max=change.shape[1] - 1)) * decay ** distance.to(change.dtype)
        change = torch.where(mask & (distance <= lookahead), ahead, 0)
    return change if limit is None else change.clamp(-limit, limit)


def delta_rewards(scores: Float[Tensor, "n s"], mask: Bool[Tensor, "n s"]) -> Float[Tensor, "n s"]:
    r"""Process scores as rewards that cannot be collected by repeating good steps.

        rₖ = pₖ − pₖ₊₁ for k < K−1        r_{K−1} = p_{K−1}        r_K = 0

    What follows from step k then sums to its own score pₖ, however many steps there are. The last step is left to
    the outcome. `shaping.center(η) >> shaping.clip(high=0)` before it makes it Clip-Delta.

    Args:
        scores: one per step; any real unit.
        mask: True where the step exists; the steps of a row stand at its front.

    Returns:
        One reward per step, 0 where masked; the unit of the scores.

    Raises:
        ValueError: if the shapes differ, or a row has a step behind a missing one.

    Source: Delta of "On Designing Effective RL Reward at Training Time" (arXiv 2410.15115).

    >>> delta_rewards(torch.tensor([[0.9, 0.8, 0.95, 0.3]]), torch.ones(1, 4, dtype=torch.bool))
    tensor([[ 0.1000, -0.1500,  0.9500,  0.0000]])
    """
    in_front("scores", scores, mask)
    nothing = torch.zeros_like(mask[:, :1])
    followed = torch.cat([mask[:, 1:], nothing], 1)
    left = torch.where(followed, _wide(scores), 0).neg()
    return progress(
        torch.cat([left, torch.zeros_like(left[:, :1])], 1) if mask.shape[1] else left.new_zeros(len(left), 1), mask
    )


def repetition_slope(
    shape: Callable[[Tensor, Tensor], Tensor], scores: Float[Tensor, "s"], *, step: int, copies: int = 8
) -> float:
    """What each further copy of a step adds to the return: a process reward with a positive slope can be farmed.

    Args:
        shape: from step scores and mask (n, s) to step rewards, e.g. `delta_rewards`.
        scores: of the steps of one rollout.
        step: the one that is repeated, right behind itself.
        copies: up to how many; at least 1.

    Returns:
        The least-squares slope of the summed rewards against the number of copies, in the unit of the rewards.

    Raises:
        ValueError: if there is no such step, or no copy.

    Source: the repetition of trivial steps in "On Designing Effective RL Reward at Training Time" (arXiv 2410.15115).

    >>> round(repetition_slope(lambda scores, mask: scores, torch.tensor([0.9, 0.8]), step=0), 3)
    0.9
    """
    if scores.ndim != 1 or not 0 <= step < len(scores) or copies < 1:
        raise ValueError(f"step {step} is one of {tuple(scores.shape)} scores (s,), copies {copies} is at least 1")
    added = torch.arange(copies + 1, device=scores.device)
    place = torch.arange(len(scores) + copies, device=scores.device)
    source = torch.where(place > step, (place - added[:, None]).clamp(min=step), place)
    mask = place < len(scores) + added[:, None]
    rewards = shape(torch.where(mask, scores[source.clamp(max=len(scores) - 1)], 0), mask)
    totals = torch.where(mask, rewards, 0).double().sum(1)
    distance = added.double() - copies / 2
    return float((distance * totals).sum() / (distance**2).sum())


def best_of(success: Float[Tensor, "*shape"], k: int = 4) -> Float[Tensor, "*shape"]:
    r"""The success of a prover that takes the best of k continuations: 1 − (1 − q)ᵏ.

    Progress under a prover that nearly always or nearly never succeeds says nothing of the step; a middling k tells
    steps of the base policy apart.

    Args:
        success: q, the probability that one continuation succeeds, in [0, 1].
        k: continuations.

    Raises:
        ValueError: if a probability lies outside [0, 1], or k < 1.

    Source: the Best-of-K prover of PAV (arXiv 2410.08146), K = 4.

    >>> best_of(torch.tensor([0.5, 0.55]))
    tensor([0.9375, 0.9590])
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    success = _wide(success.detach())
    if bool(((success < 0) | (success > 1)).any()):
        raise ValueError("success must be probabilities, between 0 and 1")
    return -torch.expm1(k * torch.log1p(-success))


def prover_quality(
    prover: Float[Tensor, "n a"], policy: Float[Tensor, "n a"], mask: Bool[Tensor, "n a"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    r"""How much the progress under a prover can improve a policy.

        distinguishability  E_s Var_a Q^μ(s, a)        alignment  E_s E_a[A^μ(s, a) A^π(s, a)]

    One natural policy gradient step gains at least in proportion to their sum: choose the prover μ by it. A is Q less
    its mean over the actions.

    Args:
        prover: Q^μ after each of `a` next steps that the policy π drew from each of `n` prefixes.
        policy: Q^π after the same.
        mask: True where a step was drawn. Prefixes with fewer than two say nothing and are left out.

    Returns:
        Both numbers, in the squared unit of Q; 0 if no prefix counts. Moments of the drawn sample, with divisor a.

    Raises:
        ValueError: if the shapes differ.

    Source: theorem 3.1 of PAV (arXiv 2410.08146).
    """
    if not prover.shape == policy.shape == mask.shape or prover.ndim != 2:
        raise ValueError(
            f"prover {tuple(prover.shape)}, policy {tuple(policy.shape)} and mask {tuple(mask.shape)} "
            "need one shape (n, a)"
        )
    count = mask.sum(1, keepdim=True)
    advantages = []
    for values in (prover, policy):
        known = torch.where(mask, _wide(values.detach()), 0)
        advantages.append(torch.where(mask, known - known.sum(1, keepdim=True) / count.clamp(min=1), 0))
    chosen = count[:, 0] > 1
    states = chosen.sum().clamp(min=1)

    def expectation(product: Tensor) -> Tensor:
        return torch.where(chosen, product.sum(1) / count[:, 0].clamp(min=1), 0).sum() / states

    return expectation(advantages[0] ** 2), expectation(advantages[0] * advantages[1])


def step_potential(accuracy: Float[Tensor, "*shape"], confidence: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""One number for whether answers forced at a step are right and how sure they are.

        Φ = 3/2 · Acc · Conf + 1/2 · Acc − Conf        in [−1, 1]: sure and right 1, sure and wrong −1, neither 0

    Args:
        accuracy: mean probability of the true answer over the forced answers, in [0, 1].
        confidence: their mean of exp(−mean token entropy), in [0, 1].

    Raises:
        ValueError: if the shapes differ.

    Source: SPAE (arXiv 2601.03823; cii030/SPAE-RL).

    >>> step_potential(torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5]), torch.tensor([1.0, 1.0, 0.0, 0.0, 0.5]))
    tensor([ 1.0000, -1.0000,  0.0000,  0.5000,  0.1250])
    """
    if accuracy.shape != confidence.shape:
        raise ValueError(f"accuracy {tuple(accuracy.shape)} and confidence {tuple(confidence.shape)} need one shape")
    return 1.5 * accuracy * confidence + 0.5 * accuracy - confidence


def potential_advantages(
    advantages: Float[Tensor, "n"],
    potentials: Float[Tensor, "n s"],
    mask: Bool[Tensor, "n s"],
    *,
    saturated: float = 0.9,
    damped: float = 0.5,
    weight: float = 0.5,
    limit: float = 1.0,
) -> Float[Tensor, "n s"]:
    r"""A rollout's advantage, damped in steps after the answer is found and corrected by each step's progress.

        Aₖ = A · f(Φₖ) + ξ · clip(Φₖ − Φₖ₋₁, ±limit)        f = 1 for Φₖ ≤ saturated, else damped; the first change is 0

    The source's training code is not released: f, the clip, `damped` and ξ are our reading of it.

    Args:
        advantages: one per rollout, of `group_relative`.
        potentials: Φ after each step, e.g. of `step_potential`.
        mask: True where the step exists; the steps of a row stand at its front.
        saturated: the potential above which the answer counts as found.
        damped: f there.
        weight: ξ, in the unit of advantage per potential.
        limit: of the change, in the unit of the potentials.

    Returns:
        One per step, 0 where masked; the unit of the advantages. `spread(…, place="all")` puts them on tokens.

    Raises:
        ValueError: if the shapes do not fit, or a row has a step behind a missing one.

    Source: SPAE (arXiv 2601.03823).

    >>> found = torch.tensor([[0.2, 0.95, 1.0]])
    >>> potential_advantages(torch.tensor([1.0]), found, torch.ones(1, 3, dtype=torch.bool))
    tensor([[1.0000, 0.8750, 0.5250]])
    """
    in_front("potentials", potentials, mask)
    if advantages.shape != mask.shape[:1]:
        raise ValueError(f"advantages must be ({len(mask)},), one per row of mask, got {tuple(advantages.shape)}")
    phi = torch.where(mask, _wide(potentials.detach()), 0)
    factor = torch.where(phi > saturated, damped, 1.0)
    change = progress(torch.cat([phi[:, :1], phi], 1), mask, limit=limit) if mask.shape[1] else phi
    return torch.where(mask, _wide(advantages.detach())[:, None] * factor + weight * change, 0)


def regret(
    accuracy: Float[Tensor, "n c"], tokens: Float[Tensor, "c"], *, budget: float, best: float = 1.0
) -> Float[Tensor, "n"]:
    r"""How far a curve of accuracy against tokens stays below the best possible one.

        regret = best − (1 / C) ∫₀ᶜ J(c) dc        trapezoids; constant before the first and after the last point

    Args:
        accuracy: J at each number of tokens, e.g. of answers forced there; in [0, 1].
        tokens: the numbers, rising, at least 0.
        budget: C > 0, in tokens.
        best: J of the comparator that is always right.

    Returns:
        One per row, in the unit of accuracy: 0 if always as good as the comparator, `best` if always wrong.

    Raises:
        ValueError: if the shapes do not fit, there is no point, the tokens do not rise, or the budget is not positive.

    Source: normalised regret of MRT (arXiv 2503.07572).

    >>> regret(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.tensor([0.0, 8192.0]), budget=8192)
    tensor([0.5000, 0.0000])
    """
    if accuracy.ndim != 2 or tokens.shape != accuracy.shape[1:] or not len(tokens):
        raise ValueError(
            f"accuracy must be (n, c) and tokens (c,), c ≥ 1: {tuple(accuracy.shape)}, {tuple(tokens.shape)}"
        )
    if bool((tokens[1:] <= tokens[:-1]).any()) or bool(tokens[0] < 0) or not budget > 0:
        raise ValueError("tokens must rise from 0 or more, and budget must be positive")
    curve, at = _wide(accuracy.detach()), _wide(tokens).clamp(max=budget)
    width = _wide(tokens).diff()
    # Where the budget cuts a segment, its end is the point on the line at the budget.
    share = torch.where(width > 0, at.diff() / width, 0)
    ends = curve[:, :-1] + (curve[:, 1:] - curve[:, :-1]) * share
    area = (at.diff() * (curve[:, :-1] + ends) / 2).sum(1) + at[0] * curve[:, 0] + (budget - at[-1]) * curve[:, -1]
    return best - area / budget


def in_front(name: str, values: Tensor, mask: Tensor) -> None:
    """Raise a ValueError unless the shapes are one (n, s) and each row is steps and then padding."""
    if values.shape != mask.shape or mask.ndim != 2:
        raise ValueError(f"{name} {tuple(values.shape)} and mask {tuple(mask.shape)} need one shape (n, s)")
    behind = (mask[:, 1:] & ~mask[:, :-1]).any(1)
    if bool(behind.any()):
        raise ValueError(f"mask: row {int(behind.nonzero()[0])} has a step behind a missing one")


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
