"""One leaf's units on their way through the process lane."""

from __future__ import annotations

import hashlib
import pickle
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import cloudpickle
import numpy as np

from guerdon.core.errors import GuerdonError
from guerdon.core.scores import Scores
from guerdon.engine.lane import Task
from guerdon.engine.outcome import Outcome, abstain, explain
from guerdon.engine.units import Sheet, Units
from guerdon.engine.wire import Report

CHUNK_SECONDS = 0.05  # how much work a worker is sent at a time
CHUNK_BYTES = 8 << 20
GROWTH = 4.0  # how much larger than the last chunk the next may be
TRIES = 3  # deaths in a row, with nothing done in between, after which there is no point in trying again


class Job:
    """The units of one task, each of which is in the queue, at a worker, or written on the sheet.

    Args:
        task: the work.
        cancel: called when nobody wants the scores any more.

    Raises:
        GuerdonError: if the leaf cannot be pickled.
    """

    def __init__(self, task: Task, cancel: Callable[[Job], None]) -> None:
        self.leaf = _pickled(task)
        self.key = hashlib.sha256(self.leaf).digest()
        self.deadline = task.seconds
        self._cancel = cancel
        self._finished: Future[None] = Future()
        self._units = Units.of(task)
        self._sheet = Sheet(len(task.rollouts), task.rows)
        self._queue = deque([(0, len(self._units))])
        self._at_workers = 0
        self._chunk = 1.0  # units per chunk, from what the last one took
        self._bytes = 0.0  # per unit
        self._deaths = 0
        self._reported, self._seconds = 0, 0.0

    def scores(self) -> Scores:
        """Wait for the last unit."""
        self._finished.result()
        return self._sheet.scores()

    def cancel(self) -> None:
        """Drop what is queued, and kill the workers at the rest."""
        self._cancel(self)

    @property
    def cost(self) -> float:
        """Mean seconds per unit, of those that came to their end."""
        return self._seconds / max(1, self._reported)

    @property
    def queued(self) -> int:
        """How many units wait for a worker."""
        return sum(last - first for first, last in self._queue)

    @property
    def done(self) -> bool:
        """Whether every unit has its outcome."""
        return self._finished.done()

    def take(self, workers: int) -> tuple[int, int, bytes] | None:
        """Units for one worker, from, up to, and their columns, pickled; None if all were refused.

        As many as take about `CHUNK_SECONDS`, and few enough to go round twice.
        """
        while self._queue:
            size = min(self._chunk, CHUNK_BYTES / max(1.0, self._bytes), self.queued / (2 * workers))
            first, end = self._queue.popleft()
            last = min(end, first + max(1, int(size)))
            self._put(last, end)
            try:
                columns = cloudpickle.dumps(self._units.slices(first, last), protocol=pickle.HIGHEST_PROTOCOL)
            except Exception as error:
                self._refuse(first, last, f"columns cannot be sent to a worker: {explain(error)}")
                continue
            self._bytes = len(columns) / (last - first)
            self._at_workers += 1
            return first, last, columns
        self._settle()
        return None

    def sizes(self, first: int, last: int) -> list[int] | None:
        """How many rows some units have; None if units are rows."""
        return [self._units.size(unit) for unit in range(first, last)] if self._units.grouped else None

    def write(self, first: int, report: Report) -> None:
        """Write what a worker reports of the units from `first` on."""
        rows = self._units.rows_of(first, first + report.units)
        values, reasons, details = np.frombuffer(report.values), dict(report.reasons), {}
        for place, evidence in report.details.items():
            try:
                details[place] = pickle.loads(evidence)
            except Exception as error:
                reasons[place] = f"details cannot be read from the worker: {explain(error)}"
        self._sheet.write(rows, values, reasons, details)
        self._reported, self._seconds = self._reported + report.units, self._seconds + report.seconds

    def fail(self, unit: int, reason: str) -> None:
        """Let one unit abstain."""
        outcomes: list[Outcome] = abstain(reason, self._units.size(unit))
        self._sheet.write_outcomes(self._units.rows_of(unit, unit + 1), outcomes)

    def measured(self, units: int, seconds: float) -> None:
        """Note how long some units took, to choose the size of the next chunk."""
        self._chunk = max(1.0, min(units * CHUNK_SECONDS / max(seconds, 1e-9), GROWTH * self._chunk))

    def back(self, *ranges: tuple[int, int], refused: str | None = None) -> None:
        """A worker is done with its chunk, but for these units, which it did not reach or, for a reason, refused."""
        self._at_workers -= 1
        for first, last in reversed(ranges):
            if refused is None:
                self._put(first, last)
            else:
                self._refuse(first, last, refused)
        self._settle()

    def survives(self, *, progress: bool) -> bool:
        """Note that a worker died; False if so many did without progress that the job is to be given up."""
        self._deaths = 0 if progress else self._deaths + 1
        return self._deaths < TRIES

    def abandon(self, reason: str | BaseException) -> None:
        """Let all units without an outcome abstain, or raise an error to who waits for the scores."""
        self._queue.clear()
        if self.done:
            return
        if isinstance(reason, BaseException):
            self._finished.set_exception(reason)
        else:
            self._sheet.close(reason)
            self._finished.set_result(None)

    def _put(self, first: int, last: int) -> None:
        if first < last:
            self._queue.appendleft((first, last))

    def _refuse(self, first: int, last: int, reason: str) -> None:
        """Units that cannot travel together: the halves are tried by themselves, so that only the bad one abstains."""
        if last - first == 1:
            self.fail(first, reason)
        elif first < last:
            middle = (first + last) // 2
            self._put(middle, last)
            self._put(first, middle)

    def _settle(self) -> None:
        if not self._queue and not self._at_workers and not self.done:
            self._finished.set_result(None)


def _pickled(task: Task) -> bytes:
    try:
        return bytes(cloudpickle.dumps(task.leaf, protocol=pickle.HIGHEST_PROTOCOL))
    except Exception as error:
        raise GuerdonError(
            f"{task.leaf.name} cannot be sent to a worker process: {explain(error)}. "
            "Open files, locks and clients inside the function, or use lane='batch' to run it in this process"
        ) from error
