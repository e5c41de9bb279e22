"""The process lane on a Ray cluster: the workers are elsewhere, and all that is promised of them holds there too."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from guerdon.core.errors import GuerdonError
from guerdon.engine.child import PATIENCE, search_path
from guerdon.engine.connection import CONNECTION, library
from guerdon.engine.job import TRIES, Job
from guerdon.engine.lane import CLOSED, Task
from guerdon.engine.outcome import LONGEST_MESSAGE
from guerdon.engine.relay import Answer, Order, Relay

GLANCE = 1.0  # seconds between looks at actors that have not answered
STARTING = 300.0  # seconds for which there may be work and not one actor: clusters grow by starting machines
SILENCE = 2 * PATIENCE  # seconds, beyond a unit's deadline, to answer in: a worker starts, and loads the leaf
LOSSES = 24  # actors that may be lost, per worker, with no answer in between; halving finds one unit of 2²⁰ in 20
ENDING = 3.0  # seconds for an actor to end what a reward started, before it is killed

# Two calls at a time: an order, and what is said meanwhile to drop it or to close.
ACTOR = {"num_cpus": 1, "scheduling_strategy": "SPREAD", "max_concurrency": 2}


@dataclass(eq=False)
class Work:
    """A job, its leaf in Ray's object store, and how many actors were lost over each unit that was alone with one."""

    job: Job
    leaf: Any = None
    losses: Counter[int] = field(default_factory=Counter)


@dataclass(eq=False)
class Seat:
    """An actor and its chunk: the units from `first` up to `last`."""

    actor: Any
    started: bool = False
    asked: bool = True  # has been asked whether it is there
    work: Work | None = None
    first: int = 0
    last: int = 0
    since: float = 0.0

    @property
    def idle(self) -> bool:
        """Whether it waits for work."""
        return self.started and not self.asked and self.work is None


