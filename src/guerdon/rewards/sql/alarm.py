"""What stops a query that is late."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable

SOON = 0.1  # seconds before a query is late in which the alarm may be about to go off


class Alarm:
    """A thread that stops a query which is late. It is kept from query to query: to start one takes as long as a
    small query, and as long as one is not late nobody has to wake it.

    That a query has ended need not be said: what is stopped then is nothing, and the next query sets the alarm anew.
    """

    forks = 0  # that lie between this process and the one which imported this

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._begin()

    def _begin(self) -> None:
        self.late = False
        self._lock = threading.Lock()
        self._sooner = threading.Condition(self._lock)
        self._due = self._wakes = math.inf  # no query; no thread
        self._thread: threading.Thread | None = None
        self._forks = Alarm.forks

    def set(self, seconds: float) -> None:
        """A query begins, which is late in some seconds."""
        if self._forks != Alarm.forks:  # the thread is not here, and may have held the lock
            self._begin()
        now = time.monotonic()
        due = now + seconds
        if due >= self._wakes and self._due > now + SOON:
            self.late, self._due = False, due
            if due >= self._wakes:  # still: the thread looks before that
                return
        with self._lock:
            self.late, self._due = False, due
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, daemon=True)
                self._thread.start()
            elif due < self._wakes:
                self._sooner.notify()

    def unset(self) -> None:
        """The query has been stopped, if it is late; the next one will not be."""
        with self._lock:
            self._due = math.inf

    def end(self) -> None:
        """There will be no more queries."""
        with self._lock:
            thread, self._due = self._thread, math.inf
            self._sooner.notify()
        if thread is not None:
            thread.join()

    def _watch(self) -> None:
        with self._lock:
            while self._wanted():
                self._wakes = self._due
                if (left := self._wakes - time.monotonic()) > 0:
                    self._sooner.wait(left)
                else:
                    self.late, self._due = True, math.inf
                    self._stop()
            self._thread = None

    def _wanted(self) -> bool:
        """Whether there is a query. Who sets the alarm after this has been denied sees that nobody looks any more."""
        if self._due == math.inf:
            self._wakes = math.inf
        return self._due < math.inf


def _forked() -> None:
    Alarm.forks += 1


os.register_at_fork(after_in_child=_forked)
