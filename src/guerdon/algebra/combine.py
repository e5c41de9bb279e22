"""Combinations of rewards: arithmetic on their scores, with abstention carried through."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from guerdon.algebra.reward import Reward, merged, one_level, widest
from guerdon.core.arrays import Array, like, to_numpy, where
from guerdon.core.context import Context
from guerdon.core.protocols import Range, Scope
from guerdon.core.scores import Level, Scores

if TYPE_CHECKING:
    from guerdon.algebra.leaf import Leaf

Measured = Mapping["Leaf", Scores]


@dataclass(frozen=True, repr=False)
class Composite(Reward):
    """A combination of several rewards of one level."""

    terms: tuple[Reward, ...]
    keyword: ClassVar[str]

    def __post_init__(self) -> None:
        for term in self.terms:
            if not isinstance(term, Reward):
                raise TypeError(f"{self.keyword} combines rewards, got {term!r}")
        if not self.terms:
            raise ValueError(f"{self.keyword} of nothing")
        self._check_levels()
        self.names()

    def _check_levels(self) -> None:
        one_level(self.terms, "combine")

    def __repr__(self) -> str:
        return f"{self.keyword}({', '.join(map(repr, self.terms))})"

    @property
    def children(self) -> tuple[Reward, ...]:
        return self.terms

    def combine(self, measured: Measured, context: Context) -> Scores:
        scores = [term.combine(measured, context) for term in self.terms]
        if len({tuple(s.mask.shape) for s in scores}) > 1:
            counts = ", ".join(str(part.mask.shape[-1]) for part in scores)
            raise ValueError(f"{self}: the terms have {counts} steps per rollout, and must share one segmentation")
        mask = scores[0].mask
        for other in scores[1:]:
            mask = mask & other.mask
        values, valid = self._values(scores, context)
        valid = valid & mask
        abstained = mask & ~valid
        rows = np.flatnonzero(to_numpy(abstained if abstained.ndim == 1 else abstained.any(-1)))
        return Scores(
            values, mask=mask, valid=valid, spans=scores[0].spans, **merged(self.terms, scores, map(int, rows))
        )

    def _values(self, scores: Sequence[Scores], context: Context) -> tuple[Array, Array]:
        """The combined numbers, and where they are valid."""
        raise NotImplementedError


def _all_valid(scores: Sequence[Scores]) -> Array:
    valid = scores[0].valid
    for other in scores[1:]:
        valid = valid & other.valid
    return valid


@dataclass(frozen=True, repr=False)
class Sum(Composite):
    """Σ wᵢ rᵢ + bias; abstains where any term does, at weight 0 too."""

    keyword = "sum"

    weights: tuple[float, ...] = ()
    bias: float = 0.0

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.terms):
            raise ValueError(f"{len(self.weights)} weights for {len(self.terms)} terms")
        if not all(math.isfinite(w) for w in (*self.weights, self.bias)):
            raise ValueError(f"weights must be finite, got {self.weights}")
        super().__post_init__()

    def _check_levels(self) -> None:
        one_level(self.terms, "add")

    def __repr__(self) -> str:
        terms = [
            repr(term) if weight == 1 else f"{weight:g} * {term}"
            for weight, term in zip(self.weights, self.terms, strict=True)
        ]
        terms += [f"{self.bias:g}"] if self.bias else []
        return terms[0] if len(terms) == 1 else f"({' + '.join(terms)})"

    @property
    def range(self) -> Range:
        ends = [
            sorted((_times(w, term.range[0]), _times(w, term.range[1])))
            for w, term in zip(self.weights, self.terms, strict=True)
        ]
        return sum(low for low, _ in ends) + self.bias, sum(high for _, high in ends) + self.bias

    def _values(self, scores: Sequence[Scores], context: Context) -> tuple[Array, Array]:
        values = sum(weight * s.read(0.0) for weight, s in zip(self.weights, scores, strict=True))
        return values + self.bias, _all_valid(scores)


def add(first: Reward, second: Reward | float) -> Sum:
    """The sum of two rewards, or of a reward and a number; sums of sums are flattened."""
    if not isinstance(second, Reward):
        if not _is_number(second):
            raise TypeError(f"cannot add {type(second).__name__} to a reward")
        flat = _terms(first)
        return Sum(*flat[:2], bias=flat[2] + float(second))
    (terms, weights, bias), (more, others, offset) = _terms(first), _terms(second)
    return Sum(terms + more, weights + others, bias + offset)


def scale(reward: Reward, weight: float) -> Sum:
    """A reward times a number."""
    if not _is_number(weight):
        raise TypeError(f"a weight is a number, got {weight!r}")
    terms, weights, bias = _terms(reward)
    return Sum(terms, tuple(float(weight) * w for w in weights), float(weight) * bias)


def _terms(reward: Reward) -> tuple[tuple[Reward, ...], tuple[float, ...], float]:
    if isinstance(reward, Sum):
        return reward.terms, reward.weights, reward.bias
    return (reward,), (1.0,), 0.0


@dataclass(frozen=True, repr=False)
class Product(Composite):
    """Π rᵢ; abstains where any factor does, at 0 too."""

    keyword = "product"

    @property
    def range(self) -> Range:
        low, high = self.terms[0].range
        for term in self.terms[1:]:
            corners = [_times(a, b) for a in (low, high) for b in term.range]
            low, high = min(corners), max(corners)
        return low, high

    def _values(self, scores: Sequence[Scores], context: Context) -> tuple[Array, Array]:
        values = scores[0].read(0.0)
        for other in scores[1:]:
            values = values * other.read(0.0)
        return values, _all_valid(scores)


def product(*rewards: Reward) -> Product:
    """Multiply rewards: Π rᵢ. All must hold for the product to be high; abstains where any factor does.

    >>> from guerdon import product
    >>> from guerdon.rewards import text
    >>> product(text.length(unit="words"), text.length(unit="characters"))(["?"], ["two words"])
    [18.0]

    Source: multiplicative rewards, e.g. the factor products of parts.md; arithmetic.
    """
    return Product(rewards)


@dataclass(frozen=True, repr=False)
class Harmonic(Composite):
    """The weighted harmonic mean of rewards that are never negative."""

    keyword = "harmonic"

    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive_weights(self.weights, self.terms)
        for term in self.terms:
            if term.range[0] < 0:
                raise ValueError(
                    f"a harmonic mean needs rewards that are never negative, {term} reaches {term.range[0]:g}"
                )

    @property
    def range(self) -> Range:
        lows, highs = zip(*(term.range for term in self.terms), strict=True)
        return min(lows), max(highs)

    def _values(self, scores: Sequence[Scores], context: Context) -> tuple[Array, Array]:
        zero = scores[0].read(1.0) == 0
        inverse: Any = 0.0
        for weight, s in zip(self.weights, scores, strict=True):
            values = s.read(1.0)
            zero = zero | (values == 0)
            inverse = inverse + weight / where(values == 0, 1.0, values)
        return where(zero, 0.0, sum(self.weights) / inverse), _all_valid(scores)


def harmonic(*rewards: Reward, weights: Sequence[float] | None = None) -> Harmonic:
    """The weighted harmonic mean: Σwᵢ / Σ(wᵢ/rᵢ), 0 where any reward is 0.

    It is close to the smallest of its terms, so one good term does not buy off a bad one. Abstains
    where any term does.

    Raises:
        ValueError: if a reward can be negative, or a weight is not positive.

    Source: λ-harmonic reward, RPO (arXiv 2402.12366).
    """
    return Harmonic(rewards, _weights(weights, rewards))


@dataclass(frozen=True, repr=False)
class Available(Composite):
    """The weighted sum of the terms that are there, scaled to the weight of all."""

    keyword = "available"

    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive_weights(self.weights, self.terms)

    @property
    def range(self) -> Range:
        lows, highs = zip(*(term.range for term in self.terms), strict=True)
        return sum(self.weights) * min(lows), sum(self.weights) * max(highs)

    def _values(self, scores: Sequence[Scores], context: Context) -> tuple[Array, Array]:
        total = sum(weight * s.read(0.0) for weight, s in zip(self.weights, scores, strict=True))
        there = sum(weight * s.valid for weight, s in zip(self.weights, scores, strict=True))
        return sum(self.weights) * total / where(there > 0, there, 1.0), there > 0


def available(*rewards: Reward, weights: Sequence[float] | None = None) -> Available:
    """Sum what is there, and stand in for what is not: (Σ all wᵢ) · Σᵥ wᵢrᵢ / Σᵥ wᵢ over valid terms v.

    The one combination that renormalises over abstentions, and says so by its name. Equal to the
    plain weighted sum where no term abstains; abstains where all do.

    Raises:
        ValueError: if a weight is not positive.

    Source: ours; the alternative to summing a missing reward as 0.
    """
    return Available(rewards, _weights(weights, rewards))


@dataclass(frozen=True, repr=False)
class Gate(Reward):
    """One reward, where another one is high enough."""

    condition: Reward
    then: Reward
    above: float = 0.5
    otherwise: float = 0.0

    def __post_init__(self) -> None:
        if self.condition.level == "step":
            one_level((self.condition, self.then), "gate")
        self.names()

    def __repr__(self) -> str:
        return f"gate({self.condition}, then={self.then}, above={self.above:g}, otherwise={self.otherwise:g})"

    @property
    def children(self) -> tuple[Reward, ...]:
        return (self.condition, self.then)

    @property
    def level(self) -> Level:
        return self.then.level

    @property
    def range(self) -> Range:
        return min(self.then.range[0], self.otherwise), max(self.then.range[1], self.otherwise)

    def combine(self, measured: Measured, context: Context) -> Scores:
        condition, then = self.condition.combine(measured, context), self.then.combine(measured, context)
        is_open, decided, asked = condition.read(0.0) > self.above, condition.valid, condition.mask
        if then.level == "step" and condition.level == "rollout":
            is_open, decided, asked = is_open[:, None], decided[:, None], asked[:, None]
        is_open, decided, asked = (like(x, then.mask) for x in (is_open, decided, asked))
        mask = then.mask & asked
        valid = mask & decided & (~is_open | then.valid)
        missing = mask & ~valid
        rows = np.flatnonzero(to_numpy(missing if missing.ndim == 1 else missing.any(-1)))
        values = where(is_open, then.read(0.0), self.otherwise)
        return Scores(
            values, mask=mask, valid=valid, spans=then.spans, **merged(self.children, (condition, then), map(int, rows))
        )


def gate(condition: Reward, *, then: Reward, above: float = 0.5, otherwise: float = 0.0) -> Gate:
    """`then` where `condition > above`, `otherwise` elsewhere.

    A closed gate ignores `then`: if it abstains there, nothing is lost. Where the condition
    abstains, so does the gate. A condition of one score per rollout gates rewards of steps as well.

    Args:
        condition: the reward that decides.
        then: the reward that counts once it is met.
        above: the threshold, exclusive, in the unit of the condition.
        otherwise: the score of a closed gate.

    Source: outcome-gated rewards, e.g. G-RA and CRF of the shaping systems.
    """
    return Gate(condition, then, float(above), float(otherwise))


@dataclass(frozen=True, repr=False)
class Lexicographic(Composite):
    """The place in a group's order by the first reward, ties broken by the next."""

    keyword = "lexicographic"

    tolerance: float = 0.0

    @property
    def range(self) -> Range:
        return 0.0, 1.0

    @property
    def scope(self) -> Scope:
        return widest(("group", super().scope))

    def _check_levels(self) -> None:
        one_level(self.terms, "order")
        if self.level == "step":
            raise ValueError("lexicographic orders rollouts: reduce(…) rewards of steps first")

    def _values(self, scores: Sequence[Scores], context: Context) -> tuple[Array, Array]:
        groups = context.require_rollouts().groups
        values, valid = np.zeros(len(groups)), np.ones(len(groups), bool)
        for group in np.unique(groups):
            rows = np.flatnonzero((groups == group) & np.all([to_numpy(s.mask) for s in scores], 0))
            places, known = self._order([(to_numpy(s.read(0.0))[rows], to_numpy(s.valid)[rows]) for s in scores])
            values[rows] = places / max(1, places.max(initial=0))
            valid[rows] = known
        return like(values, scores[0].read(0.0)), like(valid, scores[0].valid)

    def _order(self, terms: list[tuple[Array, Array]]) -> tuple[Array, Array]:
        """Dense places (0 the worst) and where they are known: a later term is asked on ties only."""
        places = np.zeros(len(terms[0][0]), np.int64)
        known = np.ones(len(places), bool)
        for values, valid in terms:
            tied = np.bincount(places, weights=known, minlength=len(places) + 1)[places] > 1
            known &= valid | ~tied
            refined = np.zeros_like(places)
            place = -1
            for current in np.unique(places):
                members = np.flatnonzero((places == current) & known)
                members = members[np.argsort(values[members], kind="stable")]
                steps = [True, *(b - a > self.tolerance for a, b in pairwise(values[members]))] if len(members) else []
                for member, step in zip(members, steps, strict=True):
                    place += bool(step)
                    refined[member] = place
            places = refined
        return places, known


