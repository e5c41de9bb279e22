"""Units that were measured before, recalled from the score cache; the others measured, and kept there."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from guerdon.core.scores import Scores
from guerdon.engine.cache import Cache, packed
from guerdon.engine.canonical import canonical
from guerdon.engine.lane import Running, Task
from guerdon.engine.units import Sheet, Units, calls

KEY_BYTES = 20


class Measuring(Running, Protocol):
    """Work that knows what it costs."""

    @property
    def cost(self) -> float:
        """Mean seconds per unit, once the scores are there."""


class UnitLane(Protocol):
    """A lane that measures unit by unit."""

    def start(self, task: Task) -> Measuring:
        """As `Lane.start`."""

    def close(self) -> None:
        """As `Lane.close`."""


class CachedLane:
    """A lane that is asked only for what the cache does not have."""

    def __init__(self, lane: UnitLane, cache: Cache) -> None:
        self._lane, self._cache = lane, cache

    def start(self, task: Task) -> Running:
        """Look up the task's units and begin the others."""
        identity = task.leaf.identity()
        return self._lane.start(task) if identity is None else Recalled(task, identity, self._lane, self._cache)

    def close(self) -> None:
        """Close the lane and the cache."""
        self._lane.close()
        self._cache.close()


class Recalled:
    """A task of which some units are known and the others are measured, and then kept."""

    def __init__(self, task: Task, identity: str, lane: UnitLane, cache: Cache) -> None:
        leaf = task.leaf
        self._task, self._cache = task, cache
        self._units = Units.of(task)
        self._leaf = sha256(repr((identity, leaf.reads, leaf.unit, leaf.range)).encode()).digest()
        self._known: Scores | None = None
        self._missed: Sequence[int] = range(len(self._units))
        # Before the work begins: a coroutine may change the columns it is given.
        self._keys = self._digests() if cache.pays(self._leaf) else [None] * len(self._units)
        self._recall()
        rows = np.sort(self._rows(self._missed))
        self._work = lane.start(replace(task, rows=rows)) if len(rows) else None

    def scores(self) -> Scores:
        """Wait for what is measured, keep it, and join it with what is known."""
        known, units = self._known, len(self._missed)
        if self._work is None:
            assert known is not None
            return known
        measured = self._work.scores()
        if self._work.cost > 0:
            self._cache.learn(self._leaf, self._task.leaf.name, units, units * self._work.cost)
            if self._cache.pays(self._leaf):
                self._keep(measured)
        return measured if known is None else known.union(measured)

    def cancel(self) -> None:
        """Stop measuring."""
        if self._work is not None:
            self._work.cancel()

    def _recall(self) -> None:
        keys = [key for key in self._keys if key is not None]
        kept = self._cache.get(keys) if keys else {}
        hits = {unit: kept[key] for unit, key in enumerate(self._keys) if key is not None and key in kept}
        if not hits:
            return
        rows = self._rows(hits)
        sheet = Sheet(len(self._task.rollouts), rows)
        kept_outcomes = json.loads(f"[{','.join(hits.values())}]")  # one call for all: it costs more than its work
        outcomes = [(value, None, evidence) for unit in kept_outcomes for value, evidence in unit]
        sheet.write_outcomes(rows, outcomes)
        self._known = sheet.scores()
        self._missed = [unit for unit in self._missed if unit not in hits]

    def _keep(self, measured: Scores) -> None:
        values, valid, details = measured.read(fill=0.0).tolist(), measured.valid.tolist(), measured.details
        outcomes = {}
        for unit in self._missed:
            key, rows = self._keys[unit], self._units.rows_of(unit, unit + 1).tolist()
            if key is not None and all(valid[row] for row in rows):
                evidence = ({name: c[row] for name, c in details.items() if c[row] is not None} for row in rows)
                text = packed([[values[row], found or None] for row, found in zip(rows, evidence, strict=True)])
                if text is not None:
                    outcomes[key] = text
        if outcomes:
            self._cache.put(self._leaf, self._task.leaf.name, outcomes)

    def _rows(self, units: Collection[int]) -> Int[np.ndarray[Any, Any], "m"]:
        if len(units) == len(self._units):
            return self._units.rows
        return np.array([row for unit in units for row in self._units.rows_of(unit, unit + 1)], np.int64)

    def _digests(self) -> list[bytes | None]:
        """The key of each unit; None where its columns have no canonical form."""
        keys: list[bytes | None] = []
        begun = sha256(self._leaf)
        for arguments in calls(self._units.reads, self._units.slices(0, len(self._units)), len(self._units)):
            try:
                content = canonical(arguments)
            except (TypeError, RecursionError):
                keys.append(None)
                continue
            key = begun.copy()
            key.update(content)
            keys.append(key.digest()[:KEY_BYTES])
        return keys
