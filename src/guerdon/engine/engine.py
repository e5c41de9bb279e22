"""The engine: measures the leaves of a reward, all lanes at once, and hands their scores to the arithmetic."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Bool

from guerdon.core.context import Context
from guerdon.core.errors import GuerdonError, MissingInput
from guerdon.core.protocols import Lane as LaneName
from guerdon.core.protocols import Leaf, Reward
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.engine.aio import AsyncLane
from guerdon.engine.batch import BatchLane, Inline
from guerdon.engine.lane import CLOSED, Lane, Running, Task
from guerdon.engine.process import ProcessLane

DEADLINE = 10.0


class Engine:
    """Runs the leaves of rewards, each unit under its own deadline; no failure becomes a number.

    Whatever a leaf does, each row it is asked for ends as a score in its range or as an abstention
    with a reason, and scoring ends. Worker processes and the event loop start when a leaf first needs
    them, are shared by all calls from all threads, and end with `close`, with the `with` block, or with
    the process. In a fork of the process the engine starts afresh.

    Args:
        workers: processes for the process lane. Default: the cores this process may use, divided by
            `LOCAL_WORLD_SIZE`, the number of training processes on this machine.
        deadline: seconds per unit where a leaf states none, from when the unit's work starts: neither
            waiting for its turn nor starting a worker counts. Batch leaves run without one.
        concurrency: units of the async lane that are awaited at a time.

    Raises:
        ValueError: if an argument is not positive.

    >>> with Engine(workers=2, deadline=5.0) as engine:
    ...     engine
    Engine(workers=2, deadline=5.0, concurrency=64)
    """

    def __init__(self, *, workers: int | None = None, deadline: float = DEADLINE, concurrency: int = 64) -> None:
        self.workers = _cores() if workers is None else workers
        self.deadline = deadline
        self.concurrency = concurrency
        for name in ("workers", "deadline", "concurrency"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        self._open()

    def __repr__(self) -> str:
        return f"Engine(workers={self.workers}, deadline={self.deadline}, concurrency={self.concurrency})"

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether it can measure no more."""
        return not self._finalizer.alive

    def close(self) -> None:
        """End the workers and the event loop; what is being scored in other threads abstains."""
        self._finalizer()

    def score(self, reward: Reward, rollouts: Rollouts, context: Context | None = None) -> Scores:
        """Score rollouts: measure each distinct leaf once, on the rows it is asked for, then combine.

        Args:
            reward: the expression.
            rollouts: the batch.
            context: progress, models and the like; its rollouts are replaced by `rollouts`.

        Raises:
            MissingInput: before any work, if the reward reads what the batch or the context does not have.
            GuerdonError: if a leaf of the process lane cannot be pickled, or the engine is closed.
        """
        context = (context or Context()).with_(rollouts=rollouts)
        require(reward, rollouts, context)
        return reward.combine(self.measure(reward.demand(rollouts), rollouts, context), context)

    def measure(
        self, demand: Mapping[Leaf, Bool[np.ndarray[Any, Any], "n"]], rollouts: Rollouts, context: Context | None = None
    ) -> dict[Leaf, Scores]:
        """The scores of leaves, all measured at the same time.

        Args:
            demand: for each leaf, which rows it is asked for; the others it never sees, and in its
                scores they are masked.
            rollouts: the batch.
            context: as in `score`.

        Raises:
            ValueError: if a demand does not have one entry per rollout.
            GuerdonError: as in `score`.
        """
        context = (context or Context()).with_(rollouts=rollouts)
        running: dict[Leaf, Running] = {}
        try:
            for leaf, asked in demand.items():
                if len(asked) != len(rollouts):
                    raise ValueError(f"{leaf.name} is asked for {len(asked)} rows of a batch of {len(rollouts)}")
                rows = np.flatnonzero(np.asarray(asked, bool))
                if len(rows):
                    lane = self._lane(leaf)
                    running[leaf] = lane.start(Task(leaf, rollouts, rows, context, self.deadline))
            # What runs on this thread goes first: the rest is on its way meanwhile.
            order = sorted(running, key=lambda leaf: not isinstance(running[leaf], Inline))
            measured = {leaf: running[leaf].scores() for leaf in order}
        except BaseException:
            for work in running.values():
                work.cancel()
            raise
        return {leaf: measured[leaf] if leaf in measured else _unasked(leaf, len(rollouts)) for leaf in demand}

    def _lane(self, leaf: Leaf) -> Lane:
        if self._process != os.getpid():
            self._open()
        if self.closed:
            raise GuerdonError(CLOSED)
        return self._lanes["batch" if leaf.differentiable else leaf.lane]

    def _open(self) -> None:
        self._process = os.getpid()
        self._lanes: dict[LaneName, Lane] = {
            "process": ProcessLane(self.workers),
            "async": AsyncLane(self.concurrency),
            "batch": BatchLane(),
        }
        self._finalizer = weakref.finalize(self, _close, list(self._lanes.values()), self._process)


def score(
    reward: Reward,
    rollouts: Rollouts,
    context: Context | None = None,
    *,
    workers: int | None = None,
    deadline: float = DEADLINE,
) -> Scores:
    """Score rollouts in one call: `Engine.score`, with this process's shared engine unless told otherwise.

    Args:
        reward: the expression.
        rollouts: the batch.
        context: progress, models and the like.
        workers: worker processes, of an engine for this call alone.
        deadline: seconds per unit, of an engine for this call alone where it is not the default.
    """
    if workers is None and deadline == DEADLINE:
        return default().score(reward, rollouts, context)
    with Engine(workers=workers, deadline=deadline) as engine:
        return engine.score(reward, rollouts, context)


_shared: dict[int, Engine] = {}


def default() -> Engine:
    """This process's shared engine, made when it is first asked for. A fork of the process gets its own."""
    process = os.getpid()
    if process not in _shared or _shared[process].closed:
        _shared[process] = Engine()  # two threads may both make one; one that is not kept has started nothing
    return _shared[process]


def require(reward: Reward, rollouts: Rollouts, context: Context) -> None:
    """Check that a reward finds all that it reads.

    Raises:
        MissingInput: with a line for each thing that is missing: who reads it, and what there is instead.
    """
    missing = []
    for name in sorted(reward.requires):
        kind, _, model = name.partition(":")
        there = model in context.models if kind == "model" else rollouts.has(name)
        if not there:
            readers = [leaf.name for leaf in reward.leaves() if name in leaf.requires] or [f"a part of {reward.name}"]
            missing.append(_missing(name, readers, rollouts, context))
    if missing:
        raise MissingInput("\n".join(missing))


def _missing(name: str, readers: Sequence[str], rollouts: Rollouts, context: Context) -> str:
    who = f"{' and '.join(readers)} read{'s' if len(readers) == 1 else ''} it"
    kind, _, model = name.partition(":")
    if kind == "model":
        return f"model {model!r} is missing: {who}; the context has: {', '.join(context.models) or 'no models'}"
    if name in ("tokens", "tree"):
        return f"{name!r} is missing: {who}; pass Rollouts(..., {name}=...)"
    has = ", ".join(["prompt", "completion", *rollouts.columns])
    return f"column {name!r} is missing: {who}; the batch has: {has}"


def _unasked(leaf: Leaf, n: int) -> Scores:
    shape = (n,) if leaf.level == "rollout" else (n, 0)
    return Scores(np.zeros(shape), mask=np.zeros(shape, bool))


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _close(lanes: Sequence[Lane], process: int) -> None:
    if os.getpid() == process:  # a fork does not own its parent's workers
        for lane in lanes:
            lane.close()
