"""What is said of scores when all are there, gathered as they come and in little memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

MOST_REASONS = 4096  # different ones that are counted one by one; they may quote replies, each of which is its own
KEPT_REASONS = 1024
OTHER_REASONS = "other reasons"
MOST_VALUES = 1 << 16
MANTISSA_BITS = 13

Numbers = Float[np.ndarray[Any, Any], "m"]


class Spread:
    """How some numbers are spread. The mean is exact, and so are the quantiles while few numbers differ.

    Once more than 65,536 do, quantiles are right to one part in 8,000.

    >>> spread = Spread()
    >>> spread.add(np.array([1.0, 0.0, 1.0, 0.5]))
    >>> spread.mean, spread.quantiles([0.0, 0.5, 1.0])
    (0.625, [0.0, 0.75, 1.0])
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0.0
        self._values, self._counts = np.zeros(0), np.zeros(0, np.int64)
        self._new: list[Numbers] = []
        self._waiting = 0

    def add(self, numbers: Numbers) -> None:
        """Take in some more."""
        self.count += len(numbers)
        self._sum += float(numbers.sum())
        self._new.append(numbers)
        self._waiting += len(numbers)
        if self._waiting > max(MOST_VALUES, len(self._values)):
            self._merge()

    @property
    def mean(self) -> float | None:
        """None of nothing."""
        return self._sum / self.count if self.count else None

    def counts(self) -> list[tuple[float, int]]:
        """The different numbers, ascending, and how often each came."""
        self._merge()
        return list(zip(self._values.tolist(), self._counts.tolist(), strict=True))

    def quantiles(self, shares: Sequence[float]) -> list[float] | None:
        """The numbers below which these shares lie, linear between two of them; None of nothing."""
        self._merge()
        if not self.count:
            return None
        place = np.asarray(shares) * (self.count - 1)
        below, beyond = np.floor(place), np.ceil(place)
        reach = np.cumsum(self._counts)
        low, high = (self._values[np.searchsorted(reach, at, side="right")] for at in (below, beyond))
        return [float(x) for x in low + (high - low) * (place - below)]

    def _merge(self) -> None:
        if not self._waiting:
            return
        ones = np.ones(self._waiting, np.int64)
        self._collect(np.concatenate([self._values, *self._new]), np.concatenate([self._counts, ones]))
        self._new, self._waiting = [], 0
        if len(self._values) > MOST_VALUES:
            mantissa, exponent = np.frexp(self._values)
            self._collect(np.ldexp(np.round(np.ldexp(mantissa, MANTISSA_BITS)), exponent - MANTISSA_BITS), self._counts)

    def _collect(self, values: Numbers, counts: np.ndarray[Any, Any]) -> None:
        self._values, place = np.unique(values, return_inverse=True)
        self._counts = np.bincount(place, counts, len(self._values)).astype(np.int64)


class Tally:
    """The scores of many rows: how they and those of each part are spread, how many rows abstain, and why.

    Reasons are counted one by one while no more than 4,096 differ; then all but the 1,024 most frequent
    become 'other reasons', and counting goes on.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.abstained = 0
        self.score = Spread()
        self.parts: dict[str, Spread] = {}
        self._reasons: Counter[str] = Counter()
        self._others = 0

    def add(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Take in some rows, as `Scores.to_columns` gives them."""
        self.rows += len(columns["score"])
        self.score.add(numbers(columns["score"]))
        for name, column in columns.items():
            if name.startswith("part."):
                self.parts.setdefault(name.removeprefix("part."), Spread()).add(numbers(column))
        silent = [
            reason or "not asked for"
            for valid, reason in zip(columns["valid"], columns["reason"], strict=True)
            if not valid
        ]
        self.abstained += len(silent)
        self._reasons.update(silent)
        if len(self._reasons) > MOST_REASONS:
            kept = Counter(dict(self._reasons.most_common(KEPT_REASONS)))
            self._others += self._reasons.total() - kept.total()
            self._reasons = kept

    def reasons(self) -> list[tuple[str, int]]:
        """Why rows have no score, and how often, most frequent first; what is not told apart comes last."""
        return self._reasons.most_common() + ([(OTHER_REASONS, self._others)] if self._others else [])


def numbers(column: Iterable[Any]) -> Numbers:
    """The scores of a column that are there; those of all steps where there is one score per step."""
    entries = (x for entry in column for x in (entry if isinstance(entry, list) else [entry]))
    return np.array([x for x in entries if x is not None], np.float64)
