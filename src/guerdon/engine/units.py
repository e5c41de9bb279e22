"""A task cut into units, and the sheet on which their outcomes are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.core.arrays import is_tensor, to_numpy
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.engine.lane import Task
from guerdon.engine.outcome import Outcome

CONTEXT = "context"  # what a leaf reads under this name is the same for every unit


@dataclass(frozen=True, eq=False)
class Units:
    """The calls of `evaluate` that a task consists of, in order.

    Args:
        reads: what each call is given, in order.
        columns: the value of each of `reads` for each row, in the order of `rows`; for 'context', the context.
        rows: Int["m"], the asked rows, those of one unit side by side.
        bounds: Int["u+1"], unit `i` is about `rows[bounds[i]:bounds[i+1]]`.
        grouped: a unit is a list of rows, not one row.
    """

    reads: tuple[str, ...]
    columns: tuple[Any, ...]
    rows: Int[np.ndarray[Any, Any], "m"]
    bounds: Int[np.ndarray[Any, Any], "u1"]
    grouped: bool

    @classmethod
    def of(cls, task: Task) -> Units:
        """The units of a task; groups come in the order in which their first rows stand in the batch."""
        leaf, rows = task.leaf, task.rows
        if leaf.unit == "row":
            bounds = np.arange(len(rows) + 1)
        else:
            numbers = _numbered(_column(task.rollouts, leaf.unit, rows))
            rows = rows[np.argsort(numbers, kind="stable")]
            bounds = np.concatenate([[0], np.cumsum(np.bincount(numbers))])
        plain = task.context.with_(rollouts=None, models={})
        columns = tuple(plain if name == CONTEXT else _column(task.rollouts, name, rows) for name in leaf.reads)
        return cls(tuple(leaf.reads), columns, rows, bounds, leaf.unit != "row")

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def size(self, unit: int) -> int:
        """How many rows a unit has."""
        return int(self.bounds[unit + 1] - self.bounds[unit])

    def rows_of(self, first: int, last: int) -> Int[np.ndarray[Any, Any], "m"]:
        """The rows of the units from `first` up to, not including, `last`."""
        return self.rows[self.bounds[first] : self.bounds[last]]

    def slices(self, first: int, last: int) -> list[Any]:
        """The columns of some units: for each, the entries of its units, or their lists."""
        if not self.grouped:
            return [c if name == CONTEXT else c[first:last] for name, c in zip(self.reads, self.columns, strict=True)]
        cuts = [slice(*ends) for ends in zip(self.bounds[first:last], self.bounds[first + 1 : last + 1], strict=True)]
        return [
            c if name == CONTEXT else [c[cut] for cut in cuts] for name, c in zip(self.reads, self.columns, strict=True)
        ]

    def arguments(self, unit: int) -> tuple[Any, ...]:
        """What `evaluate` is called with for one unit."""
        return next(calls(self.reads, self.slices(unit, unit + 1), 1))


def calls(reads: Sequence[str], columns: Sequence[Any], count: int) -> Iterator[tuple[Any, ...]]:
    """The arguments of `count` calls from the columns that `Units.slices` gave."""
    if not reads:
        return repeat((), count)
    series = (repeat(c, count) if name == CONTEXT else c for name, c in zip(reads, columns, strict=True))
    return zip(*series, strict=True)


class Sheet:
    """One line per row of the batch, on which each asked row's outcome is written exactly once."""

    def __init__(self, n: int, rows: Int[np.ndarray[Any, Any], "m"]) -> None:
        self._values = np.full(n, np.nan)
        self._asked = np.zeros(n, bool)
        self._asked[rows] = True
        self._open = self._asked.copy()
        self._reasons: dict[int, str] = {}
        self._details: dict[int, Mapping[str, Any]] = {}

    def write(
        self,
        rows: Int[np.ndarray[Any, Any], "m"],
        values: Float[np.ndarray[Any, Any], "m"],
        reasons: Mapping[int, str],
        details: Mapping[int, Mapping[str, Any]],
    ) -> None:
        """Write the outcomes of some rows; `reasons` and `details` are keyed by the place in `rows`."""
        if not self._open[rows].all():
            raise RuntimeError(f"a row was scored twice, or without being asked for, among {rows[~self._open[rows]]}")
        self._open[rows] = False
        self._values[rows] = values
        numbers = rows.tolist()
        self._reasons.update((numbers[at], reason) for at, reason in reasons.items())
        self._details.update((numbers[at], evidence) for at, evidence in details.items())

    def write_outcomes(self, rows: Int[np.ndarray[Any, Any], "m"], outcomes: Sequence[Outcome]) -> None:
        """Write one outcome for each of some rows."""
        values = np.array([value for value, _, _ in outcomes])
        reasons = {at: reason for at, (_, reason, _) in enumerate(outcomes) if reason is not None}
        details = {at: evidence for at, (_, _, evidence) in enumerate(outcomes) if evidence is not None}
        self.write(rows, values, reasons, details)

    def close(self, reason: str) -> None:
        """Let every row that has no outcome yet abstain."""
        rows = np.flatnonzero(self._open)
        self.write(rows, np.full(len(rows), np.nan), dict.fromkeys(range(len(rows)), reason), {})

    def scores(self) -> Scores:
        """The scores, once every asked row has its outcome."""
        if self._open.any():
            raise RuntimeError(f"rows {np.flatnonzero(self._open)} were asked for and have no outcome")
        valid: Bool[np.ndarray[Any, Any], "n"] = self._asked.copy()
        valid[list(self._reasons)] = False
        names = dict.fromkeys(chain.from_iterable(self._details.values()))
        evidence = [self._details.get(row, {}) for row in range(len(self._values))] if names else []
        return Scores(
            self._values,
            mask=self._asked,
            valid=valid,
            reasons=self._reasons,
            details={str(name): [found.get(name) for found in evidence] for name in names},
        )


def _column(rollouts: Rollouts, name: str, rows: Int[np.ndarray[Any, Any], "m"]) -> list[Any]:
    """The entries of some rows; arrays of numbers become Python's, so that a worker needs no torch to read them."""
    column: Any = rollouts.column(name)
    if is_tensor(column) or isinstance(column, np.ndarray):
        array = to_numpy(column)[rows]
        return array.tolist() if array.ndim == 1 else list(array)
    if len(rows) == len(rollouts) and isinstance(column, list) and (rows[:-1] < rows[1:]).all():
        return column
    return [column[row] for row in rows.tolist()]


def _numbered(values: Sequence[Any]) -> Int[np.ndarray[Any, Any], "m"]:
    """Equal values as equal numbers, counted from 0 in order of appearance; values may be unhashable."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(_key(value), len(numbers)) for value in values], np.int64)


def _key(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return type(value).__name__, repr(value)
    return value
