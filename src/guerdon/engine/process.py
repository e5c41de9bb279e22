"""The process lane: units run in worker processes, where a hang or a crash harms nothing but its own unit."""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from guerdon.core.errors import GuerdonError
from guerdon.engine.child import PATIENCE, Child, search_path
from guerdon.engine.job import TRIES, Job
from guerdon.engine.lane import CLOSED, Task
from guerdon.engine.outcome import late
from guerdon.engine.wire import Chunk, Ready, Report, Unusable

GLANCE = 1.0  # seconds after which busy workers are looked at, even if none of them has said anything
LEAD = 0.5  # seconds before a unit is late at which a successor of its worker starts, or half the unit's deadline
EOF_GRACE = 0.5  # seconds a worker that has hung up may take to end, so that its exit status is its own


@dataclass(eq=False)
class Post:
    """A worker and its chunk: the units from `first` up to `last`, of which those before `next` are reported."""

    child: Child
    ready: bool = False
    job: Job | None = None
    first: int = 0
    next: int = 0
    last: int = 0
    since: float = 0.0

    @property
    def left(self) -> float:
        """Seconds until the unit that the worker is at is late; without end between units."""
        began = self.child.began
        return math.inf if began is None or self.job is None else began + self.job.deadline - time.monotonic()

    @property
    def lead(self) -> float:
        """How long before its unit is late a successor starts."""
        return 0.0 if self.job is None else min(LEAD, self.job.deadline / 2)


