"""Exact branch and bound for knapsacks: small, in plain NumPy, with every choice of a variable on record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

FREE = -1


@dataclass(frozen=True)
class Knapsack:
    """max v·x with w·x ≤ capacity, x in {0, 1}; all numbers positive."""

    values: np.ndarray
    weights: np.ndarray
    capacity: float

    def __len__(self) -> int:
        return len(self.values)


@dataclass
class Episode:
    """One solved problem: a row for each branching, in the order in which they were made.

    variables: (n, 6) features of the items: value, weight, their ratio, its part in the relaxation, free, fractional.
    constraint: (2,) capacity left and share of free items. edges: (n,) weight by capacity, 0 where fixed.
    """

    variables: list[np.ndarray] = field(default_factory=list)
    constraint: list[np.ndarray] = field(default_factory=list)
    edges: list[np.ndarray] = field(default_factory=list)
    free: list[np.ndarray] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)  # the branching above, −1 at the root
    gains: list[float] = field(default_factory=list)  # product of what the bound falls by on both sides
    nodes: int = 0
    best: float = 0.0

    def __len__(self) -> int:
        return len(self.actions)


Choose = Callable[[Episode], int]  # of an episode whose last row is the node to branch at, without its action


def relax(problem: Knapsack, fixed: np.ndarray) -> tuple[float, np.ndarray] | None:
    """The best fractional filling with some items fixed, and its value; None where they do not fit."""
    x = (fixed == 1).astype(float)
    left = problem.capacity - problem.weights @ x
    if left < 0:
        return None
    free = np.flatnonzero(fixed == FREE)
    for item in free[np.argsort(-problem.values[free] / problem.weights[free], kind="stable")]:
        x[item] = min(1.0, left / problem.weights[item])
        left -= x[item] * problem.weights[item]
    return float(problem.values @ x), x


def solve(problem: Knapsack, choose: Choose) -> Episode:
    """Depth first, the side without the item last; a node is closed by its bound or an integral relaxation."""
    episode, stack = Episode(), [(np.full(len(problem), FREE), -1)]
    while stack:
        fixed, parent = stack.pop()
        episode.nodes += 1
        relaxed = relax(problem, fixed)
        if relaxed is None or relaxed[0] <= episode.best + 1e-9:
            continue
        bound, x = relaxed
        fractional = (x > 1e-9) & (x < 1 - 1e-9)
        if not fractional.any():
            episode.best = bound
            continue
        free = fixed == FREE
        left = problem.capacity - problem.weights @ (fixed == 1)
        ratio = problem.values / problem.weights
        episode.variables.append(
            np.stack([problem.values, problem.weights, ratio / ratio.max(), x, free, fractional], 1).astype(float)
        )
        episode.constraint.append(np.array([left / problem.capacity, free.mean()]))
        episode.edges.append(np.where(free, problem.weights / problem.capacity, 0.0))
        episode.free.append(free)
        episode.parents.append(parent)
        item = choose(episode)
        assert free[item]
        children = []
        for side in (0, 1):
            child = fixed.copy()
            child[item] = side
            children.append(child)
        falls = [bound - (below[0] if (below := relax(problem, child)) else 0.0) for child in children]
        episode.gains.append(max(falls[0], 1e-6) * max(falls[1], 1e-6))
        episode.actions.append(item)
        stack += [(child, len(episode) - 1) for child in children]
    return episode


def random_knapsack(rng: np.random.Generator, items: int) -> Knapsack:
    """A few heavy items and many light ones, worth about what they weigh: it is soon known which should be decided."""
    heavy = rng.random(items) < 0.4
    weights = np.where(heavy, rng.uniform(0.8, 1.0, items), rng.uniform(0.02, 0.15, items))
    return Knapsack(weights * rng.uniform(0.9, 1.1, items), weights, float(weights.sum() / 2))


def at_random(rng: np.random.Generator) -> Choose:
    """Any free item."""
    return lambda episode: int(rng.choice(np.flatnonzero(episode.free[-1])))
