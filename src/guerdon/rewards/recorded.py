"""What was measured elsewhere and written into a column: a judge's verdict, a detector's count, a model's score."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import shown

__all__ = ["value"]


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
