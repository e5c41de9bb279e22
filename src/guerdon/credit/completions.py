"""Credit of denoising steps from one table: the rewards of the clean samples that each state leads to without noise.

`table[i, t]` is the reward of state t of trajectory i, completed by the ODE; the first state is noise, the last one is
the sample. What a step gained is `progress` of the table; the same numbers are compared step by step within a group by
`group_relative(…, pool="position")`.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.credit.group import group_relative
from guerdon.credit.potentials import progress

Main = Literal["gain", "whole"]


@torch.no_grad()
def turning_points(
    table: Float[Tensor, "n s+1"],
    *,
    final: Float[Tensor, "n"] | None = None,
    mask: Bool[Tensor, "n s"] | None = None,
    balance: bool = True,
    consistent: bool = True,
    main: Main = "gain",
) -> Float[Tensor, "n s"]:
    r"""Step gains, and where a step turns a trajectory its way, all that it led to.

        dₜ = Rₜ − Rₜ₋₁        rₜ = R_f − Rₜ₋₁ at a turning point,  dₜ elsewhere

    A step turns a trajectory if dₜ, what followed it (R_f − Rₜ) and the whole (R_f − R₀) have one sign, and the step
    before, if there is one, had the other.

    A step gain says what a step did at once; what it made possible is paid to it too where it began a turn that the
    rest of the trajectory went on with. Since dₜ and R_f − Rₜ have one sign there, so has R_f − Rₜ₋₁: it is larger
    than dₜ, never of another sign. The release's configurations begin with `consistent=False` and `main="whole"`, its
    scripts train with the defaults here.

    Args:
        table: rewards R₀ … R_T of completed states; any real unit.
        final: R_f, the reward of the sample itself; default: the last of the table. Then the last step never turns.
        mask: True where the step was stochastic and both its rewards are known; the others are not read.
        balance: keep as many turns for the better as for the worse in the batch, those with the largest rewards; the
            others are paid as if they did not turn. With only one sign in the batch all are kept. 'Largest' is of
            what a turn alone is paid: R_f − Rₜ₋₁, or dₜ beside the whole.
        consistent: what followed a turn went on its way. Without it a turn that was soon undone counts too, and may be
            paid R_f − Rₜ₋₁ of another sign than its gain.
        main: "gain": a step is paid dₜ, and R_f − Rₜ₋₁ in its place at a turn. "whole": every step is paid R_f − R₀,
            as without step rewards, and dₜ more at a turn; a row whose R₀ or R_f is not finite is then paid 0.

    Returns:
        One reward per step, 0 where masked.

    Raises:
        ValueError: if the shapes do not fit, or main is unknown.

    Source: TurningPoint-GRPO (arXiv 2602.06422; YunzeTong/TurningPoint-GRPO).

    >>> turning_points(torch.tensor([[0.5, 0.4, 0.6, 0.7]]), final=torch.tensor([0.75]))
    tensor([[-0.1000,  0.3500,  0.1000]])
    """
    usual, at_turns, turning = _turns(table, final, mask, balance, consistent, main)
    return torch.where(turning, at_turns, usual)


@torch.no_grad()
def turning_steps(
    table: Float[Tensor, "n s+1"],
    *,
    final: Float[Tensor, "n"] | None = None,
    mask: Bool[Tensor, "n s"] | None = None,
    balance: bool = True,
    consistent: bool = True,
    main: Main = "gain",
) -> Bool[Tensor, "n s"]:
    """Which steps `turning_points` pays all that they led to.

    Args:
        table, final, mask, balance, consistent, main: as there.

    Raises:
        ValueError: if the shapes do not fit, or main is unknown.

    Source: TurningPoint-GRPO (arXiv 2602.06422).

    >>> turning_steps(torch.tensor([[0.5, 0.4, 0.6, 0.7]]), final=torch.tensor([0.75]))
    tensor([[False,  True, False]])
    """
    return _turns(table, final, mask, balance, consistent, main)[2]


def _turns(
    table: Tensor, final: Tensor | None, mask: Tensor | None, balance: bool, consistent: bool, main: Main
) -> tuple[Tensor, Tensor, Tensor]:
    """What a step is paid if it does not turn, what if it does, and which steps turn."""
    if main not in get_args(Main):
        raise ValueError(f"main must be one of {', '.join(get_args(Main))}, got {main!r}")
    if table.ndim != 2 or table.shape[1] < 1:
        raise ValueError(f"table must be (n, s+1), one reward per state, got {tuple(table.shape)}")
    n, t = len(table), table.shape[1] - 1
    known = torch.ones(n, t, dtype=torch.bool, device=table.device) if mask is None else mask
    ended = table[:, -1] if final is None else final
    if known.shape != (n, t) or ended.shape != (n,):
        raise ValueError(
            f"mask {tuple(known.shape)} and final {tuple(ended.shape)} must be ({n}, {t}) and ({n},) "
            f"beside table {tuple(table.shape)}"
        )
    gains = progress(table, known)
    ahead = ended.detach().to(gains.dtype)[:, None] - table.detach().to(gains.dtype)  # R_f − Rₜ; NaN where not known
    way, whole = gains.sign(), ahead[:, :1]
    turning = known & (way != 0) & (way == whole.sign())
    turning[:, 1:] &= way[:, 1:] == -way[:, :-1]
    if consistent:
        turning &= way == ahead[:, 1:].sign()
    usual, own, at_turns = gains, ahead[:, :-1], ahead[:, :-1]
    if main == "whole":
        usual, own = torch.where(known & whole.isfinite(), whole, 0.0), gains
        at_turns = usual + own
    turning &= own != 0
    return usual, at_turns, _balanced(own, turning) if balance else turning


@torch.no_grad()
def granular_relative(
    tables: Float[Tensor, "k n t"],
    groups: Int[Tensor, "n"],
    *,
    mask: Bool[Tensor, "k n t"] | None = None,
    ddof: int = 1,
    eps: float = 1e-8,
) -> Float[Tensor, "n t"]:
    r"""Several views of one step, each compared within the group and step in its own unit, then added.

        A = Σₖ group_relative(Rₖ, pool="position")

    A step that alone was noisy is completed along several schedules, or scored by several rewards; what only one
    of them sees counts less than what all see. Added, not averaged: steps that all views agree on pull k-fold.

    Args:
        tables: Rₖ[i, t], reward k of the sample that differs from its group by the noise of step t; each k in a unit
            of its own.
        groups: rows with equal numbers began with the same noise.
        mask: False where a reward abstained: it adds 0 and is in no statistic.
        ddof, eps: of `group_relative`.

    Returns:
        One per row and step, without unit.

    Raises:
        ValueError: if the shapes do not fit.

    Source: multi-granularity advantages of G2RPO (arXiv 2510.01982; bcmi/Granular-GRPO).

    >>> tables = torch.tensor([[1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 3.0]])[..., None]
    >>> granular_relative(tables, torch.zeros(4, dtype=torch.long))[:, 0]
    tensor([-1.5492, -1.5492,  1.5492,  1.5492])
    """
    if tables.ndim != 3 or (mask is not None and mask.shape != tables.shape):
        raise ValueError(f"tables must be (k, n, t) and mask like it, got {tuple(tables.shape)}")
    k, n, t = tables.shape
    # Side by side, a view is a stretch of positions: each is compared with itself only.
    beside, known = (None if x is None else x.movedim(0, 1).reshape(n, k * t) for x in (tables, mask))
    assert beside is not None
    found = group_relative(beside, groups, mask=known, pool="position", ddof=ddof, eps=eps)
    return found.reshape(n, k, t).sum(1)


@torch.no_grad()
def branch_extremes(
    scores: Float[Tensor, "n"],
    branches: Int[Tensor, "n"],
    *,
    mask: Bool[Tensor, "n"] | None = None,
    best: float = 0.5,
    worst: float = -0.5,
    limit: float = 5.0,
) -> Float[Tensor, "n"]:
    r"""Of the branches of one prefix, the best if it is good and the worst if it is bad; the others say nothing.

        Aᵢ = clip(zᵢ, −limit, limit) where i is the best of its branches and z ≥ best, or the worst and z < worst

    What branches share cannot tell them apart, so the difference of these two is due to the steps behind the fork.

    Args:
        scores: z, standardised over the prompt: `group_relative` by prompt, with rewards of earlier stages as further
            rows if they are to enter its statistics.
        branches: rows with equal numbers share a prefix.
        mask: False where the reward abstained.
        best: the least z of a good branch.
        worst: a bad branch has less than this z.
        limit: of an advantage.

    Returns:
        One per row; 0 for those that are left out, of which `!= 0` makes a mask. Of equals the first is taken.

    Raises:
        ValueError: if the shapes do not fit, or worst > best.

    Source: branch-based selection of B²-DiffuRL (arXiv 2503.11240; hu-zijing/B2-DiffuRL).

    >>> branch_extremes(torch.tensor([0.9, 0.1, -0.2, -0.8, 0.3]), torch.zeros(5, dtype=torch.long))
    tensor([ 0.9000,  0.0000,  0.0000, -0.8000,  0.0000])
    """
    known = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    if not scores.shape == branches.shape == known.shape or scores.ndim != 1:
        shapes = [tuple(x.shape) for x in (scores, branches, known)]
        raise ValueError(f"scores, branches and mask must have one shape (n,), got {shapes}")
    if worst > best or not limit > 0:
        raise ValueError(f"worst {worst} must not be above best {best}, and limit {limit} must be positive")
    wide = torch.promote_types(scores.dtype, torch.float32)
    values = torch.where(known, scores.detach(), 0).to(wide)
    _, group = torch.unique(branches, return_inverse=True)
    up = _is_largest(values, group, known) & (values >= best)
    down = _is_largest(-values, group, known) & (values < worst)
    return torch.where(up | down, values.clamp(-limit, limit), 0.0)


def _is_largest(values: Tensor, group: Tensor, known: Tensor) -> Tensor:
    """The first of the largest known values of each group."""
    n = len(values)
    number = int(group.max()) + 1 if n else 0
    inside = torch.where(known, values, -torch.inf)
    peak = values.new_full((number,), -torch.inf).scatter_reduce(0, group, inside, "amax")
    place = torch.arange(n, device=values.device)
    first = torch.where(known & (values == peak[group]), place, n)
    earliest = torch.full((number,), n, device=values.device).scatter_reduce(0, group, first, "amin")
    return known & (place == earliest[group])


def _balanced(rewards: Tensor, turning: Tensor) -> Tensor:
    """As many turning points with a positive reward as with a negative one, the largest; all if one kind is missing."""
    up, down = turning & (rewards > 0), turning & (rewards < 0)
    keep = torch.minimum(up.sum(), down.sum())

    def largest(chosen: Tensor) -> Tensor:
        order = torch.where(chosen, rewards.abs(), -1).flatten().argsort(descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        return chosen & (rank.view(chosen.shape) < keep)

    return torch.where(keep > 0, largest(up) | largest(down), turning)