def lexicographic(*rewards: Reward, tolerance: float = 0.0) -> Lexicographic:
    """Order a group by the first reward, break its ties by the second, and so on.

    Returns each rollout's place, from 0 for the worst to 1 for the best, with equal places for equal
    rollouts. No amount of a later reward makes up for an earlier one. A later term is needed only on
    ties: where it abstains without one, nothing is lost.

    Args:
        rewards: the most important first.
        tolerance: two neighbouring scores at most this far apart are a tie.

    Source: lexicographic preferences; the group order is ours.
    """
    return Lexicographic(rewards, float(tolerance))


@dataclass(frozen=True, repr=False)
class Reduced(Reward):
    """One score per rollout from those of its steps."""

    inner: Reward
    how: Literal["sum", "mean", "min", "max", "product", "last"]

    def __post_init__(self) -> None:
        if self.inner.level != "step":
            raise ValueError(f"{self.inner} gives one score per rollout already: there is nothing to reduce")
        if self.how not in ("sum", "mean", "min", "max", "product", "last"):
            raise ValueError(f"how is 'sum', 'mean', 'min', 'max', 'product' or 'last', got {self.how!r}")

    def __repr__(self) -> str:
        return f"reduce({self.inner}, {self.how!r})"

    @property
    def children(self) -> tuple[Reward, ...]:
        return (self.inner,)

    @property
    def level(self) -> Level:
        return "rollout"

    @property
    def range(self) -> Range:
        low, high = self.inner.range
        if self.how == "sum":
            return (-math.inf if low < 0 else low), (math.inf if high > 0 else high)
        if self.how == "product" and not 0 <= low <= high <= 1:
            return (-math.inf if low < 0 else 0.0), math.inf
        return low, high

    def combine(self, measured: Measured, context: Context) -> Scores:
        scores = self.inner.combine(measured, context)
        mask = scores.mask
        if self.how == "sum":
            values = scores.read(0.0).sum(-1)
        elif self.how == "mean":
            values = scores.read(0.0).sum(-1) / where(mask.sum(-1) > 0, mask.sum(-1), 1)
        elif self.how == "product":
            values = scores.read(1.0).prod(-1)
        elif self.how == "last":
            steps = scores.read(0.0)
            last = mask.shape[1] - 1 - to_numpy(mask)[:, ::-1].argmax(-1)
            values = steps[np.arange(len(steps)), last] if mask.shape[1] else steps.sum(-1)
        else:
            steps = scores.read(math.inf if self.how == "min" else -math.inf)
            values = (
                (steps.min(-1) if self.how == "min" else steps.max(-1)) if mask.shape[1] else scores.read(0.0).sum(-1)
            )
            values = values if isinstance(values, np.ndarray) else getattr(values, "values", values)
        valid = scores.usable
        values = where(valid, values, 0.0)
        reasons = {
            int(i): scores.reasons.get(int(i), "the rollout has no steps") for i in np.flatnonzero(to_numpy(~valid))
        }
        return Scores(values, valid=valid, reasons=reasons, parts=scores.parts)


