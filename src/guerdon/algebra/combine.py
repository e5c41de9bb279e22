"""Combinations of rewards: arithmetic on their scores, with abstention carried through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from guerdon.algebra.align import aligned
from guerdon.algebra.expression import Reward, expect_rewards, merged, one_level
from guerdon.core.arrays import Array, to_numpy, where
from guerdon.core.context import Context
from guerdon.core.protocols import Measured, Range
from guerdon.core.scores import Scores


@dataclass(frozen=True, repr=False)
class Composite(Reward):
    """A combination of several rewards of one level."""

    terms: tuple[Reward, ...]
    keyword: ClassVar[str]

    def __post_init__(self) -> None:
        expect_rewards(self.keyword, *self.terms)
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
        scores = aligned([term.combine(measured, context) for term in self.terms])
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


@dataclass(frozen=True, repr=False)
class Weighted(Composite):
    """A combination whose terms count by positive weights."""

    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        positive_weights(self.weights, self.terms)


def all_valid(scores: Sequence[Scores]) -> Array:
    """The rows of which no score abstains."""
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
            raise ValueError(f"weights and bias must be finite, got {self.weights} and {self.bias}")
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
        return values + self.bias, all_valid(scores)


def add(first: Reward, second: Reward | float) -> Sum:
    """The sum of two rewards, or of a reward and a number; sums of sums are flattened."""
    if not isinstance(second, Reward):
        if not is_number(second):
            raise TypeError(f"cannot add {type(second).__name__} to a reward")
        flat = _terms(first)
        return Sum(*flat[:2], bias=flat[2] + float(second))
    (terms, weights, bias), (more, others, offset) = _terms(first), _terms(second)
    return Sum(terms + more, weights + others, bias + offset)


def scale(reward: Reward, weight: float) -> Sum:
    """A reward times a number."""
    if not is_number(weight):
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
        return values, all_valid(scores)


def product(*rewards: Reward) -> Product:
    """Multiply rewards: Π rᵢ. All must hold for the product to be high; abstains where any factor does.

    >>> from guerdon import product
    >>> from guerdon.rewards import text
    >>> words, characters = text.length(unit="words").named("words"), text.length(unit="characters")
    >>> product(words, characters)(["?"], ["two words"])
    [18.0]

    Source: multiplicative rewards, e.g. the factor products of parts.md; arithmetic.
    """
    return Product(rewards)


@dataclass(frozen=True, repr=False)
class Harmonic(Weighted):
    """The weighted harmonic mean of rewards that are never negative."""

    keyword = "harmonic"

    def __post_init__(self) -> None:
        super().__post_init__()
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
        return where(zero, 0.0, sum(self.weights) / inverse), all_valid(scores)


def harmonic(*rewards: Reward, weights: Sequence[float] | None = None) -> Harmonic:
    """The weighted harmonic mean: Σwᵢ / Σ(wᵢ/rᵢ), 0 where any reward is 0.

    It is close to the smallest of its terms, so one good term does not buy off a bad one. Abstains
    where any term does.

    Raises:
        ValueError: if a reward can be negative, or a weight is not positive.

    Source: λ-harmonic reward, RPO (arXiv 2407.12164).
    """
    return Harmonic(rewards, weights_of(weights, rewards))


@dataclass(frozen=True, repr=False)
class Available(Weighted):
    """The weighted sum of the terms that are there, scaled to the weight of all."""

    keyword = "available"

    @property
    def range(self) -> Range:
        lows, highs = zip(*(term.range for term in self.terms), strict=True)
        return sum(self.weights) * min(lows), sum(self.weights) * max(highs)

    def _values(self, scores: Sequence[Scores], context: Context) -> tuple[Array, Array]:
        total = sum(weight * s.read(0.0) for weight, s in zip(self.weights, scores, strict=True))
        there = sum(where(s.valid, weight, 0.0 * s.read(0.0)) for weight, s in zip(self.weights, scores, strict=True))
        return sum(self.weights) * total / where(there > 0, there, 1.0), there > 0


def available(*rewards: Reward, weights: Sequence[float] | None = None) -> Available:
    """Sum what is there, and stand in for what is not: (Σ all wᵢ) · Σᵥ wᵢrᵢ / Σᵥ wᵢ over valid terms v.

    The one combination that renormalises over abstentions, and says so by its name. Equal to the
    plain weighted sum where no term abstains; abstains where all do.

    Raises:
        ValueError: if a weight is not positive.

    Source: ours; the alternative to summing a missing reward as 0.
    """
    return Available(rewards, weights_of(weights, rewards))


def is_number(value: Any) -> bool:
    """True for a number, which a truth value is not."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def weights_of(weights: Sequence[float] | None, rewards: Sequence[Any]) -> tuple[float, ...]:
    """The weights given, or 1 each."""
    return tuple(1.0 for _ in rewards) if weights is None else tuple(float(w) for w in weights)


def positive_weights(weights: Sequence[float], terms: Sequence[Any]) -> None:
    """Check that there is a positive weight for each term.

    Raises:
        ValueError: saying which there are.
    """
    if len(weights) != len(terms):
        raise ValueError(f"{len(weights)} weights for {len(terms)} rewards")
    if not all(w > 0 and math.isfinite(w) for w in weights):
        raise ValueError(f"weights must be positive, got {weights}")


def _times(a: float, b: float) -> float:
    """a·b with 0·∞ = 0: the ends of a range, not of a limit."""
    return 0.0 if a == 0 or b == 0 else a * b