class ProcessLane:
    """A pool of worker processes, and the thread that hands out work, reads reports and enforces deadlines.

    Workers start when there is work for them and stay until the lane is closed; one that dies or is
    killed is replaced, and one that is about to be killed has its successor start meanwhile, which waits
    for its place: no more than `workers` work at a time. All but `start` and `close` happens on the lane's
    own thread, so that calls from several threads share the pool, and workers, which die with the thread
    that started them, do not die with a caller's.
    """

    def __init__(self, workers: int) -> None:
        self._limit = workers
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._requests: deque[Callable[[], None]] = deque()
        self._posts: list[Post] = []
        self._jobs: deque[Job] = deque()
        self._grown = 0  # how many workers there have been at once
        self._failed_starts = 0
        self._start_error = ""

    def start(self, task: Task) -> Job:
        """Put a task's units in the queue.

        Raises:
            GuerdonError: if the lane is closed, or the leaf cannot be pickled.
        """
        job = Job(task, cancel=self._cancel)
        self._ask(lambda: self._admit(job))
        return job

    def close(self) -> None:
        """End the workers; what is not finished abstains."""
        with self._lock:
            self._closed, thread = True, self._thread
            if thread is not None:
                self._ring()
        if thread is not None:
            thread.join(10)

    def _cancel(self, job: Job) -> None:
        with contextlib.suppress(GuerdonError):
            self._ask(lambda: self._abandon(job, "cancelled"))

    def _ask(self, request: Callable[[], None]) -> None:
        """Have the lane's thread do something."""
        with self._lock:
            if self._closed:
                raise GuerdonError(CLOSED)
            self._requests.append(request)
            if self._thread is None:
                self._bell, self._ear = socket.socketpair()
                self._bell.setblocking(False)
                self._thread = threading.Thread(target=self._run, name="guerdon-process-lane", daemon=True)
                self._thread.start()
            self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._bell.send(b".")

    def _answer(self) -> None:
        while self._requests:
            self._requests.popleft()()

    def _run(self) -> None:
        problem: str | BaseException = "the engine was closed"
        with selectors.DefaultSelector() as self._selector:
            self._selector.register(self._ear, selectors.EVENT_READ)
            try:
                while not self._closed:
                    self._turn()
            except BaseException as error:  # a fault of ours must reach those who wait for scores, not hang them
                problem = error
            with self._lock:
                try:
                    self._answer()
                finally:
                    self._dismiss_all(problem)
                    self._thread = None
                    self._bell.close()
                    self._ear.close()

    def _turn(self) -> None:
        self._answer()
        self._staff()
        self._assign()
        for key, _ in self._selector.select(self._patience()):
            if key.data is None:
                self._ear.recv(4096)
            elif key.data in self._posts:
                self._hear(key.data)
        self._watch()

    def _dismiss_all(self, problem: str | BaseException) -> None:
        for post in self._posts:
            post.child.close()
        for post in self._posts:
            post.child.end(grace=EOF_GRACE if post.job is None else 0.0)
        for job in self._jobs:
            job.abandon(problem)
        self._posts.clear()
        self._jobs.clear()

    def _admit(self, job: Job) -> None:
        self._jobs.append(job)
        self._failed_starts = 0

    def _staff(self) -> None:
        """Start workers: as many as there is work for, never fewer than there have been, and successors."""
        self._jobs = deque(job for job in self._jobs if not job.done)
        wanted = sum(post.job is not None for post in self._posts) + sum(job.queued for job in self._jobs)
        self._grown = max(self._grown, min(wanted, self._limit))
        wanted = self._grown + sum(post.left < post.lead for post in self._posts)
        while len(self._posts) < wanted and self._failed_starts < TRIES:
            try:
                post = Post(Child())
            except OSError as error:
                self._miss_start(f"{type(error).__name__}: {error}")
            else:
                self._posts.append(post)
                self._selector.register(post.child.socket, selectors.EVENT_READ, post)
        if not self._posts:
            for job in self._jobs:
                job.abandon(f"no worker process can start: {self._start_error}; what it printed is on stderr")

    def _miss_start(self, error: str) -> None:
        self._failed_starts += 1
        self._start_error = error

    def _assign(self) -> None:
        """Give each idle worker a chunk, from each job in turn; who worked last goes first."""
        idle = sorted((post for post in self._posts if post.ready and post.job is None), key=lambda post: -post.since)
        busy = sum(post.job is not None for post in self._posts)
        for post in idle[: self._limit - busy]:
            if post not in self._posts:  # given up with the job of a worker before it
                continue
            for _ in range(len(self._jobs)):
                job = self._jobs[0]
                self._jobs.rotate(-1)
                taken = job.take(self._limit) if job.queued else None
                if taken is not None:
                    self._send(post, job, *taken)
                    break

    def _send(self, post: Post, job: Job, first: int, last: int, columns: bytes) -> None:
        child = post.child
        post.job, post.first, post.next, post.last, post.since = job, first, first, last, time.monotonic()
        leaf = None if child.knows(job.key) else job.leaf
        forget = child.learn(job.key)
        sizes = job.sizes(first, last)
        try:
            child.send(Chunk(job.key, leaf, search_path(), forget, columns, last - first, sizes, job.deadline))
        except OSError:
            self._lose(post, grace=EOF_GRACE)

    def _hear(self, post: Post) -> None:
        try:
            for message in post.child.receive():
                self._heed(post, message)
        except EOFError:
            self._lose(post, grace=EOF_GRACE)

    def _heed(self, post: Post, message: Any) -> None:
        job = post.job
        if isinstance(message, Ready):
            post.ready, self._failed_starts = True, 0
        elif job is None:
            raise RuntimeError(f"a worker without work sent {message!r}")
        elif isinstance(message, Report):
            job.write(post.next, message)
            post.next += message.units
            if message.last:
                job.measured(post.next - post.first, time.monotonic() - post.since)
                post.job = None
                job.back((post.next, post.last))
        elif isinstance(message, Unusable):
            post.job = None
            if message.what == "leaf":
                post.child.forget(job.key)
                self._abandon(job, f"cannot be loaded in a worker, whose sys.path is this process's: {message.reason}")
            else:
                job.back((post.first, post.last), refused=f"columns cannot be read in a worker: {message.reason}")

    def _abandon(self, job: Job, reason: str) -> None:
        job.abandon(reason)
        for post in [post for post in self._posts if post.job is job]:
            post.job = None
            self._lose(post)

    def _patience(self) -> float | None:
        """How long nothing can go wrong, as far as can be seen now."""
        busy = [post for post in self._posts if post.job is not None]
        if not busy and all(post.ready for post in self._posts):
            return None
        wait = GLANCE
        for post in busy:
            if post.job is not None:
                left = min(post.left, post.job.deadline)
                wait = min(wait, left - post.lead if left > post.lead else left)
        return max(wait, 0.001)

    def _watch(self) -> None:
        """Kill the workers whose unit is past its deadline, and bury the dead."""
        now = time.monotonic()
        for post in [post for post in self._posts if post.job is not None or not post.ready]:
            if post not in self._posts:
                continue
            child, job = post.child, post.job
            began, unit = child.began, child.unit
            if began is not None:
                child.heard = now
            if child.dead or now - child.heard > PATIENCE:
                self._lose(post)
            elif job is not None and began is not None and now - began >= job.deadline and child.began == began:
                self._lose(post, overran=post.first + unit)

    def _lose(self, post: Post, *, overran: int | None = None, grace: float = 0.0) -> None:
        """End a worker. The unit that it was at abstains; what else it has not reported goes back into the queue."""
        child = post.child
        how = child.end(grace=grace)
        if post.job is not None:
            with contextlib.suppress(EOFError):
                for message in child.receive():
                    self._heed(post, message)
        guilty, reason = overran, late(post.job.deadline) if post.job is not None else ""
        if overran is None and child.began is not None:
            guilty, reason = post.first + child.unit, f"worker {how}"
        self._posts.remove(post)
        self._selector.unregister(child.socket)
        child.close()
        job = post.job
        if not post.ready:
            self._miss_start(f"it {how}")
        elif job is not None and guilty is not None and guilty >= post.next:
            job.survives(progress=True)
            job.fail(guilty, reason)
            job.back((post.next, guilty), (guilty + 1, post.last))
        elif job is not None:
            job.back((post.next, post.last))
            if not job.survives(progress=post.next > post.first):
                self._abandon(job, f"worker {how} outside of a unit, {TRIES} times in a row")
