"""Who gets the next rollout, judge call or label, where each needs one success and there are not enough for all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from guerdon.core.errors import MissingExtra

Rule = Literal["balance", "ranking", "random", "greedy"]
Value = Literal["truncated", "exponential"]

MOST_CONFIGURATIONS = 1 << 16


@dataclass(eq=False)
class Allocator:
    """Sends a stream of attempts to the items that still lack a success, without knowing what comes next.

    An attempt at item u succeeds with probability p, and u is done with its first success. The load of u is the sum
    of p over its attempts. Among the items that an attempt may go to and that are not done:

        "balance"   the largest p · e^(−load): with equal p, the one tried least
        "ranking"   the first in one random order drawn at the start
        "random"    any, uniformly
        "greedy"    the one with the highest number; a poor choice, to compare with

    Least-tried-first is within 0.611 of what could be had knowing the whole stream, whatever the stream, for small p;
    `configuration_bound` is that bound for a given one.

    Args:
        items: how many there are.
        rule: as above. For unequal p the source asks for p(1 − g(load)) with rising g, which it does not give;
            1 − e^(−load) is the share of thresholds Exp(1) that the load has passed.
        seed: of the order and of "random".

    Raises:
        ValueError: if there are no items, or for another rule.

    >>> queue = Allocator(3)
    >>> chances = np.array([0.5, 0.5, 0.0])
    >>> first = queue.choose(chances)
    >>> queue.record(first, 0.5, success=False)
    >>> first, queue.choose(chances)
    (0, 1)

    Source: Stochastic Balance and Ranking, "Online Matching with Stochastic Rewards" (arXiv 2309.10289).
    """

    items: int
    rule: Rule = "balance"
    seed: int = 0
    load: Float[np.ndarray[Any, Any], "u"] = field(init=False)
    done: np.ndarray[Any, Any] = field(init=False)
    asked: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.items < 1:
            raise ValueError(f"items must be at least 1, got {self.items}")
        if self.rule not in get_args(Rule):
            raise ValueError(f"rule is one of {', '.join(map(repr, get_args(Rule)))}, got {self.rule!r}")
        self.load, self.done = np.zeros(self.items), np.zeros(self.items, bool)
        self._order = np.random.default_rng([self.seed, 0]).permutation(self.items)

    def choose(self, probabilities: Float[np.ndarray[Any, Any], "u"]) -> int | None:
        """The item that gets this attempt; None if all it may go to are done. Of equal ones the first.

        Args:
            probabilities: of success at each item; 0 where the attempt cannot go.

        Raises:
            ValueError: if there is not one per item, between 0 and 1.
        """
        chances = np.asarray(probabilities, np.float64)
        if chances.shape != (self.items,) or not ((chances >= 0) & (chances <= 1)).all():
            raise ValueError(f"probabilities must be {self.items} numbers between 0 and 1, got shape {chances.shape}")
        self.asked += 1
        free = np.flatnonzero((chances > 0) & ~self.done)
        if not len(free):
            return None
        if self.rule == "random":
            return int(free[np.random.default_rng([self.seed, 1, self.asked]).integers(len(free))])
        # p e^(−load) in logarithms, where no load is too large.
        merit = {
            "balance": np.log(chances[free]) - self.load[free],
            "ranking": -self._order[free],
            "greedy": free,
        }[self.rule]
        return int(free[np.argmax(merit)])

    def record(self, item: int, probability: float, *, success: bool) -> None:
        """What became of an attempt."""
        self.load[item] += probability
        self.done[item] |= success

    def state_dict(self) -> dict[str, Any]:
        """What was tried and done, as plain data."""
        return {"load": self.load.tolist(), "done": self.done.tolist(), "asked": self.asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            ValueError: if it is of another number of items.
        """
        if not len(state["load"]) == len(state["done"]) == self.items:
            raise ValueError(f"the state is of {len(state['load'])} items, these are {self.items}")
        self.load, self.done = np.array(state["load"], np.float64), np.array(state["done"], bool)
        self.asked = int(state["asked"])