class ClusterLane:
    """Runs units in the workers of Ray actors, each of which has one, under the deadlines of a process lane.

    An actor has one chunk at a time. The chunk of an actor that is lost goes to others, in halves, so that
    a unit that takes its actor with it is soon alone; it abstains when it has been so `TRIES` times.
    All but `start` and `close` happens on the lane's own thread.

    A cluster that does not answer holds nothing up for ever. Work that finds no actor for `STARTING`
    seconds abstains; an actor that does not answer within its unit's deadline and `SILENCE` is lost; where
    actors are lost again and again, with no answer in between, all abstains. Ray itself ends a process that
    has lost the head of its cluster.

    Args:
        workers: how many actors, each of which takes a CPU. Default: the CPUs of the cluster, divided by
            `WORLD_SIZE`, the number of training processes.

    Raises:
        MissingExtra: if Ray is not installed.
        GuerdonError: if there is no Ray at `RAY_ADDRESS`, or in a fork of a process that was connected.
    """

    def __init__(self, workers: int | None) -> None:
        self._ray = library()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._seats: list[Seat] = []
        self._works: deque[Work] = deque()
        self._grown = 0  # how many actors there have been at once
        self._failed_starts = 0
        self._last_loss = ""
        self._losses = 0
        self._served = 0.0  # when there last was an actor, or no work
        CONNECTION.join(self, cpus=workers)
        self.workers = workers or _share(self._ray.cluster_resources())
        self._relay = self._ray.remote(**ACTOR)(Relay)

    def start(self, task: Task) -> Job:
        """Put a task's units in the queue.

        Raises:
            GuerdonError: if the lane is closed, the leaf cannot be pickled, or the cluster is gone.
        """
        job = Job(task, cancel=self._cancel)
        with self._lock:
            if self._closed:
                raise GuerdonError(CLOSED)
            CONNECTION.join(self, cpus=self.workers)  # Ray may have been shut down
        self._ask(partial(self._admit, job))
        return job

    def close(self) -> None:
        """End the actors; what is not finished abstains. A Ray that no engine started is left as it is."""
        with self._lock:
            self._closed, thread = True, self._thread
            self._events.put(lambda: None)
        if thread is not None:
            thread.join(10 + ENDING)
        CONNECTION.leave(self)

    def _cancel(self, job: Job) -> None:
        with contextlib.suppress(GuerdonError):
            self._ask(partial(self._abandon, job, "cancelled"))

    def _ask(self, request: Callable[[], None]) -> None:
        """Have the lane's thread do something."""
        with self._lock:
            if self._closed:
                raise GuerdonError(CLOSED)
            self._events.put(request)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="guerdon-cluster-lane", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        problem: str | BaseException = "the engine was closed"
        try:
            while not self._closed:
                self._turn()
        except BaseException as error:  # a fault of ours must reach those who wait for scores, not hang them
            problem = error
        with self._lock:
            self._dismiss_all()
            self._answer()  # what was admitted last is abandoned with the rest
            self._abandon_all(problem)
            self._thread = None

    def _turn(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._events.get(timeout=GLANCE if self._works else None)()
        self._answer()
        if not self._ray.is_initialized():  # to call an actor now would start another Ray
            self._seats.clear()
            self._abandon_all("Ray was shut down")
        self._works = deque(work for work in self._works if not work.job.done)
        self._watch()
        self._staff()
        self._assign()

    def _answer(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._events.get_nowait()()

    def _dismiss_all(self) -> None:
        if self._ray.is_initialized():
            with contextlib.suppress(Exception):
                endings = [seat.actor.close.remote() for seat in self._seats if seat.started]
                if endings:
                    self._ray.wait(endings, num_returns=len(endings), timeout=ENDING)
            for seat in self._seats:
                self._kill(seat)
        self._seats.clear()

    def _admit(self, job: Job) -> None:
        """Take on a job; actors that have been idle are asked first whether they are still there."""
        if not self._works:
            self._served = time.monotonic()
        self._failed_starts = self._losses = 0
        self._works.append(Work(job))
        for seat in [seat for seat in self._seats if seat.idle]:
            seat.asked = True
            self._call(seat, self._greet, "ready")

    def _staff(self) -> None:
        """Start actors: as many as there is work for, and never fewer than there have been."""
        wanted = sum(seat.work is not None for seat in self._seats) + sum(work.job.queued for work in self._works)
        self._grown = max(self._grown, min(wanted, self.workers))
        while len(self._seats) < self._grown and self._failed_starts < TRIES and self._works:
            seat = Seat(self._relay.remote())
            self._seats.append(seat)
            self._call(seat, self._greet, "ready")
        if not self._seats:
            self._abandon_all(f"no Ray actor can start: {self._last_loss}")

    def _assign(self) -> None:
        """Give each idle actor a chunk, from each job in turn."""
        for seat in [seat for seat in self._seats if seat.idle]:
            for _ in range(len(self._works)):
                work = self._works[0]
                self._works.rotate(-1)
                taken = work.job.take(self.workers) if work.job.queued else None
                if taken is not None:
                    self._send(seat, work, *taken)
                    break

    def _send(self, seat: Seat, work: Work, first: int, last: int, columns: bytes) -> None:
        job = work.job
        seat.work, seat.first, seat.last = work, first, last
        work.leaf = self._ray.put(job.leaf) if work.leaf is None else work.leaf
        order = Order(job.key, search_path(), columns, last - first, job.sizes(first, last), job.deadline)
        self._call(seat, self._heed, "work", work.leaf, order)

    def _call(self, seat: Seat, heed: Callable[[Seat, Any], None], method: str, *arguments: Any) -> None:
        """Call an actor; what it answers is heeded on this thread, in its turn."""
        seat.since = time.monotonic()
        try:
            answer = getattr(seat.actor, method).remote(*arguments).future()
        except Exception as error:
            self._events.put(partial(self._lose, seat, _cause(error)))
        else:
            answer.add_done_callback(lambda done: self._events.put(partial(self._hear, seat, heed, done)))

    def _hear(self, seat: Seat, heed: Callable[[Seat, Any], None], done: Future[Any]) -> None:
        error = done.exception()
        if seat not in self._seats:
            return
        if error is None:
            heed(seat, done.result())
        elif isinstance(error, self._ray.exceptions.RayTaskError):
            raise error  # of ours: nothing of a reward's runs in an actor
        else:
            self._lose(seat, _cause(error))

    def _greet(self, seat: Seat, _: None) -> None:
        seat.started, seat.asked = True, False
        self._failed_starts = 0

    def _heed(self, seat: Seat, answer: Answer) -> None:
        work, seat.work = seat.work, None
        self._losses = 0
        if work is None or work.job.done:
            return
        job, first = work.job, seat.first
        at = first
        for report in answer.reports:
            job.write(at, report)
            at += report.units
        if answer.failed is not None:
            unit, reason = answer.failed
            job.fail(first + unit, reason)
        if answer.seconds is not None:
            job.measured(at - first, answer.seconds)
        if answer.abandoned is not None:
            self._abandon(job, answer.abandoned)
        job.back(*((first + begin, first + end) for begin, end in answer.left), refused=answer.refused)

    def _abandon(self, job: Job, reason: str) -> None:
        job.abandon(reason)
        for seat in self._seats:
            if seat.work is not None and seat.work.job is job:
                with contextlib.suppress(Exception):  # a lost actor drops it all the same
                    seat.actor.drop.remote(job.key)

    def _abandon_all(self, reason: str | BaseException) -> None:
        for work in self._works:
            work.job.abandon(reason)
        self._works.clear()

    def _watch(self) -> None:
        """Give up the actors that do not answer, and all work where no actor starts, or none lives."""
        now = time.monotonic()
        for seat in list(self._seats):
            busy, asked = seat.work is not None, seat.asked and seat.started
            allowed = SILENCE + (seat.work.job.deadline if seat.work is not None else 0.0)
            if (busy or asked) and now - seat.since > allowed:
                self._lose(seat, f"it did not answer for {allowed:g} s")
        if not self._works or any(seat.started for seat in self._seats):
            self._served = now
        elif now - self._served > STARTING:
            self._abandon_all(f"no Ray actor started within {STARTING:g} s: the cluster has no free CPU, or no machine")
        if self._losses > LOSSES * self.workers:
            self._abandon_all(f"{self._losses} Ray actors were lost in a row: {self._last_loss}")

    def _lose(self, seat: Seat, cause: str) -> None:
        """Let go of an actor. What it was at goes back into the queue, in halves."""
        if seat not in self._seats:
            return
        self._seats.remove(seat)
        self._kill(seat)
        self._last_loss = cause
        if not seat.started:
            self._failed_starts += 1
        elif seat.work is not None:
            self._losses += 1
            if not seat.work.job.done:
                self._retry(seat.work, seat.first, seat.last, cause)

    def _retry(self, work: Work, first: int, last: int, cause: str) -> None:
        if last - first > 1:
            middle = (first + last) // 2
            work.job.back((first, middle), (middle, last))
            return
        work.losses[first] += 1
        if work.losses[first] < TRIES:
            work.job.back((first, last))
        else:
            work.job.fail(first, f"its Ray actor was lost {TRIES} times: {cause}")
            work.job.back()

    def _kill(self, seat: Seat) -> None:
        if self._ray.is_initialized():
            with contextlib.suppress(Exception):  # it is gone
                self._ray.kill(seat.actor)


def _share(resources: Mapping[str, float]) -> int:
    return max(1, int(resources.get("CPU", 1)) // max(1, int(os.environ.get("WORLD_SIZE", "1"))))


def _cause(error: BaseException) -> str:
    """Why an actor was lost; Ray says what matters in the last line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:LONGEST_MESSAGE]
