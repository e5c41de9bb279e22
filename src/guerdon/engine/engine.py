"""The engine: measures the leaves of a reward, all lanes at once, and hands their scores to the arithmetic."""

from __future__ import annotations

import os
import weakref
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool

from guerdon.core.context import Context
from guerdon.core.errors import GuerdonError, MissingInput, nearest
from guerdon.core.protocols import Lane as LaneName, Leaf, Reward
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.engine.aio import AsyncLane
from guerdon.engine.batch import BatchLane
from guerdon.engine.cache import Cache, default_path
from guerdon.engine.cluster import ClusterLane
from guerdon.engine.lane import CLOSED, Lane, Task
from guerdon.engine.measurement import Measurement, in_process
from guerdon.engine.process import ProcessLane
from guerdon.engine.recall import CachedLane, UnitLane
from guerdon.engine.stream import MAX_BATCH, stream

DEADLINE = 10.0

Backend = Literal["local", "ray"]


class Engine:
    """Runs the leaves of rewards, each unit under its own deadline; no failure becomes a number.

    Whatever a leaf does, each row it is asked for ends as a score in its range or as an abstention
    with a reason, and scoring ends. Worker processes and the event loop start when a leaf first needs
    them, are shared by all calls from all threads, and end with `close`, with the `with` block, or with
    the process. In a fork of the process the engine starts afresh; Ray does not work there, and says so.

    Args:
        workers: processes for the process lane. Default: the cores this process may use, divided by
            `LOCAL_WORLD_SIZE`, the number of training processes on this machine. On Ray: the CPUs of the
            cluster, divided by `WORLD_SIZE`, the number of all training processes; each takes one.
        deadline: seconds per unit where a leaf states none, from when the unit's work starts: neither
            waiting for its turn nor starting a worker counts. Batch leaves run without one.
        concurrency: units of the async lane that are awaited at a time.
        backend: where the worker processes are: 'local' on this machine, 'ray' on a Ray cluster, which is the
            one this process is connected to, or else the one at `RAY_ADDRESS`, or else one that is started on
            this machine and ends with the engine. The other lanes stay in this process.
        cache: a file in which to keep the scores of units that cost more than a millisecond, and to look
            them up; True for this user's, `guerdon/scores.sqlite` in `XDG_CACHE_HOME` or `~/.cache`.
            Processes and threads may share it. Kept are numbers and their details, under the leaf's
            `identity`, of leaves that read columns and nothing else, whose rows have one score each: not
            abstentions, which are tried again, not what a lambda, a script or a notebook defines, and
            nothing with gradients. A leaf that draws at random repeats what it drew, and one that reads rows
            many at a time, what it made of a row among those that stood beside it.

    Raises:
        ValueError: if a number is not positive, or there is no such backend.
        MissingExtra: if Ray is needed and not installed.
        GuerdonError: if there is no Ray at `RAY_ADDRESS`.

    >>> with Engine(workers=2, deadline=5.0) as engine:
    ...     engine
    Engine(workers=2, deadline=5.0, concurrency=64)
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        deadline: float = DEADLINE,
        concurrency: int = 64,
        backend: Backend = "local",
        cache: str | Path | bool | None = None,
    ) -> None:
        for name, number in {"workers": workers, "deadline": deadline, "concurrency": concurrency}.items():
            if number is not None and not number > 0:
                raise ValueError(f"{name} must be positive, got {number}")
        if backend not in get_args(Backend):
            raise ValueError(f"no backend {backend!r}: {nearest(backend, get_args(Backend))}")
        self.deadline = deadline
        self.concurrency = concurrency
        self.backend = backend
        self.cache = None if cache is None or cache is False else default_path() if cache is True else Path(cache)
        self._open(workers)

    def __repr__(self) -> str:
        more = "" if self.backend == "local" else f", backend={self.backend!r}"
        more += "" if self.cache is None else f", cache={str(self.cache)!r}"
        return f"Engine(workers={self.workers}, deadline={self.deadline}, concurrency={self.concurrency}{more})"

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
            GuerdonError: if a leaf of the process lane cannot be pickled, or the engine is closed; and what
                `Leaf.check` raises, before any work.
        """
        context = (context or Context()).with_(rollouts=rollouts)
        require(reward, rollouts, context)
        return reward.combine(self.measure(reward.demand(rollouts), rollouts, context), context)

    def stream(
        self,
        reward: Reward,
        batches: Iterable[Rollouts],
        context: Context | None = None,
        *,
        max_batch: int = MAX_BATCH,
    ) -> Generator[Scores, None, None]:
        """Score rows that come batch by batch, such as those of a large file, with little of them in memory.

        Where the batches are cut says nothing: they are one sequence of rows, and their group numbers mean
        the same in all of them. The scores come in the same order, in pieces that take about a second and
        split nothing that must be scored together; while one is read, the workers are at the next. What
        comes before a fault in the batches is scored before the fault is raised.

        Args:
            reward: the expression.
            batches: the rows; asked for as they are needed, on this thread.
            context: as in `score`.
            max_batch: the most rows that may have to be scored together, since all of them are in memory at once.

        Raises:
            GuerdonError: as in `score`; if a reward that compares groups meets one again after others (names
                both rows); or if more than `max_batch` rows must be scored together.
        """
        return stream(self, reward, batches, context, max_batch=max_batch)

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
        return self.begin(demand, rollouts, context).scores()

    def begin(
        self, demand: Mapping[Leaf, Bool[np.ndarray[Any, Any], "n"]], rollouts: Rollouts, context: Context | None = None
    ) -> Measurement:
        """As `measure`, without waiting: more can be begun before the scores are asked for."""
        for leaf in demand:
            leaf.check()
        context = (context or Context()).with_(rollouts=rollouts)
        tasks: dict[Leaf, Task | None] = {}
        for leaf, asked in demand.items():
            if len(asked) != len(rollouts):
                raise ValueError(f"{leaf.name} is asked for {len(asked)} rows of a batch of {len(rollouts)}")
            rows = np.flatnonzero(np.asarray(asked, bool))
            tasks[leaf] = Task(leaf, rollouts, rows, context, self.deadline) if len(rows) else None
        return Measurement(tasks, len(rollouts), self._lane)

    def _lane(self, leaf: Leaf) -> Lane:
        if self._process != os.getpid():
            self._open(self.workers)
        if self.closed:
            raise GuerdonError(CLOSED)
        return self._lanes["batch" if in_process(leaf) else leaf.lane]

    def _open(self, workers: int | None) -> None:
        process, self.workers = _process_lane(self.backend, workers)
        self._process = os.getpid()
        lanes: dict[LaneName, UnitLane] = {
            "process": process, "async": AsyncLane(self.concurrency), "batch": BatchLane()
        }  # fmt: skip
        cache = None if self.cache is None else Cache(self.cache)
        self._lanes: dict[LaneName, Lane] = {
            name: lane if cache is None else CachedLane(lane, cache) for name, lane in lanes.items()
        }
        self._finalizer = weakref.finalize(self, _close, list(self._lanes.values()), self._process)


