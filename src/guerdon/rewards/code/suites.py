"""How good a suite of tests is, from which wrong programs it kills; and which tests to keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.rewards.code.matrix import PassMatrix

Kills = Bool[np.ndarray[Any, Any], "s n"]


class SuiteQuality(NamedTuple):
    """What the tests of one problem are worth as its verifier.

    Args:
        detection: DR, the share of wrong programs that some test kills.
        accurate: VAcc, whether every one is killed.
        patterns: DEPC, how many different sets of programs its tests kill, the empty one apart.
        diversity: patterns per test.
        correlation: mean correlation between what two tests kill; None where fewer than two tests tell programs apart.
        power: the mean share of wrong programs that one test kills.
    """

    detection: float
    accurate: bool
    patterns: int
    diversity: float
    correlation: float | None
    power: float


def suite_quality(kills: Kills | PassMatrix, *, first: int | None = None) -> SuiteQuality:
    """The quality of a suite, from its kill matrix.

        DR = mean over s of 1[any_k K_sk]        VAcc = 1[all s are killed]        DEPC = |{columns of K} ∖ {0}|

    A test that is there twice changes neither DR nor VAcc, and lowers the diversity.

    Args:
        kills: True where a wrong program fails a test: by its output, an error or lateness.
        first: DR@k, VAcc@k: only the first k tests.

    Raises:
        ValueError: if there are no programs or no tests.

    >>> found = suite_quality(np.array([[1, 0, 0], [1, 0, 1], [0, 0, 0]], bool))
    >>> round(found.detection, 4), found.accurate, found.patterns, round(found.diversity, 4)
    (0.6667, False, 2, 0.6667)

    Source: SAGA / TCGBench (arXiv 2507.06920).
    """
    table = _table(kills)[:, :first]
    if not table.shape[1]:
        raise ValueError(f"a suite has at least one test, first={first} leaves none")
    caught = table.any(1)
    killing = table[:, table.any(0)]
    patterns = len(np.unique(killing, axis=1).T) if killing.shape[1] else 0
    return SuiteQuality(
        float(caught.mean()),
        bool(caught.all()),
        patterns,
        patterns / table.shape[1],
        _correlation(table),
        float(table.mean()),
    )


def benchmark_quality(problems: Sequence[Kills | PassMatrix], *, first: int | None = None) -> dict[str, float]:
    """The means over problems of what `suite_quality` says of each.

    Returns:
        'detection', 'accuracy', 'patterns' and 'diversity'.

    Raises:
        ValueError: if there are no problems, or one has no programs or tests.

    >>> benchmark_quality([np.array([[True]]), np.array([[True], [False]])])["accuracy"]
    0.5

    Source: SAGA / TCGBench (arXiv 2507.06920); that problems count equally is our reading.
    """
    if not problems:
        raise ValueError("the quality of no problems")
    found = [suite_quality(kills, first=first) for kills in problems]
    return {
        "detection": float(np.mean([each.detection for each in found])),
        "accuracy": float(np.mean([each.accurate for each in found])),
        "patterns": float(np.mean([each.patterns for each in found])),
        "diversity": float(np.mean([each.diversity for each in found])),
    }


def quality_curve(
    kills: Kills | PassMatrix,
) -> tuple[Float[np.ndarray[Any, Any], "n"], Float[np.ndarray[Any, Any], "n"]]:
    """DR@k and VAcc@k for k = 1 … n.

    >>> detection, accuracy = quality_curve(np.array([[1, 0], [0, 1]], bool))
    >>> detection.tolist(), accuracy.tolist()
    ([0.5, 1.0], [0.0, 1.0])

    Source: SAGA / TCGBench (arXiv 2507.06920).
    """
    caught = np.logical_or.accumulate(_table(kills), axis=1)
    return np.asarray(caught.mean(0)), np.asarray(caught.all(0), np.float64)


def curve_area(
    sizes: Float[np.ndarray[Any, Any], "m"] | Sequence[float],
    values: Float[np.ndarray[Any, Any], "m"] | Sequence[float],
) -> float:
    """AUC@N, the mean height of a curve over suite sizes:

        1/(N − k₁) Σᵢ (vᵢ + vᵢ₊₁)/2 · (kᵢ₊₁ − kᵢ)

    Args:
        sizes: k, growing; the last is N.
        values: v at each.

    Returns:
        In the unit of the values; of one point, its value.

    Raises:
        ValueError: if there is no point, the shapes differ, or sizes do not grow.

    >>> round(curve_area([10, 20, 40], [0.2, 0.4, 0.4]), 4)
    0.3667

    Source: SAGA / TCGBench (arXiv 2507.06920).
    """
    at, height = np.asarray(sizes, np.float64), np.asarray(values, np.float64)
    if at.ndim != 1 or at.shape != height.shape or not len(at):
        raise ValueError(f"sizes {at.shape} and values {height.shape} need one shape (m,), with m ≥ 1")
    if not (np.isfinite(at).all() and (np.diff(at) > 0).all()):
        raise ValueError(f"sizes must grow, got {at.tolist()}")
    return float(height[0]) if len(at) == 1 else float(np.trapezoid(height, at) / (at[-1] - at[0]))


def effective_tests(tests: float, correlation: float) -> float:
    """How many independent tests correlated ones are worth: n / (1 + (n − 1) ρ); at most 1/ρ.

    Args:
        tests: n ≥ 1; may be infinite.
        correlation: ρ in [0, 1].

    Raises:
        ValueError: if one is outside.

    >>> round(effective_tests(100, 0.05), 1), effective_tests(math.inf, 0.05)
    (16.8, 20.0)

    Source: SAGA / TCGBench (arXiv 2507.06920), the design effect of Kish 1965.
    """
    if not tests >= 1 or not 0 <= correlation <= 1:
        raise ValueError(f"tests ≥ 1 and a correlation in [0, 1], got {tests} and {correlation}")
    if math.isinf(tests):
        return math.inf if correlation == 0 else 1 / correlation
    return tests / (1 + (tests - 1) * correlation)


def detection_estimate(power: float, tests: float, correlation: float) -> float:
    """About what a suite detects: 1 − (1 − p)^n_eff. Random tests of one kind saturate below 1.

    Exact for n_eff independent tests and copies of them. The source calls it a bound, which it is not: tests that each
    kill with a probability that differs by program (beta-binomial, p = 0.1, ρ = 0.05) detect 0.95 with 60 of them,
    where this says 0.80.

    Args:
        power: p in [0, 1], the mean probability that a test kills a wrong program.
        tests: see `effective_tests`; infinite for the limit.
        correlation: see `effective_tests`.

    Raises:
        ValueError: if one is outside.

    >>> round(detection_estimate(0.1, 100, 0.05), 3), round(detection_estimate(0.1, math.inf, 0.05), 3)
    (0.83, 0.878)

    Source: SAGA / TCGBench (arXiv 2507.06920).
    """
    if not 0 <= power <= 1:
        raise ValueError(f"power is a probability, got {power}")
    return float(1 - (1 - power) ** effective_tests(tests, correlation))


def killing_tests(kills: Kills | PassMatrix, *, most: int | None = None) -> Int[np.ndarray[Any, Any], "m"]:
    """The tests to keep: one by one, that which kills most of the wrong programs still alive.

    Of equal ones that which kills more in all, then the first. It ends where no test kills another program, so what
    is kept detects what the whole does, with at most ln s + 1 times the fewest tests that can.

    Args:
        kills: see `suite_quality`.
        most: no more than so many.

    Returns:
        Columns of the matrix, in the order in which they were chosen.

    Raises:
        ValueError: if there are no programs or no tests, or most is negative.

    >>> killing_tests(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], bool)).tolist()
    [0, 2]

    Source: ours; greedy set cover (Chvátal 1979) on the kill matrix of SAGA.
    """
    table = _table(kills)
    if most is not None and most < 0:
        raise ValueError(f"most must not be negative, got {most}")
    alive, chosen = np.ones(len(table), bool), list[int]()
    in_all = table.sum(0)
    while most is None or len(chosen) < most:
        gain = table[alive].sum(0)
        best = int(np.lexsort((-in_all, -gain))[0])
        if not gain[best]:
            break
        chosen.append(best)
        alive &= ~table[:, best]
    return np.array(chosen, np.int64)


class Turnaround(NamedTuple):
    """Two submissions of one user in turn: the last that was wrong, and the first that was right.

    Args:
        user: whose they are.
        wrong: which submission, by its place.
        right: which.
    """

    user: Any
    wrong: int
    right: int


def turnarounds(users: Sequence[Any], right: Sequence[bool]) -> list[Turnaround]:
    """Of each user who failed and then did not, the two submissions on both sides of it.

    What tells such a pair apart is a mistake that somebody made: inputs that separate the two kill programs that random
    ones let live.

    Args:
        users: who submitted, in the order of time.
        right: whether it was accepted.

    Returns:
        In the order of the right ones.

    Raises:
        ValueError: if the lengths differ.

    >>> turnarounds(["a", "b", "a", "a", "b"], [False, True, False, True, True])
    [Turnaround(user='a', wrong=2, right=3)]

    Source: the differential analysis of SAGA (arXiv 2507.06920).
    """
    if len(users) != len(right):
        raise ValueError(f"{len(users)} users and {len(right)} verdicts")
    failed: dict[Any, int] = {}
    solved: set[Any] = set()
    found = []
    for place, (user, accepted) in enumerate(zip(users, right, strict=True)):
        if user in solved:
            continue
        if not accepted:
            failed[user] = place
            continue
        solved.add(user)
        if user in failed:
            found.append(Turnaround(user, failed[user], place))
    return found


def _table(kills: Any) -> Kills:
    table = kills.killed if isinstance(kills, PassMatrix) else np.asarray(kills, bool)
    if table.ndim != 2 or not table.shape[0] or not table.shape[1]:
        raise ValueError(f"a kill matrix is of wrong programs × tests, at least one of each, got shape {table.shape}")
    return np.asarray(table)


def _correlation(table: Kills) -> float | None:
    """The mean over pairs of tests that kill some and not all: of z-scored columns, (|Σ z|²/s − m) / m(m − 1)."""
    told = table[:, table.any(0) & ~table.all(0)].astype(np.float64)
    tests = told.shape[1]
    if tests < 2:
        return None
    z = (told - told.mean(0)) / told.std(0)
    return float(((z.sum(1) ** 2).mean() - tests) / (tests * (tests - 1)))
