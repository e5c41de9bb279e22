"""What a policy can reach with k tries, and whether training widened or only sharpened it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

Array = np.ndarray[Any, Any]


def pass_at_k(correct: Int[Array, "m"], total: int | Int[Array, "m"], k: int) -> Float[Array, "m"]:
    r"""The chance that one of k tries is right, of each problem: 1 − C(n − c, k) / C(n, k).

    Unbiased, unlike 1 − (1 − c/n)ᵏ: it is the chance of k out of the n tries that there are, without replacement.

    Args:
        correct: c, how many tries of each problem were right.
        total: n, how many there were; abstentions are no tries.
        k: from 1 to the smallest n.

    Raises:
        ValueError: if a count is out of range or k > n: what was not tried cannot be estimated.

    Source: Codex (arXiv 2107.03374), as in limit-of-RLVR (2504.13837).

    >>> pass_at_k(np.array([3]), 10, 5).round(6)
    array([0.916667])
    """
    correct = np.asarray(correct)
    total = np.broadcast_to(np.asarray(total), correct.shape)
    if (correct < 0).any() or (correct > total).any():
        raise ValueError("correct must lie between 0 and total for every problem")
    if k < 1 or (total < k).any():
        raise ValueError(f"k must be from 1 to the tries of every problem, {min(total.tolist(), default=0)}, got {k}")
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total.max(initial=0) + 1)))])
    wrong = total - correct
    possible = wrong >= k
    left = np.where(possible, wrong - k, 0)
    log_miss = log_factorial[wrong] - log_factorial[left] - log_factorial[total] + log_factorial[total - k]
    return np.where(possible, -np.expm1(np.minimum(log_miss, 0.0)), 1.0)


def pass_curve(correct: Int[Array, "m"], total: int | Int[Array, "m"], ks: Sequence[int]) -> Float[Array, "m k"]:
    """`pass_at_k` of every problem at every k; the mean over problems is the benchmark's curve.

    Raises:
        ValueError: as `pass_at_k`.

    Source: limit-of-RLVR (arXiv 2504.13837).

    >>> pass_curve(np.array([1, 2]), 2, [1, 2]).mean(0)
    array([0.75, 1.  ])
    """
    return np.stack([pass_at_k(correct, total, k) for k in ks], 1)


def crossover(base: Float[Array, "k"], tuned: Float[Array, "k"], ks: Sequence[int]) -> int | None:
    """The first k at which the base policy is at least as good as the tuned one; None if there is none.

    Args:
        base, tuned: mean curves of the two.
        ks: rising.

    Raises:
        ValueError: if the lengths differ.

    Source: limit-of-RLVR (arXiv 2504.13837).

    >>> crossover(np.array([0.1, 0.4, 0.9]), np.array([0.2, 0.4, 0.5]), [1, 4, 16])
    4
    """
    base, tuned = np.asarray(base), np.asarray(tuned)
    if not len(base) == len(tuned) == len(ks):
        raise ValueError(f"base, tuned and ks must be equally long, got {len(base)}, {len(tuned)} and {len(ks)}")
    behind = np.flatnonzero(base >= tuned)
    return int(ks[behind[0]]) if behind.size else None


def coverage(base: Bool[Array, "m"], tuned: Bool[Array, "m"]) -> dict[str, int]:
    """How many problems are solved at all by both policies, one of them, or neither.

    Args:
        base, tuned: whether a problem was solved in any of the tries; counts of right tries will do.

    Raises:
        ValueError: if the shapes differ.

    Source: limit-of-RLVR (arXiv 2504.13837), where "tuned" alone is about 0.

    >>> coverage(np.array([3, 1, 0]), np.array([8, 0, 0]))
    {'both': 1, 'base': 1, 'tuned': 0, 'neither': 1}
    """
    base, tuned = np.asarray(base) > 0, np.asarray(tuned) > 0
    if base.shape != tuned.shape:
        raise ValueError(f"base and tuned must have one shape, got {base.shape} and {tuned.shape}")
    counts = {"both": base & tuned, "base": base & ~tuned, "tuned": ~base & tuned, "neither": ~base & ~tuned}
    return {name: int(rows.sum()) for name, rows in counts.items()}


def efficiency_gap(base: Float[Array, "m"], tuned: Float[Array, "m"]) -> float:
    """Δ_SE = mean pass@k of the base at the largest k − mean pass@1 of the tuned policy.

    What the base could reach with many tries and training has not brought into the first one; small is good.

    Args:
        base: pass@k of each problem under the base policy.
        tuned: pass@1 of each problem under the tuned one.

    Raises:
        ValueError: if there are no problems.

    Source: limit-of-RLVR (arXiv 2504.13837, §4.3), with k = 256.

    >>> efficiency_gap(np.array([1.0, 0.5]), np.array([0.5, 0.0]))
    0.5
    """
    if not len(base) or not len(tuned):
        raise ValueError("there are no problems to average over")
    return float(np.mean(base) - np.mean(tuned))


def accuracy_histogram(
    correct: Int[Array, "m"], total: int | Int[Array, "m"], *, bins: int = 10
) -> tuple[Int[Array, "b"], Float[Array, "b+1"]]:
    """How many problems have which accuracy: counts, and the bins' edges from 0 to 1.

    Training on verifiable rewards moves problems to both ends, the upper and the lower.

    Raises:
        ValueError: if a problem has no tries.

    Source: limit-of-RLVR (arXiv 2504.13837, figure 5).

    >>> accuracy_histogram(np.array([0, 1, 4]), 4, bins=2)[0]
    array([2, 1])
    """
    total = np.broadcast_to(np.asarray(total), np.shape(correct))
    if (total < 1).any():
        raise ValueError("a problem without tries has no accuracy")
    return np.histogram(np.asarray(correct) / total, bins=bins, range=(0.0, 1.0))


def bootstrap(
    values: Float[Array, "m *k"], *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[Float[Array, "*k"], Float[Array, "*k"]]:
    """The interval in which the mean over problems lies when the problems are drawn again.

    Differences of two policies on the same problems are taken before, so that what is hard for both cancels.

    Args:
        values: of each problem, e.g. from `pass_curve`.
        draws: how many times m problems are drawn, with replacement.
        level: share of the means inside.
        seed: of the draws.

    Returns:
        Lower and upper end, percentiles of the means.

    Raises:
        ValueError: if there are no problems, or level is not within (0, 1).

    Source: the percentile bootstrap, Efron (1979).

    >>> low, high = bootstrap(np.array([0.0, 1.0] * 50))
    >>> bool(0.35 < low < 0.45), bool(0.55 < high < 0.65)
    (True, True)
    """
    values = np.asarray(values, float)
    if not len(values) or not 0 < level < 1 or draws < 1:
        raise ValueError(f"needs problems, a level in (0, 1) and draws, got {values.shape}, {level} and {draws}")
    m = len(values)
    counts = np.random.default_rng(seed).multinomial(m, np.full(m, 1 / m), size=draws)
    means = np.tensordot(counts / m, values, axes=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