def reduce(reward: Reward, how: Literal["sum", "mean", "min", "max", "product", "last"]) -> Reduced:
    """One score per rollout from a reward that gives one per step.

    Abstains where any step does, and where a rollout has no steps: an empty minimum is not a score.

    Args:
        reward: one score per step.
        how: 'min' (a chain is as good as its worst step), 'mean', 'max', 'product', 'last', or 'sum',
            which pays for every further step of positive reward.

    Source: aggregations of process rewards; PURE (arXiv 2504.15275) on min against sum.
    """
    return Reduced(reward, how)


@dataclass(frozen=True, repr=False)
class Weighed(Reward):
    """A reward times a column of the data."""

    inner: Reward
    by: str

    def __repr__(self) -> str:
        return f"weigh({self.inner}, by={self.by!r})"

    @property
    def children(self) -> tuple[Reward, ...]:
        return (self.inner,)

    @property
    def requires(self) -> frozenset[str]:
        return self.inner.requires | {self.by}

    @property
    def range(self) -> Range:
        low, high = self.inner.range
        return (-math.inf if low < 0 else 0.0), (math.inf if high > 0 else 0.0)

    def combine(self, measured: Measured, context: Context) -> Scores:
        scores = self.inner.combine(measured, context)
        weights = np.array([_weight(entry) for entry in context.require_rollouts().column(self.by)], np.float64)
        unusable = ~(np.isfinite(weights) & (weights >= 0))
        factor = where(unusable, 0.0, weights)
        if scores.level == "step":
            factor, unusable = factor[:, None], unusable[:, None]
        reasons = {int(i): f"column {self.by!r} is not a weight ≥ 0" for i in np.flatnonzero(unusable)}
        return scores.with_values(
            scores.read(0.0) * like(factor, scores.mask),
            valid=scores.valid & ~like(unusable, scores.mask),
            reasons={**reasons, **scores.reasons},
        )


def weigh(reward: Reward, *, by: str) -> Weighed:
    """Multiply a reward by a column of the data, such as a difficulty.

    Abstains where the column is not a finite number ≥ 0.

    Source: difficulty-weighted rewards; arithmetic.
    """
    return Weighed(reward, by)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _weight(entry: Any) -> float:
    return float(entry) if _is_number(entry) else math.nan


def _weights(weights: Sequence[float] | None, rewards: Sequence[Reward]) -> tuple[float, ...]:
    return tuple(1.0 for _ in rewards) if weights is None else tuple(float(w) for w in weights)


def _positive_weights(weights: tuple[float, ...], terms: Sequence[Reward]) -> None:
    if len(weights) != len(terms):
        raise ValueError(f"{len(weights)} weights for {len(terms)} rewards")
    if not all(w > 0 and math.isfinite(w) for w in weights):
        raise ValueError(f"weights must be positive, got {weights}")


def _times(a: float, b: float) -> float:
    """a·b with 0·∞ = 0: the ends of a range, not of a limit."""
    return 0.0 if a == 0 or b == 0 else a * b
