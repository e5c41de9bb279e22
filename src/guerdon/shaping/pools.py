"""Which scores are compared with one another: statistics of groups, of the batch, and of all that was seen."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.scores import Scores

Over = Literal["group", "batch"]


class Moments(NamedTuple):
    """Statistics of each pool; constants, without gradients. 0 where a pool is empty."""

    size: Float[np.ndarray[Any, Any], "g"]
    mean: Float[np.ndarray[Any, Any], "g"]
    squares: Float[np.ndarray[Any, Any], "g"]
    low: Float[np.ndarray[Any, Any], "g"]
    high: Float[np.ndarray[Any, Any], "g"]

    def merged(self, other: Moments) -> Moments:
        """These and those of other samples, as if taken of all at once (Chan, Golub & LeVeque 1979)."""
        size = self.size + other.size
        total = np.maximum(size, 1.0)
        apart = np.where((self.size > 0) & (other.size > 0), other.mean - self.mean, 0.0)
        mean = np.where(self.size > 0, self.mean + apart * other.size / total, other.mean)
        squares = self.squares + other.squares + apart**2 * self.size * other.size / total
        low = np.where(self.size == 0, other.low, np.where(other.size == 0, self.low, np.minimum(self.low, other.low)))
        high = np.where(
            self.size == 0, other.high, np.where(other.size == 0, self.high, np.maximum(self.high, other.high))
        )
        return Moments(size, mean, squares, low, high)

    def std(self, ddof: int = 0) -> Float[np.ndarray[Any, Any], "g"]:
        """The standard deviation; 0 of too few samples."""
        return np.asarray(np.sqrt(self.squares / np.maximum(self.size - ddof, 1.0)))


def pooled(scores: Scores, context: Context, over: str) -> tuple[Int[np.ndarray[Any, Any], "n"], int]:
    """The pool of each row, as numbers from 0, and how many there are."""
    groups = context.require_rollouts().groups if over == "group" else np.zeros(len(scores), np.int64)
    _, index = np.unique(groups, return_inverse=True)
    return index, int(index.max(initial=-1)) + 1


def moments(
    values: Float[np.ndarray[Any, Any], "n *s"],
    valid: Bool[np.ndarray[Any, Any], "n *s"],
    index: Int[np.ndarray[Any, Any], "n"],
    pools: int,
) -> Moments:
    """Statistics of the valid values of each pool; of rewards of steps, every step is a sample."""
    cells = np.broadcast_to(index[:, None], values.shape)[valid] if values.ndim == 2 else index[valid]
    samples = values[valid].astype(np.float64)
    count = np.bincount(cells, minlength=pools).astype(np.float64)
    mean = np.bincount(cells, samples, minlength=pools) / np.maximum(count, 1.0)
    squares = np.bincount(cells, (samples - mean[cells]) ** 2, minlength=pools)
    low, high = np.full(pools, np.inf), np.full(pools, -np.inf)
    np.minimum.at(low, cells, samples)
    np.maximum.at(high, cells, samples)
    return Moments(count, mean, squares, np.where(count > 0, low, 0.0), np.where(count > 0, high, 0.0))


def moments_of(scores: Scores, context: Context, over: str) -> tuple[Moments, Int[np.ndarray[Any, Any], "n"]]:
    """Statistics of the scores there are, by pool, and the pool of each row."""
    index, pools = pooled(scores, context, over)
    return moments(to_numpy(scores.read(0.0)), to_numpy(scores.valid), index, pools), index


def spread_out(per_row: Any, ndim: int) -> Any:
    """A number per row, against one score per rollout or one per step."""
    return per_row[:, None] if ndim == 2 else per_row


def check_over(over: str, *more: str) -> None:
    """Refuse a pool that there is not.

    Raises:
        ValueError: naming those there are.
    """
    known = (*get_args(Over), *more)
    if over not in known:
        raise ValueError(f"over is {', '.join(map(repr, known[:-1]))} or {known[-1]!r}, got {over!r}")
