"""Units that were measured before, recalled from the score cache; the others measured, and kept there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import chain
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from guerdon.core.arrays import is_tensor, to_numpy
from guerdon.core.scores import Scores
from guerdon.engine.cache import KEY, Cache, packed
from guerdon.engine.canonical import canonical
from guerdon.engine.lane import Running, Task
from guerdon.engine.units import Sheet, Units, calls

BLOCK = 64  # units that are kept together, too


class Measuring(Running, Protocol):
    """Work that knows what it costs."""

    @property
    def cost(self) -> float:
        """Mean seconds per unit, once the scores are there; 0 if nothing was measured."""


class UnitLane(Protocol):
    """A lane whose work knows what it costs."""

    def start(self, task: Task) -> Measuring:
        """As `Lane.start`."""

    def close(self) -> None:
        """As `Lane.close`."""


class CachedLane:
    """A lane that is asked only for what the cache does not have."""

    def __init__(self, lane: UnitLane, cache: Cache) -> None:
        self._lane, self._cache = lane, cache

    def start(self, task: Task) -> Running:
        """Look up the task's units and begin the others; gradients and scores of steps are not kept."""
        leaf = task.leaf
        kept = not leaf.differentiable and leaf.level == "rollout" and leaf.unit != "batch"
        identity = leaf.identity() if kept else None
        return self._lane.start(task) if identity is None else Recalled(task, identity, self._lane, self._cache)

    def close(self) -> None:
        """Close the lane and the cache."""
        self._lane.close()
        self._cache.close()


class Recalled:
    """A task of which some units are known and the others are measured, and then kept.

    Neighbouring units are kept together, too, so that one look-up finds a block of those that come again beside
    each other. Where it does not, they are looked up one by one.
    """

    def __init__(self, task: Task, identity: str, lane: UnitLane, cache: Cache) -> None:
        leaf = task.leaf
        self._task, self._cache = task, cache
        self._units = Units.of(task)
        self._leaf = sha256(repr((identity, leaf.reads, leaf.unit, leaf.range)).encode()).digest()
        self._begun = sha256(self._leaf)
        self._known: Scores | None = None
        self._texts: dict[int, bytes] = {}  # what is kept of a unit; not of those in blocks that were found
        self._keys: dict[range, bytes] = {}  # of blocks and units that were not found
        self._missed: Sequence[int] = range(len(self._units))
        # Before the work begins: a coroutine may change the columns it is given.
        if cache.pays(self._leaf):
            self._recall()
        rows = np.sort(self._rows(self._missed))
        self._work = lane.start(replace(task, rows=rows)) if len(rows) else None

    def scores(self) -> Scores:
        """Wait for what is measured, keep it, and join it with what is known."""
        known, units = self._known, len(self._missed)
        if self._work is None:
            assert known is not None
            return known
        measured = _plain(self._work.scores())
        if self._work.cost > 0 and not measured.parts:
            self._cache.learn(self._leaf, self._task.leaf.name, units, units * self._work.cost)
            if self._cache.pays(self._leaf):
                self._keep(measured)
        return measured if known is None else known.union(measured)

    def cancel(self) -> None:
        """Stop measuring."""
        if self._work is not None:
            self._work.cancel()

    def _recall(self) -> None:
        units = range(len(self._units))
        entries = list(calls(self._units.reads, self._units.slices(0, len(units)), len(units)))
        blocks = [units[first : first + BLOCK] for first in range(0, len(units), BLOCK)]
        found = self._look_up(blocks, entries)
        rest = [unit for block in blocks if block not in found for unit in block]
        known = self._look_up([units[unit : unit + 1] for unit in rest], entries)
        self._texts = {span.start: text for span, text in known.items()}
        self._missed = [unit for unit in rest if unit not in self._texts]
        found |= known
        if found:
            self._known = self._read(found)

    def _look_up(self, spans: Sequence[range], entries: Sequence[tuple[Any, ...]]) -> dict[range, bytes]:
        """What is kept of some spans of units; the keys of the others are noted."""
        keys = {span: key for span in spans if (key := self._key(entries[span.start : span.stop])) is not None}
        kept = self._cache.get(list(keys.values())) if keys else {}
        self._keys.update((span, key) for span, key in keys.items() if key not in kept)
        return {span: kept[key] for span, key in keys.items() if key in kept}

    def _key(self, entries: Sequence[tuple[Any, ...]]) -> bytes | None:
        """The key of units that stand beside each other; None where a column has no canonical form."""
        key = self._begun.copy()
        key.update(b"%d:" % len(entries))
        try:
            for value in chain.from_iterable(entries):
                key.update(canonical(value))
        except (TypeError, RecursionError):
            return None
        return key.digest()[: KEY.size]

    def _read(self, found: Mapping[range, bytes]) -> Scores:
        rows = np.concatenate([self._units.rows_of(span.start, span.stop) for span in found])
        outcomes = json.loads(b"[%b]" % b",".join(found.values()))  # one call for all: it costs more than its work
        details = {at: evidence for at, evidence in enumerate(outcomes[1::2]) if evidence is not None}
        sheet = Sheet(len(self._task.rollouts), rows)
        sheet.write(rows, np.array(outcomes[::2]), {}, details)
        return sheet.scores()

    def _keep(self, measured: Scores) -> None:
        values, valid, details = measured.read(fill=0.0).tolist(), measured.valid.tolist(), measured.details
        for unit in self._missed:
            rows = self._units.rows_of(unit, unit + 1).tolist()
            if all(valid[row] for row in rows):
                evidence = [{name: c[row] for name, c in details.items() if c[row] is not None} for row in rows]
                text = packed([(values[row], found or None) for row, found in zip(rows, evidence, strict=True)])
                if text is not None:
                    self._texts[unit] = text
        outcomes = {
            key: b",".join([self._texts[unit] for unit in span])
            for span, key in self._keys.items()
            if all(unit in self._texts for unit in span)
        }
        if outcomes:
            self._cache.put(self._leaf, self._task.leaf.name, outcomes)

    def _rows(self, units: Sequence[int]) -> Int[np.ndarray[Any, Any], "m"]:
        if len(units) == len(self._units):
            return self._units.rows
        return np.array([row for unit in units for row in self._units.rows_of(unit, unit + 1)], np.int64)


def _plain(scores: Scores) -> Scores:
    """Scores in the form in which they come from the cache, so that it makes no difference."""
    if not is_tensor(scores.read(0.0)):
        return scores
    values, mask, valid = (to_numpy(array) for array in (scores.read(0.0), scores.mask, scores.valid))
    return Scores(values, mask=mask, valid=valid, reasons=scores.reasons, details=scores.details, parts=scores.parts)
