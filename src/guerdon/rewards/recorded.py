"""What was measured elsewhere and written into a column: a judge's verdict, a detector's count, a model's score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import shown
from guerdon.core.scores import Scores

__all__ = ["steps", "value"]


def _ends(low: float, high: float, **options: object) -> tuple[float, float]:
    if not low < high:
        raise ValueError(f"value wants low below high, got {low} and {high}")
    return low, high


def _columns(column: str, **options: object) -> tuple[str, ...]:
    return (column,)


@reward(range=_ends, columns=_columns)
def value(entry: Any, *, column: str, low: float = 0.0, high: float = 1.0) -> float:
    """The number that a column of the batch holds.

    A missing number is an abstention and never 0, and so is one outside of the range: a judge that was asked for 0 to
    10 and is read as 0 to 1 shows itself.

    Args:
        entry: the column's entry: a number, or a truth value.
        column: its name.
        low: the lowest number there may be.
        high: the highest.

    Raises:
        Abstain: if the entry is no finite number.
        ValueError: at once, unless low < high.

    >>> from guerdon.rewards import recorded
    >>> recorded.value(column="judge", high=10)(["?"] * 3, ["", "", ""], judge=[7, None, 12])
    [7.0, None, None]

    Source: ours; the rewards of a model that is served elsewhere.
    """
    if not isinstance(entry, (Real, np.bool_)) or not math.isfinite(float(entry)):
        raise Abstain(f"not a number: {shown(entry)}")
    return float(entry)


@reward(lane="batch", level="step", range=_ends, columns=_columns)
def steps(entries: Sequence[Any], *, column: str, low: float = 0.0, high: float = 1.0) -> Scores:
    """The numbers that a column of the batch holds, one for each step: what an environment paid, a process reward.

    A list with a number that is missing, not finite or out of the range makes the rollout an abstention, and so does
    an empty one.

    Args:
        entries: for each rollout a list of numbers.
        column: the column's name.
        low: the lowest number there may be.
        high: the highest.

    Raises:
        ValueError: at once, unless low < high.

    >>> from guerdon.rewards import recorded
    >>> from guerdon import Rollouts
    >>> batch = Rollouts(["?"] * 2, [""] * 2, {"rewards": [[1, 0.5], [1]]})
    >>> scores = recorded.steps(column="rewards").score(batch)
    >>> scores.read(0.0).tolist(), scores.mask.tolist()
    ([[1.0, 0.5], [1.0, 0.0]], [[True, True], [True, False]])

    Source: ours; the rewards of an environment, or of a process reward model that is served elsewhere.
    """
    rows: list[list[float]] = []
    reasons: dict[int, str] = {}
    for place, entry in enumerate(entries):
        numbers = [] if entry is None or isinstance(entry, str) else list(np.atleast_1d(entry))
        if not numbers or not all(_within(number, low, high) for number in numbers):
            reasons[place] = f"no list of numbers in [{low:g}, {high:g}]: {shown(entry)}"
            numbers = [low]
        rows.append([float(number) for number in numbers])
    mask = np.arange(max(map(len, rows), default=0)) < np.array([len(row) for row in rows])[:, None]
    values = np.zeros(mask.shape)
    values[mask] = [number for row in rows for number in row]
    failed = np.isin(np.arange(len(rows)), list(reasons))
    return Scores(values, mask=mask, valid=mask & ~failed[:, None], reasons=reasons)


def _within(number: Any, low: float, high: float) -> bool:
    return isinstance(number, (Real, np.bool_)) and low <= float(number) <= high
