"""Advantages from comparison within a group of rollouts: GRPO, Dr. GRPO, RLOO and REINFORCE are its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Pool = Literal["rollout", "all", "position"]
Baseline = Literal["mean", "loo", "unbiased", "none"]
Scale = Literal["std", "batch", "none"]
Ended = Literal["absent", "held"]

NO_SIGNAL = 1e-6


def group_relative(
    rewards: Float[Tensor, "n *s"],
    groups: Int[Tensor, "n"],
    *,
    mask: Bool[Tensor, "n *s"] | None = None,
    pool: Pool = "rollout",
    baseline: Baseline = "mean",
    scale: Scale = "std",
    ddof: int = 1,
    eps: float = 1e-4,
    baseline_rows: Bool[Tensor, "n"] | None = None,
    ended: Ended = "absent",
) -> Float[Tensor, "n *s"]:
    r"""How much better a rollout (or a step of it) did than the rest of its group.

        Aᵢ = (rᵢ − b) / (σ + eps)

    b is the mean of the group, or of the *other* rollouts of the group, or 0; σ is the standard deviation
    of the group or of the whole batch; without a scale the division is left out. An advantage is a
    constant: no gradient passes through it. Statistics are taken in float32 or wider.

    What cannot be compared has advantage exactly 0, never ±10⁶: a rollout without others in its group (unless
    there is no baseline), and a group whose rewards are equal up to rounding, σ ≤ 10⁻⁶ · max|r|.

    Args:
        rewards: one per rollout, or one per step and rollout; any real unit.
        groups: rows with equal numbers are compared; any integers, in any order, in groups of any sizes.
        mask: False where the reward abstained or the step does not exist: advantage 0, and no part in any
            statistic, whatever number stands there. "n" or the shape of `rewards`.
        pool: what one sample of the statistics is, for rewards per step. "rollout": the mean of a rollout's
            steps, so that a rollout counts once however many steps it has (a mean, because a step is to be
            compared with it in its own unit); "all": every step of the group; "position": every step, among
            those of the same index. All three are the same for one reward per rollout.
        baseline: "mean"; "loo", the mean over the other rollouts, which leaves the policy gradient unbiased;
            "unbiased", the mean with the factor count / (count − own) on the difference, which for one reward per
            rollout is "loo", and for steps keeps a step's distance from the mean of all; or "none".
        scale: "std", of the group; "batch", of all samples of the batch, which does not blow up nearly
            solved and nearly hopeless prompts; or "none".
        ddof: σ² = Σ(r − mean)² / (count − ddof); sources differ, torch and TRL take 1.
        eps: added to σ; in the unit of the rewards.
        baseline_rows: the rows that enter mean and σ, by default all. The others (an expert's rollouts, say)
            are compared with these.
        ended: for "position", what a rollout that has ended is to those that go on: "absent", or "held" at its last
            value, so that a long rollout is compared with all others however early they stopped.

    Returns:
        Advantages in the shape of `rewards`: without unit if scaled, else in the unit of the rewards.

    Raises:
        ValueError: if the shapes do not fit, or ended is "held" with another pool than "position".

    Source: GRPO, DeepSeekMath (arXiv 2402.03300, §4.1); scale "none": Dr. GRPO (2503.20783); "batch": Lite PPO
    (2508.08221); "loo": RLOO (2402.14740); "unbiased" and per-rollout means of step rewards: PRIME (2502.01456);
    "position" and "held": DECS (pixas/DECS); "all": IGPO (GuoqingWang1/IGPO), iStar (2509.19199); eps and ddof: TRL.

    >>> group_relative(torch.tensor([1.0, 0.0, 0.0, 5.0, 5.0]), torch.tensor([7, 7, 7, 2, 2]), scale="none")
    tensor([ 0.6667, -0.3333, -0.3333,  0.0000,  0.0000])
    """
    _check_shapes(rewards, groups, mask, baseline_rows)
    if ended not in get_args(Ended):
        raise ValueError(f"ended is 'absent' or 'held', got {ended!r}")
    if ended == "held" and pool != "position":
        raise ValueError(f"ended='held' compares places: it needs pool='position', got {pool!r}")
    wide = torch.promote_types(rewards.dtype, torch.float32)
    result = rewards.dtype if rewards.is_floating_point() else wide
    if rewards.numel() == 0:
        return rewards.detach().to(result)
    n = len(rewards)
    exists = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask
    exists = exists.reshape(n, -1).expand(n, rewards[0].numel())
    values = torch.where(exists, rewards.detach().reshape(exists.shape).to(wide), 0.0)
    counted = exists
    if ended == "held":
        values, counted = _held(values, exists)
    if baseline_rows is not None:
        counted = counted & baseline_rows[:, None]

    samples, weights = torch.where(counted, values, 0.0), counted.to(wide)
    sizes = samples.abs()
    if pool == "rollout":
        steps = weights.sum(1, keepdim=True)
        samples, weights = samples.sum(1, keepdim=True) / steps.clamp(min=1), (steps > 0).to(wide)
        sizes = sizes.amax(1, keepdim=True)

    distinct, group = torch.unique(groups, return_inverse=True)
    cells = samples.new_zeros(len(distinct), samples.shape[1])

    def total(x: Tensor) -> Tensor:
        sums = cells.index_add(0, group, x)
        return (sums.sum(1, keepdim=True) if pool == "all" else sums)[group]

    count, mean, sigma = _moments(samples, weights, total, ddof)
    peak = cells.scatter_reduce(0, group[:, None].expand_as(sizes), sizes, "amax")
    peak = (peak.amax(1, keepdim=True) if pool == "all" else peak)[group]
    flat = sigma <= NO_SIGNAL * peak

    if baseline == "none":
        advantages, silent = values, flat & (scale == "std")
    else:
        own, own_count = (x.sum(1, keepdim=True) if pool == "all" else x for x in (samples * weights, weights))
        others = count - own_count
        advantages = values - ((count * mean - own) / others.clamp(min=1) if baseline == "loo" else mean)
        if baseline == "unbiased":
            advantages = advantages * count / others.clamp(min=1)
        # No sample of a flat group is further than σ√count from its mean. What is further (a step within its rollout,
        # a row outside the baseline) really differs: it only cannot be measured in units of this σ.
        level = (values - mean).abs() <= NO_SIGNAL * count.sqrt() * peak
        silent = (others == 0) | (flat & (level | (scale == "std")))
    if scale == "batch":
        _, _, sigma = _moments(samples, weights, torch.sum, ddof)
        silent = silent | (sigma <= NO_SIGNAL * sizes.max())
    if scale != "none":
        advantages = advantages / (sigma + eps)
    return torch.where(exists & ~silent, advantages, 0.0).reshape(rewards.shape).to(result)


def _held(values: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's last value on all places after it, and where there is now a value."""
    places = torch.arange(values.shape[1], device=values.device)
    last = torch.where(exists, places, -1).amax(1, keepdim=True)
    after = (last >= 0) & (places > last)
    return torch.where(after, values.gather(1, last.clamp(min=0)), values), exists | after


def length_relative(
    rewards: Float[Tensor, "n s"],
    lengths: Int[Tensor, "n s"],
    groups: Int[Tensor, "n"],
    *,
    mask: Bool[Tensor, "n s"] | None = None,
) -> Float[Tensor, "n s"]:
    r"""Step rewards less what the other rollouts of the group earn on that many tokens.

        Aᵢₕ = rᵢₕ − bᵢ Lᵢₕ        bᵢ = Σ_{j≠i} Σₕ rⱼₕ / Σ_{j≠i} Σₕ Lⱼₕ

    A baseline per step would pay for a few giant steps; one per token does not care where a text is cut. A constant.
    A rollout without others in its group, or whose others have no tokens, cannot be compared: 0.

    Args:
        rewards: one per step; any real unit.
        lengths: tokens of each step.
        groups: rows with equal numbers are compared.
        mask: False where the step does not exist or was not scored.

    Returns:
        One per step, in the unit of the rewards; 0 where masked.

    Raises:
        ValueError: if the shapes do not fit, or a length is negative.

    Source: the token-level leave-one-out baseline of PURE (arXiv 2504.15275; CJReinforce/PURE).

    >>> length_relative(torch.tensor([[4.0], [1.0]]), torch.tensor([[2], [1]]), torch.tensor([0, 0]))
    tensor([[ 2.],
            [-1.]])
    """
    _check_shapes(rewards, groups, mask, None)
    if rewards.ndim != 2 or lengths.shape != rewards.shape:
        raise ValueError(f"lengths must be {tuple(rewards.shape)} like rewards (n, s), got {tuple(lengths.shape)}")
    exists = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask.reshape(len(rewards), -1)
    wide = torch.promote_types(rewards.dtype, torch.float32)
    exists = exists.expand(rewards.shape)
    earned, taken = (torch.where(exists, x.detach(), 0).to(wide) for x in (rewards, lengths))
    if bool((taken < 0).any()):
        raise ValueError("lengths must not be negative")
    distinct, group = torch.unique(groups, return_inverse=True)

    def others(x: Tensor) -> Tensor:
        own = x.sum(1)
        return x.new_zeros(len(distinct)).index_add(0, group, own)[group] - own

    tokens = others(taken)[:, None]
    rate = others(earned)[:, None] / torch.where(tokens > 0, tokens, 1)
    found = torch.where(exists & (tokens > 0), earned - rate * taken, 0)
    return found.to(rewards.dtype if rewards.is_floating_point() else wide)


def group_moments(
    rewards: Float[Tensor, "n"], groups: Int[Tensor, "n"], mask: Bool[Tensor, "n"], *, ddof: int = 1
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Mean and standard deviation of each row's group; σ is exactly 0 where it is only rounding."""
    wide = torch.promote_types(rewards.dtype, torch.float32)
    values, weights = torch.where(mask, rewards.detach(), 0).to(wide), mask.to(wide)
    distinct, group = torch.unique(groups, return_inverse=True)
    cells = values.new_zeros(len(distinct))
    _, mean, sigma = _moments(values, weights, lambda x: cells.index_add(0, group, x)[group], ddof)
    peak = cells.scatter_reduce(0, group, values.abs(), "amax")[group]
    return mean, torch.where(sigma > NO_SIGNAL * peak, sigma, 0)


def _moments(
    samples: Tensor, weights: Tensor, total: Callable[[Tensor], Tensor], ddof: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and standard deviation of what `total` adds up; 0 where there is nothing to measure."""
    count = total(weights)
    mean = total(samples * weights) / count.clamp(min=1)
    variance = total(weights * (samples - mean) ** 2) / (count - ddof).clamp(min=1)
    return count, mean, variance.sqrt()


def _check_shapes(rewards: Tensor, groups: Tensor, mask: Tensor | None, baseline_rows: Tensor | None) -> None:
    if rewards.ndim not in (1, 2):
        raise ValueError(f"rewards must be (n,) or (n, s), got {tuple(rewards.shape)}")
    rows = rewards.shape[:1]
    for name, value, shapes in (
        ("groups", groups, (rows,)),
        ("mask", mask, (rows, rewards.shape)),
        ("baseline_rows", baseline_rows, (rows,)),
    ):
        if value is not None and value.shape not in shapes:
            wanted = " or ".join(str(tuple(shape)) for shape in dict.fromkeys(shapes))
            raise ValueError(f"{name} must be {wanted} beside rewards {tuple(rewards.shape)}, got {tuple(value.shape)}")
