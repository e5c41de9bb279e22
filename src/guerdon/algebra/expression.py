"""The reward expression: what every node of it is and can do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from guerdon.core.context import Context
from guerdon.core.errors import LevelMismatch, NameClash
from guerdon.core.protocols import SCOPES, Leaf, Measured, Range, Scope, Shaper
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Level, Scores

if TYPE_CHECKING:
    from guerdon.engine import Engine

Rows = Bool[np.ndarray[Any, Any], "n"]


class Reward:
    """An immutable reward expression; its nodes are leaves and the combinations of this room.

    Sums, products and chains are written as such:

        0.8 * math.answer() + 0.2 * format.tags("think", "answer")
        math.answer() >> shaping.center() >> shaping.bound("sigmoid")

    A subclass says what its children are and how their scores combine; the rest follows.
    """

    @property
    def children(self) -> tuple[Reward, ...]:
        """The rewards this one is made of."""
        return ()

    @property
    def name(self) -> str:
        """What it is called in logs; a composite's is its expression."""
        return repr(self)

    @property
    def range(self) -> Range:
        """The lowest and highest score; exact for leaves, informative above them."""
        raise NotImplementedError

    @property
    def requires(self) -> frozenset[str]:
        """What it reads: columns, 'tokens', 'model:policy'."""
        return frozenset().union(*(child.requires for child in self.children))

    @property
    def scope(self) -> Scope:
        """What must be scored together: the widest that any of its nodes needs."""
        return widest(child.scope for child in self.children)

    @property
    def level(self) -> Level:
        """One score per rollout, or one per step."""
        return self.children[0].level

    @property
    def differentiable(self) -> bool:
        """True if all its leaves keep gradients."""
        return all(child.differentiable for child in self.children)

    def combine(self, measured: Measured, context: Context) -> Scores:
        """The scores of this expression from those of its leaves; pure."""
        raise NotImplementedError

    def leaves(self) -> tuple[Leaf, ...]:
        """The distinct leaves, in the order they are written."""
        return tuple(dict.fromkeys(leaf for child in self.children for leaf in child.leaves()))

    def demand(self, rollouts: Rollouts) -> dict[Leaf, Rows]:
        """Which rows each leaf is asked for."""
        wanted: dict[Leaf, Rows] = {}
        self.ask(rollouts, np.ones(len(rollouts), bool), wanted)
        return wanted

    def ask(self, rollouts: Rollouts, rows: Rows, wanted: dict[Leaf, Rows]) -> None:
        """Add to `wanted` what this node needs of `rows`; a router narrows them for each branch."""
        for child in self.children:
            child.ask(rollouts, rows, wanted)

    def observe(self, measured: Measured, context: Context) -> None:
        """Once per training step: every shaper sees the scores that reached it.

        No shaper changes before all scores are known; a chain that is written twice observes once.
        """
        seen: list[tuple[Chain, Measured]] = []
        for chain, given in self.chains(measured, context):
            if not any(chain.shaper is c.shaper and chain.inner == c.inner and given is g for c, g in seen):
                seen.append((chain, given))
        reached = [(chain.shaper, chain.inner.combine(given, context)) for chain, given in seen]
        for shaper, scores in reached:
            shaper.observe(scores, context)

    def chains(self, measured: Measured, context: Context) -> Iterator[tuple[Chain, Measured]]:
        """The chains in this expression, each with the measured scores as far as they reach it."""
        for child in self.children:
            yield from child.chains(measured, context)

    def nodes(self) -> Iterator[Reward]:
        """This node and all below it, in the order they are written."""
        yield self
        for child in self.children:
            yield from child.nodes()

    def names(self) -> dict[str, Reward]:
        """The names under which scores appear in `Scores.parts`, and what they stand for.

        Raises:
            NameClash: if one name stands for two different rewards.
        """
        names: dict[str, Reward] = {}
        for child in self.children:
            for name, node in child.names().items():
                if names.setdefault(name, node) != node:
                    raise NameClash(
                        f"two different parts are called {name!r}: {names[name]} and {node}; name one with .named('…')"
                    )
        return names

    def named(self, name: str) -> Reward:
        """The same reward, its scores kept under `name` in `Scores.parts`, logs and reports."""
        return Named(self, name)

    def score(self, rollouts: Rollouts, context: Context | None = None, *, engine: Engine | None = None) -> Scores:
        """Score a batch: each distinct leaf is measured once, then the expression is computed.

        Args:
            rollouts: the batch; must hold what `requires` names.
            context: progress, models, … ; default: scoring outside training.
            engine: where leaves run; default: this process's shared engine.

        Raises:
            MissingInput: before any work, if the batch lacks something the reward reads.
        """
        from guerdon.engine import default

        runner: Engine = engine or default()
        return runner.score(self, rollouts, context)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """Score as TRL's trainers call a reward function: a list, with None for an abstention.

        See `guerdon.algebra.trl`.
        """
        from guerdon.algebra.trl import call

        return call(self, prompts, completions, columns)

    @property
    def __name__(self) -> str:
        """What TRL logs a reward function under; an expression's own text would be too long there."""
        return self.name if self.name != repr(self) else "guerdon"

    def state_dict(self) -> dict[str, Any]:
        """The state of its shapers and learned leaves; 'immutable' is said of the structure."""
        return {key: state for key, part in self._stateful() if (state := part.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            ValueError: if the state is of another expression.
        """
        parts = dict(self._stateful())
        unknown = sorted(set(state) - set(parts))
        if unknown:
            raise ValueError(
                f"the state has {unknown[0]!r}, which this reward does not: it was saved from another expression"
            )
        for key, value in state.items():
            parts[key].load_state_dict(value)

    def _stateful(self) -> Iterator[tuple[str, Any]]:
        seen: list[Any] = []
        for i, node in enumerate(self.nodes()):
            part = node.shaper if isinstance(node, Chain) else node
            if (
                hasattr(part, "state_dict")
                and (isinstance(node, Chain) or not node.children)
                and not any(part is s for s in seen)
            ):
                seen.append(part)
                yield f"{i}:{part.name}", part

    def __add__(self, other: Reward | float) -> Reward:
        from guerdon.algebra.combine import add

        return add(self, other)

    __radd__ = __add__

    def __neg__(self) -> Reward:
        return -1.0 * self

    def __sub__(self, other: Reward | float) -> Reward:
        return self + -other

    def __rsub__(self, other: float) -> Reward:
        return -self + other

    def __mul__(self, other: Reward | float) -> Reward:
        from guerdon.algebra.combine import product, scale

        return product(self, other) if isinstance(other, Reward) else scale(self, other)

    __rmul__ = __mul__

    def __rshift__(self, shaper: Shaper) -> Reward:
        return Chain(self, shaper)


@dataclass(frozen=True, repr=False)
class Wrapper(Reward):
    """A reward made of one other."""

    inner: Reward

    def __post_init__(self) -> None:
        expect_rewards(type(self).__qualname__, self.inner)

    @property
    def children(self) -> tuple[Reward, ...]:
        return (self.inner,)


@dataclass(frozen=True, repr=False)
class Named(Wrapper):
    """A reward whose scores are kept under a name."""

    alias: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alias.strip():
            raise ValueError("a name must not be empty")
        self.names()

    def __repr__(self) -> str:
        return f"{self.inner}.named({self.alias!r})"

    @property
    def name(self) -> str:
        return self.alias

    @property
    def range(self) -> Range:
        return self.inner.range

    def names(self) -> dict[str, Reward]:
        """A leaf goes by its new name only; a composite adds its own to those below it."""
        below = {} if not self.inner.children else self.inner.names()
        if below.setdefault(self.alias, self.inner) != self.inner:
            raise NameClash(
                f"{self.alias!r} is already the name of {below[self.alias]}, a part of what is to be called so"
            )
        return below

    def combine(self, measured: Measured, context: Context) -> Scores:
        scores = self.inner.combine(measured, context)
        below = scores.parts if self.inner.children else {}
        return scores.with_values(scores.read(0.0), parts={**below, self.alias: bare(scores)})


@dataclass(frozen=True, repr=False)
class Chain(Wrapper):
    """A reward followed by a shaper."""

    shaper: Shaper

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.shaper) or not hasattr(self.shaper, "observe") or isinstance(self.shaper, type):
            raise TypeError(f"the right side of >> is a shaper such as shaping.center(), got {self.shaper!r}")
        expected = getattr(self.shaper, "level", None)
        if expected is not None and expected != self.inner.level:
            level = self.inner.level
            raise LevelMismatch(f"{self.shaper} shapes one score per {expected}, {self.inner} gives one per {level}")
        self.shaper.range(self.inner.range)  # a shaper that cannot take these scores says so before any work

    def __repr__(self) -> str:
        return f"({self.inner} >> {self.shaper})"

    @property
    def range(self) -> Range:
        return self.shaper.range(self.inner.range)

    @property
    def requires(self) -> frozenset[str]:
        return self.inner.requires | self.shaper.requires

    @property
    def scope(self) -> Scope:
        return widest((self.inner.scope, self.shaper.scope))

    def combine(self, measured: Measured, context: Context) -> Scores:
        return self.shaper(self.inner.combine(measured, context), context)

    def chains(self, measured: Measured, context: Context) -> Iterator[tuple[Chain, Measured]]:
        yield from super().chains(measured, context)
        yield self, measured


def widest(scopes: Iterable[Scope]) -> Scope:
    """The widest of some scopes; 'row' of none."""
    return max(scopes, key=SCOPES.index, default="row")


def bare(scores: Scores) -> Scores:
    """Scores without their parts: the form in which they are a part of others."""
    return scores.with_values(scores.read(0.0), parts={})


def one_level(children: Sequence[Reward], verb: str) -> None:
    """Check that rewards can be combined elementwise.

    Raises:
        LevelMismatch: naming one of each level.
    """
    other = next((child for child in children if child.level != children[0].level), None)
    if other is not None:
        first = children[0]
        step = first if first.level == "step" else other
        raise LevelMismatch(
            f"cannot {verb} {first} (one score per {first.level}) and {other} (one per {other.level}): "
            f"make one score per rollout with reduce({step}, 'min'), or mix them as advantages"
        )


def expect_rewards(what: str, *rewards: Any) -> None:
    """Check that a combination is given rewards, and not a factory, a function or a number."""
    for reward in rewards:
        if not isinstance(reward, Reward):
            hint = ": call it first" if callable(reward) else ""
            raise TypeError(f"{what} combines rewards, got {reward!r}{hint}")


def merged(children: Sequence[Reward], scores: Sequence[Scores], abstained: Iterable[int]) -> dict[str, Any]:
    """The reasons and parts of a combination: each row's first reason, said with the name of the leaf it comes from."""
    reasons: dict[int, str] = {}
    for row in abstained:
        for child, part in zip(children, scores, strict=True):
            if row in part.reasons:
                name = _speaker(child)
                reasons[row] = part.reasons[row] if name is None else f"{name}: {part.reasons[row]}"
                break
    parts: dict[str, Scores] = {}
    for child_scores in scores:
        for name, part in child_scores.parts.items():
            parts[name] = parts[name].union(part) if name in parts else part
    return {"reasons": reasons, "parts": parts}


def _speaker(reward: Reward) -> str | None:
    """Whose reasons a reward gives on: its one leaf's, by its name; None where they carry a name already."""
    if not reward.children or (isinstance(reward, Named) and not reward.inner.children):
        return reward.name
    return _speaker(reward.inner) if isinstance(reward, Wrapper) else None
