"""The batch lane: leaves that score all their rows at once, in this process."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from jaxtyping import Int

from guerdon.core.arrays import is_tensor, like
from guerdon.core.scores import Scores
from guerdon.core.spans import Spans
from guerdon.engine.lane import Task
from guerdon.engine.outcome import abstentions, explain, judge_scores, late


class BatchLane:
    """Measures leaves whole: on the calling thread, or in a thread under the deadline the leaf states."""

    def __init__(self) -> None:
        self._abandoned: list[threading.Thread] = []

    def start(self, task: Task) -> Inline | Timed:
        """Begin, if the leaf has a thread of its own."""
        return Inline(task) if task.leaf.deadline is None else Timed(task, self._abandoned)

    def close(self) -> None:
        """Nothing to give back: a thread cannot be ended from outside, and those left behind are daemons."""


class Inline:
    """A task that runs on the thread that asks for its scores."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.cost = 0.0  # see `_measured`

    def scores(self) -> Scores:
        """Measure now."""
        scores, self.cost = _measured(self._task, Exception, SystemExit)  # Ctrl-C on this thread is the user's
        return scores

    def cancel(self) -> None:
        """Nothing runs before it is asked for."""


class Timed:
    """A task in a thread, which is left behind once it is late."""

    def __init__(self, task: Task, abandoned: list[threading.Thread]) -> None:
        self._task, self._abandoned = task, abandoned
        self._result: Scores | None = None
        self._seconds = self.cost = 0.0
        self._ambient = _ambient()
        self._thread = threading.Thread(target=self._run, name=f"guerdon-batch-{task.leaf.name}", daemon=True)
        self._began = time.monotonic()
        self._thread.start()

    def scores(self) -> Scores:
        """Wait until the deadline; past it all rows abstain."""
        deadline = self._task.seconds
        self._thread.join(min(max(0.0, self._began + deadline - time.monotonic()), threading.TIMEOUT_MAX))
        if self._result is not None and self._seconds <= deadline:
            return self._result
        reason = late(deadline)
        if self._thread.is_alive():
            self._abandoned[:] = [thread for thread in self._abandoned if thread.is_alive()] + [self._thread]
            reason += f": its thread {self._thread.name!r} still runs, {len(self._abandoned)} left behind so far"
        level, rows = self._task.leaf.level, self._task.rows
        return spread(abstentions(level, len(rows), reason), rows, len(self._task.rollouts))

    def cancel(self) -> None:
        """Leave the thread behind."""

    def _run(self) -> None:
        with self._ambient():
            result, self.cost = _measured(self._task, BaseException)
        self._seconds, self._result = time.monotonic() - self._began, result


def spread(scores: Scores, rows: Int[np.ndarray[Any, Any], "m"], n: int) -> Scores:
    """The scores of some rows as scores of a batch of `n`, whose other rows are masked; keeps gradients."""
    if len(rows) == n:
        return scores

    def wide(array: Any) -> Any:
        shape = (n, *array.shape[1:])
        empty = array.new_zeros(shape) if is_tensor(array) else np.zeros(shape, array.dtype)
        empty[like(rows, array)] = array
        return empty

    def column(entries: Sequence[Any]) -> list[Any]:
        at = dict(zip(rows.tolist(), entries, strict=True))
        return [at.get(row) for row in range(n)]

    spans = scores.spans
    return Scores(
        wide(scores.read(fill=0.0)),
        mask=wide(scores.mask),
        valid=wide(scores.valid),
        spans=None if spans is None else Spans(wide(spans.begin), wide(spans.end), wide(spans.mask), spans.unit),
        reasons={int(rows[row]): reason for row, reason in scores.reasons.items()},
        details={name: column(entries) for name, entries in scores.details.items()},
        parts={name: spread(part, rows, n) for name, part in scores.parts.items()},
    )


def _measured(task: Task, *failures: type[BaseException]) -> tuple[Scores, float]:
    """The scores of a task, and the seconds that a row took in the mean; 0 if it failed."""
    leaf, rows, n = task.leaf, task.rows, len(task.rollouts)
    began, cost = time.monotonic(), 0.0
    try:
        rollouts = task.rollouts if len(rows) == n else task.rollouts.select(rows)
        scores = judge_scores(leaf.measure(rollouts, task.context.with_(rollouts=rollouts)), leaf, len(rows))
        cost = (time.monotonic() - began) / len(rows)
    except failures as error:
        scores = abstentions(leaf.level, len(rows), explain(error))
    return spread(scores, rows, n), cost


def _ambient() -> Callable[[], AbstractContextManager[Any]]:
    """What torch keeps per thread, the gradient mode and the current device, carried from this thread to another."""
    torch = sys.modules.get("torch")
    if torch is None:
        return contextlib.nullcontext
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    @contextlib.contextmanager
    def carried() -> Any:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            if device is not None:
                torch.cuda.set_device(device)
            yield

    return carried
