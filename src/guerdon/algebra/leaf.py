"""Leaves: where a reward meets the world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guerdon.algebra.expression import Reward, Rows
from guerdon.core import protocols
from guerdon.core.context import Context
from guerdon.core.protocols import Lane, Measured, Scope
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Level, Scores


class Leaf(Reward):
    """A reward that does work. Most are made by `@reward`; subclass for one that holds a model or a client.

    A subclass overrides `evaluate` (lanes 'process' and 'async', one unit at a time) or `measure`
    (lane 'batch', all rows at once), and the attributes below where the defaults do not fit. Two
    leaves that compare equal are measured once.
    """

    lane: Lane = "batch"
    unit: str = "row"
    deadline: float | None = None
    rate: float | None = None
    retries: int = 0
    retry_on: tuple[type[BaseException], ...] | None = None
    floor: float

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns `evaluate` takes, in order."""
        return ("completion",)

    @property
    def requires(self) -> frozenset[str]:
        """What it reads."""
        return frozenset(self.reads) - {"context", "rollouts"}

    @property
    def scope(self) -> Scope:
        """What must be scored together."""
        return "row" if self.unit == "row" else "group" if self.unit == "group" else "batch"

    @property
    def level(self) -> Level:
        """One score per rollout, unless a subclass gives one per step."""
        return "rollout"

    @property
    def differentiable(self) -> bool:
        """False, unless a subclass keeps gradients."""
        return False

    def identity(self) -> str | None:
        """All that its scores depend on besides the columns it reads; None if that cannot be named.

        The engine's cache keeps scores under it. The default names a leaf that can be written as a spec
        and is defined where it can be imported, and no class that measures whole rollouts; see
        `guerdon.algebra.identity`. Override it to name more (the weights of a model), or with None for a leaf
        whose scores change by themselves.
        """
        from guerdon.algebra.identity import identity

        return identity(self)

    def check(self) -> None:
        """Raise where it cannot work at all, as without a program that it starts; nothing unless a subclass does.

        The engine calls it in its own process before each batch, so that what is missing is an error before any
        work and not an abstention of every row: be quick when asked again.
        """

    def evaluate(self, *columns: Any) -> Any:
        """One unit's outcome: a number, None to abstain, `(number, details)`, or a list of those for a group."""
        raise NotImplementedError(f"{type(self).__name__} is in the {self.lane} lane and has no evaluate")

    def measure(self, rollouts: Rollouts, context: Context) -> Scores:
        """The scores of these rollouts, in this process."""
        raise NotImplementedError(f"{type(self).__name__} is in the {self.lane} lane and has no measure")

    def leaves(self) -> tuple[Leaf, ...]:
        """Itself."""
        return (self,)

    def ask(self, rollouts: Rollouts, rows: Rows, wanted: dict[protocols.Leaf, Rows]) -> None:
        """Ask for `rows` of this leaf."""
        wanted[self] = wanted[self] | rows if self in wanted else rows

    def names(self) -> dict[str, Reward]:
        """Its own name."""
        return {self.name: self}

    def combine(self, measured: Measured, context: Context) -> Scores:
        """Its measured scores, kept under its name."""
        scores = measured[self]
        return scores.with_values(scores.read(0.0), parts={self.name: scores})

    def state_dict(self) -> dict[str, Any]:
        """Its state, as plain data; none unless it is `Learned`."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        if state:
            raise ValueError(f"{self.name} has no state, got {sorted(state)}")


class Learned(Leaf):
    """A leaf that is trained along with the policy.

    `version` changes with every update: what is cached for one version is not read by another.
    """

    @property
    def version(self) -> str:
        """Names the current weights."""
        raise NotImplementedError

    def update(self, rollouts: Rollouts, scores: Scores, context: Context) -> Mapping[str, float]:
        """One training step on this batch; returns metrics."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Its weights and what else `update` changes."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        raise NotImplementedError