def score(
    reward: Reward,
    rollouts: Rollouts,
    context: Context | None = None,
    *,
    workers: int | None = None,
    deadline: float = DEADLINE,
    backend: Backend = "local",
    cache: str | Path | bool | None = None,
) -> Scores:
    """Score rollouts in one call: `Engine.score`, with this process's shared engine unless told otherwise.

    Args:
        reward: the expression.
        rollouts: the batch.
        context: progress, models and the like.
        workers: worker processes, of an engine for this call alone.
        deadline: seconds per unit, of an engine for this call alone where it is not the default.
        backend: where the worker processes are; 'ray' is an engine for this call alone.
        cache: where scores are kept and looked up, by an engine for this call alone.
    """
    if workers is None and deadline == DEADLINE and backend == "local" and not cache:
        return default().score(reward, rollouts, context)
    with Engine(workers=workers, deadline=deadline, backend=backend, cache=cache) as engine:
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
        model = _model(name)
        there = rollouts.has(name) if model is None else model in context.models
        if not there:
            readers = [leaf.name for leaf in reward.leaves() if name in leaf.requires] or [f"a part of {reward.name}"]
            missing.append(_missing(name, readers, rollouts, context))
    if missing:
        raise MissingInput("\n".join(missing))


def _missing(name: str, readers: Sequence[str], rollouts: Rollouts, context: Context) -> str:
    who = f"{' and '.join(readers)} read{'s' if len(readers) == 1 else ''} it"
    if (model := _model(name)) is not None:
        return f"model {model!r} is missing: {who}; the context has: {', '.join(context.models) or 'no models'}"
    if name in ("tokens", "tree"):
        return f"{name!r} is missing: {who}; pass Rollouts(..., {name}=...)"
    has = ", ".join(["prompt", "completion", *rollouts.columns])
    return f"column {name!r} is missing: {who}; the batch has: {has}"


def _model(name: str) -> str | None:
    """The model that something read by this name is, 'model:policy'; None for a column, also one called 'model'."""
    kind, colon, model = name.partition(":")
    return model if kind == "model" and colon else None


def _process_lane(backend: Backend, workers: int | None) -> tuple[ProcessLane | ClusterLane, int]:
    """The lane for worker processes, and how many it may start."""
    if backend == "ray":
        cluster = ClusterLane(workers)
        return cluster, cluster.workers
    workers = _cores() if workers is None else workers
    return ProcessLane(workers), workers


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _close(lanes: Sequence[Lane], process: int) -> None:
    if os.getpid() == process:  # a fork does not own its parent's workers
        for lane in lanes:
            lane.close()