def configuration_bound(
    probabilities: Float[np.ndarray[Any, Any], "u v"], *, value: Value = "truncated", tolerance: float = 1e-7
) -> float:
    r"""The most successes that any allocation can expect: the value of the configuration linear program.

        max Σᵤ Σ_S val(S) x_{uS}      Σ_S x_{uS} ≤ 1 for each item      Σᵤ Σ_{S∋v} x_{uS} ≤ 1 for each attempt

    S is a set of attempts spent on one item. Equal attempts are counted, not listed, and sets are generated as the
    program asks for them; what is returned is the dual value, an upper bound at any time.

    Args:
        probabilities: of success at item u (rows) of attempt v (columns), in [0, 1].
        value: "truncated", min(Σ p, 1): no more than what deterministic fractions of a success could give;
            "exponential", 1 − e^(−Σ p): of thresholds Exp(1), the benchmark for small p.
        tolerance: how far above the optimum the bound may be, in successes.

    Raises:
        ValueError: if the probabilities are not a matrix of numbers between 0 and 1, for another value, or if an item
            has so many different attempts of unequal p that their sets cannot be listed.
        MissingExtra: if scipy is not installed.

    Source: "Online Matching with Stochastic Rewards via Configuration LPs" (arXiv 2309.10289).
    """
    try:
        optimize = import_module("scipy.optimize")
    except ImportError:
        raise MissingExtra("data.configuration_bound", "data") from None
    chances = np.asarray(probabilities, np.float64)
    if chances.ndim != 2 or not ((chances >= 0) & (chances <= 1)).all():
        raise ValueError(f"probabilities must be (u, v), between 0 and 1, got shape {chances.shape}")
    if value not in get_args(Value):
        raise ValueError(f"value is 'truncated' or 'exponential', got {value!r}")
    items = len(chances)
    if not chances.size or not chances.any():
        return 0.0
    kinds, supply = np.unique(chances, axis=1, return_counts=True)
    sets = [_Sets(row, supply, value) for row in kinds]
    prices, floors = np.zeros(kinds.shape[1]), np.zeros(items)
    columns: dict[bytes, tuple[Float[np.ndarray[Any, Any], k], float]] = {}
    best = math.inf
    while True:
        found = [one.best(prices) for one in sets]
        surplus = np.array([worth - float(counts @ prices) for counts, worth in found])
        best = min(best, float(supply @ prices + np.maximum(surplus, 0.0).sum()))
        known = len(columns)
        for u in np.flatnonzero(surplus > floors + tolerance / items):
            column = np.concatenate([np.eye(items)[u], found[u][0]])
            columns.setdefault(column.tobytes(), (column, found[u][1]))
        if len(columns) == known:
            return best
        matrix, gains = np.stack([c for c, _ in columns.values()], 1), np.array([gain for _, gain in columns.values()])
        solved = optimize.linprog(-gains, A_ub=matrix, b_ub=np.concatenate([np.ones(items), supply]), method="highs")
        duals = -solved.ineqlin.marginals
        floors, prices = np.maximum(duals[:items], 0.0), np.maximum(duals[items:], 0.0)


class _Sets:
    """The sets of attempts that may be spent on one item, and the one worth most at given prices."""

    def __init__(self, chances: Any, supply: Any, value: Value) -> None:
        self.supply, self.value = supply, value
        self.some = np.flatnonzero(chances > 0)
        self.chances = chances[self.some]
        self.equal = len(np.unique(self.chances)) <= 1
        if self.equal:
            return
        numbers = math.prod(int(n) + 1 for n in supply[self.some])
        if numbers > MOST_CONFIGURATIONS:
            raise ValueError(
                f"an item has attempts of unequal probability in {numbers} sets, at most {MOST_CONFIGURATIONS} can be "
                "listed: round the probabilities, so that more attempts are equal"
            )
        axes = [np.arange(n + 1) for n in supply[self.some]]
        self.listed = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], 1)

    def best(self, prices: Float[np.ndarray[Any, Any], "k"]) -> tuple[Int[np.ndarray[Any, Any], "k"], float]:
        """How many attempts of each kind, and what they are worth without their price."""
        counts = np.zeros(len(prices), np.int64)
        if self.equal and len(self.some):
            # Worth is concave in the number of attempts, so the cheapest come first, and all sets are tried.
            order = self.some[np.argsort(prices[self.some], kind="stable")]
            cheapest = np.repeat(order, self.supply[order])
            worth = self._worth(self.chances[0] * np.arange(len(cheapest) + 1))
            number = int(np.argmax(worth - np.concatenate([[0.0], np.cumsum(prices[cheapest])])))
            np.add.at(counts, cheapest[:number], 1)
            return counts, float(worth[number])
        if not len(self.some):
            return counts, 0.0
        worth = self._worth(self.listed @ self.chances)
        chosen = int(np.argmax(worth - self.listed @ prices[self.some]))
        counts[self.some] = self.listed[chosen]
        return counts, float(worth[chosen])

    def _worth(self, load: Any) -> Any:
        return np.minimum(load, 1.0) if self.value == "truncated" else -np.expm1(-load)
