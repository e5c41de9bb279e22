"""Steps that fork: what a step of a tree is worth, how it compares with its siblings, and which fork goes on."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.core.rollouts import Tree
from guerdon.core.spans import Spans
from guerdon.credit.group import group_relative

Aggregate = Literal["mean", "max"]


def branches(tree: Tree, spans: Spans) -> Int[Tensor, "n s"]:
    """A number for each distinct step of rollouts that branched off one another; −1 where there is no step.

    A step belongs to the parent if it ends within the tokens shared with it, and so on upwards.

    Args:
        tree: which row each branched off, and after how many tokens.
        spans: the token range of each step.

    Raises:
        ValueError: if the sizes differ, spans count characters, rows are their own ancestors, or a shared step has
            other bounds in the parent.

    Source: steps shared in rollout trees count once: PORTool (arXiv 2510.26020).

    >>> tree = Tree(torch.tensor([-1, 0]), torch.tensor([0, 2]))
    >>> branches(tree, Spans.of([[(0, 2), (2, 4)], [(0, 2), (2, 5)]]))
    tensor([[0, 1],
            [0, 3]])
    """
    if spans.unit != "token":
        raise ValueError("spans count characters: turn them into token spans first, with spans.to_tokens(offsets)")
    parent, shared, begin, end, exists = (
        torch.as_tensor(x) for x in (tree.parent, tree.shared, spans.begin, spans.end, spans.mask)
    )
    n, s = exists.shape
    if len(parent) != n:
        raise ValueError(f"the tree has {len(parent)} rows, the spans {n}")
    step = torch.arange(s, device=exists.device)
    owner = torch.arange(n, device=exists.device)[:, None].expand(n, s)
    for _ in range(n + 1):
        above = parent[owner]
        inherited = exists & (above >= 0) & (end <= shared[owner])
        if not bool(inherited.any()):
            return torch.where(exists, owner * s + step, -1)
        owner = torch.where(inherited, above, owner)
        same = exists[owner, step] & (begin[owner, step] == begin) & (end[owner, step] == end)
        wrong = (inherited & ~same).any(1)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise ValueError(f"row {row}: a step it shares with the row it branched off has other bounds there")
    raise ValueError("tree: a row is its own ancestor")


def shared_once(nodes: Int[Tensor, "n s"]) -> Bool[Tensor, "n s"]:
    """True at one row for each node, the first that has it, so that shared steps are trained on once.

    Source: PORTool (arXiv 2510.26020).

    >>> shared_once(torch.tensor([[0, 1], [0, 3], [-1, -1]]))
    tensor([[ True,  True],
            [False,  True],
            [False, False]])
    """
    flat = nodes.flatten()
    distinct, node = torch.unique(flat, return_inverse=True)
    place = torch.arange(len(flat), device=nodes.device)
    first = place.new_full((len(distinct),), len(flat)).scatter_reduce(0, node, place, "amin")
    return ((first[node] == place) & (flat >= 0)).view(nodes.shape)


@torch.no_grad()
def tree_rewards(
    outcomes: Float[Tensor, "n"],
    nodes: Int[Tensor, "n s"],
    *,
    gamma: float = 0.95,
    aggregate: Aggregate = "mean",
    formats: Float[Tensor, "n s"] | None = None,
    valid: Bool[Tensor, "n"] | None = None,
) -> Float[Tensor, "n s"]:
    r"""What each step of a tree is worth: its descendants' outcomes, discounted by how far they are, and its own form.

        R(s) = agg_{i through s} γ^{dᵢ(s)} rᵢ + format(s)        dᵢ(s): steps from s to the end of trajectory i

    A shared step has one reward, siblings differ, and a shorter way to the same outcome earns more. The source does
    not fix where the discount stands; within the aggregate it is defined for descendants of unequal length too.

    Args:
        outcomes: one per trajectory; any real unit.
        nodes: which step is which, of `branches`; −1 where there is none.
        gamma: γ in [0, 1].
        aggregate: "mean", or "max": some descendant is right.
        formats: added to each step, e.g. 1 where its tool call could be run; in the unit of the outcomes.
        valid: False where the outcome abstained: the trajectory is left out of the aggregate.

    Returns:
        One per step, 0 where there is none, or none of its trajectories has an outcome and `formats` is not given.

    Raises:
        ValueError: if the shapes do not fit or an option is out of range.

    Source: PORTool (arXiv 2510.26020), γ = 0.95.

    >>> tree_rewards(torch.tensor([1.0, 0.0]), torch.tensor([[0, 1], [0, 3]]), gamma=1.0)
    tensor([[0.5000, 1.0000],
            [0.5000, 0.0000]])
    """
    if nodes.ndim != 2 or outcomes.shape != nodes.shape[:1]:
        raise ValueError(f"outcomes {tuple(outcomes.shape)} must be (n,) beside nodes (n, s) {tuple(nodes.shape)}")
    for name, value, shape in (("formats", formats, nodes.shape), ("valid", valid, outcomes.shape)):
        if value is not None and value.shape != shape:
            raise ValueError(f"{name} must be {tuple(shape)}, got {tuple(value.shape)}")
    if not 0 <= gamma <= 1 or aggregate not in get_args(Aggregate):
        raise ValueError(f"gamma lies in [0, 1], aggregate is one of {get_args(Aggregate)}: {gamma}, {aggregate!r}")
    exists = nodes >= 0
    wide = torch.promote_types(outcomes.dtype, torch.float32)
    scored = torch.ones_like(outcomes, dtype=torch.bool) if valid is None else valid
    left = exists.sum(1, keepdim=True) - exists.cumsum(1)
    values = gamma ** left.to(wide) * torch.where(scored, outcomes, 0).to(wide)[:, None]
    counted = exists & scored[:, None]
    distinct, node = torch.unique(nodes, return_inverse=True)
    cells, where = values.new_zeros(len(distinct)), node[counted]
    if aggregate == "mean":
        count = cells.index_add(0, where, torch.ones_like(values[counted]))
        worth = cells.index_add(0, where, values[counted]) / count.clamp(min=1)
    else:
        worth = cells.scatter_reduce(0, where, values[counted], "amax", include_self=False)
    found = worth[node] if formats is None else worth[node] + torch.where(exists, formats, 0).to(wide)
    return torch.where(exists, found, 0)


@torch.no_grad()
def fork_relative(
    rewards: Float[Tensor, "n t"],
    nodes: Int[Tensor, "n t"],
    groups: Int[Tensor, "n"],
    *,
    ddof: int = 1,
    eps: float = 1e-6,
) -> Float[Tensor, "n t"]:
    r"""How much better a step is than its siblings, the steps that were taken from the same state.

        A(s) = (R(s) − mean_{siblings} R) / (std_{siblings} R + eps)

    Each step counts once, however many trajectories go through it; an only child has advantage 0. The first steps of
    a group are siblings.

    Args:
        rewards: one per step or token, the same wherever a node is shared (of `tree_rewards`).
        nodes: which step is which, of `branches` or `prefix_tree`; −1 where there is none.
        groups: rows with equal numbers are in one tree.
        ddof: σ² = Σ(R − mean)² / (count − ddof).
        eps: added to σ, in the unit of the rewards.

    Returns:
        One per step, without unit; 0 where there is none.

    Raises:
        ValueError: if the shapes do not fit.

    Source: PORTool (arXiv 2510.26020).

    >>> nodes = torch.tensor([[0, 1], [0, 3], [4, 5]])
    >>> values = torch.tensor([[0.5, 1.0], [0.5, 0.0], [0.0, 0.0]])
    >>> fork_relative(values, nodes, torch.zeros(3, dtype=torch.long))
    tensor([[ 0.7071,  0.7071],
            [ 0.7071, -0.7071],
            [-0.7071,  0.0000]])
    """
    if rewards.shape != nodes.shape or nodes.ndim != 2 or groups.shape != nodes.shape[:1]:
        raise ValueError(
            f"rewards {tuple(rewards.shape)} and nodes {tuple(nodes.shape)} need one shape (n, t), "
            f"groups {tuple(groups.shape)} one number per row"
        )
    one = shared_once(nodes)
    if not bool(one.any()):
        return torch.zeros_like(rewards)
    _, group = torch.unique(groups, return_inverse=True)
    roots = nodes.max() + 1 + group
    above = torch.cat([roots[:, None], nodes[:, :-1]], 1)
    advantages = group_relative(rewards[one], above[one], ddof=ddof, eps=eps)
    # Nodes are matched by number: sorted, the distinct ones stand where `searchsorted` finds each of them.
    distinct, at = nodes[one].sort()
    found = advantages[at][torch.searchsorted(distinct, nodes.contiguous()).clamp(max=len(distinct) - 1)]
    return torch.where(nodes >= 0, found, 0)


def keep_forks(branch: Int[Tensor, "m"], *, keep: int) -> Bool[Tensor, "m"]:
    """Which proposed forks of a growing tree to keep, so that it ends with the number of trajectories wanted.

    Every branch keeps its first fork before any keeps its second: no unfinished branch dies while another divides,
    unless there are more branches than places. Within a round, in the order given; shuffle it for a random choice,
    which is what the source, silent on the rule, may do.

    Args:
        branch: the unfinished branch that proposed each candidate.
        keep: trajectories wanted less those finished; at least 0.

    Raises:
        ValueError: if `branch` is not (m,), or `keep` is negative.

    Source: PORTool (arXiv 2510.26020), whose rollouts keep exactly n − n_finished candidates.

    >>> keep_forks(torch.tensor([5, 5, 5, 2]), keep=3)
    tensor([ True,  True, False,  True])
    """
    if branch.ndim != 1 or keep < 0:
        raise ValueError(f"branch must be (m,) and keep at least 0, got {tuple(branch.shape)} and {keep}")
    order = branch.argsort(stable=True)
    ordered = branch[order]
    place = torch.arange(len(branch), device=branch.device)
    turn = torch.empty_like(place)
    turn[order] = place - torch.searchsorted(ordered, ordered.contiguous())
    rank = torch.empty_like(place)
    rank[turn.argsort(stable=True)] = place
    return rank < keep


@torch.no_grad()
def choose_fork(
    advantages: Float[Tensor, "g k"],
    uniform: Float[Tensor, "g"],
    *,
    temperature: float = 0.7,
    mask: Bool[Tensor, "g k"] | None = None,
) -> Int[Tensor, "g"]:
    r"""Which of the candidates for the next step is taken: drawn from softmax(A / η).

    Args:
        advantages: of `k` candidates for each of `g` prefixes; any unit.
        uniform: one random number in [0, 1) per prefix: randomness is data, so that a run can be repeated.
        temperature: η in the unit of the advantages; 0 takes the best, the first of equals.
        mask: False where there is no candidate, or its score abstained.

    Returns:
        The index of the candidate, −1 where there is none.

    Raises:
        ValueError: if the shapes do not fit, η < 0 or a number lies outside [0, 1).

    Source: SLATE (arXiv 2602.23440; algoprog/SLATE), η = 0.7.

    >>> choose_fork(torch.tensor([[1.403, 0.526, -0.351, -1.228, -0.351]]), torch.tensor([0.7]))
    tensor([1])
    """
    if advantages.ndim != 2 or uniform.shape != advantages.shape[:1]:
        raise ValueError(f"advantages must be (g, k), uniform (g,): {tuple(advantages.shape)}, {tuple(uniform.shape)}")
    if mask is not None and mask.shape != advantages.shape:
        raise ValueError(f"mask must be {tuple(advantages.shape)} like advantages, got {tuple(mask.shape)}")
    if not temperature >= 0 or bool(((uniform < 0) | (uniform >= 1)).any()):
        raise ValueError(f"temperature must not be negative, got {temperature}, and uniform must lie in [0, 1)")
    exists = torch.ones_like(advantages, dtype=torch.bool) if mask is None else mask
    if not advantages.shape[1]:
        return torch.full((len(advantages),), -1, device=advantages.device)
    # Float64, as the candidates' shares of the unit interval are compared with a number.
    known = torch.where(exists, advantages.double(), -torch.inf)
    best = known.amax(1, keepdim=True)
    if temperature == 0:
        weights = (exists & (known == best)).double()
        weights = weights * (weights.cumsum(1) == 1)
    else:
        weights = torch.where(exists, ((known - best) / temperature).exp(), 0)
    edges = weights.cumsum(1)
    reached = edges <= uniform.double()[:, None] * edges[:, -1:]
    last = exists.shape[1] - 1 - (weights > 0).flip(1).to(torch.uint8).argmax(1)
    return torch.where(exists.any(1), torch.minimum(reached.sum(1), last), -1)
