"""The geometric mean of rewards that may be negative."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float

from guerdon.algebra.combine import Weighted, all_valid, positive_weights, weights_of
from guerdon.algebra.expression import Reward
from guerdon.core.arrays import Array, where
from guerdon.core.context import Context
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores


def signed_geometric_mean(
    values: Sequence[Float[Array, "*n"]], *, weights: Sequence[float] | None = None
) -> Float[Array, "*n"]:
    """The geometric mean of the sizes, positive only where nothing is negative:

        Πᵢ |rᵢ|^(wᵢ / Σw) · (1 if all rᵢ ≥ 0, else −1)

    A plain product calls two wrongs a right: driving away from the ball, which lies the wrong way, would pay.

    Args:
        values: NumPy arrays or tensors of one shape.
        weights: positive, one each. Default: all the same.

    Returns:
        In the shape of one; 0 where any is 0, and between the smallest and the largest where none is negative.

    Raises:
        ValueError: if there is nothing, or a weight is not positive.

    >>> import numpy as np
    >>> signed_geometric_mean([np.array([-0.5, -0.5, 0.5]), np.array([0.8, -0.8, 0.5])]).round(4)
    array([-0.6325, -0.6325,  0.5   ])

    Source: the kinesthetic reward combination of Lucy-SKG (Enkhai/lucy-utils; arXiv 2305.15801).
    """
    shares = weights_of(weights, values)
    positive_weights(shares, values)
    if not values:
        raise ValueError("the geometric mean of nothing")
    total = sum(shares)
    size: Any = 1.0
    zero: Any = False
    negative: Any = False
    for value, weight in zip(values, shares, strict=True):
        here = value == 0
        # At 0 the power has no slope: what stands there is not read.
        size = size * abs(where(here, 1.0, value)) ** (weight / total)
        zero, negative = zero | here, negative | (value < 0)
    found: Array = where(zero, 0.0, where(negative, -size, size))
    return found


@dataclass(frozen=True, repr=False)
class Geometric(Weighted):
    """The signed, weighted geometric mean of rewards."""

    keyword = "geometric"

    @property
    def range(self) -> Range:
        lows, highs = zip(*(term.range for term in self.terms), strict=True)
        sizes = [max(-low, high, 0.0) for low, high in zip(lows, highs, strict=True)]
        lowest = -self._mean(sizes) if min(lows) < 0 else self._mean(lows)
        return lowest, self._mean([max(high, 0.0) for high in highs])

    def _mean(self, sizes: Sequence[float]) -> float:
        total = sum(self.weights)
        powers = (size ** (weight / total) for size, weight in zip(sizes, self.weights, strict=True))
        return math.prod(powers) if all(sizes) else 0.0

    def _values(self, scores: Sequence[Scores], context: Context) -> tuple[Array, Array]:
        return signed_geometric_mean([s.read(1.0) for s in scores], weights=self.weights), all_valid(scores)


def geometric(*rewards: Reward, weights: Sequence[float] | None = None) -> Geometric:
    """The signed geometric mean of rewards: Πᵢ |rᵢ|^(wᵢ/Σw), negative where any of them is.

    All must be good for it to be good, and it stays in their unit, where a product of n rewards below 1 shrinks with
    n. Abstains where any term does. See `algebra.geometric.signed_geometric_mean`.

    Args:
        rewards: of one level.
        weights: positive, one each. Default: all the same.

    Raises:
        ValueError: if a weight is not positive.

    >>> from guerdon.rewards import recorded
    >>> aligned, fast = recorded.value(column="a", low=-1), recorded.value(column="b", low=-1)
    >>> both = geometric(aligned.named("aligned"), fast.named("fast"))
    >>> [round(r, 4) for r in both(["?"] * 3, [""] * 3, a=[0.5, -0.5, -0.5], b=[0.5, 0.8, -0.8])]
    [0.5, -0.6325, -0.6325]

    Source: the kinesthetic reward combination of Lucy-SKG (Enkhai/lucy-utils; arXiv 2305.15801).
    """
    return Geometric(rewards, weights_of(weights, rewards))
