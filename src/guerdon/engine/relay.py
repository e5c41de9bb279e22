"""What a Ray actor of guerdon runs: a process lane of one worker, and the orders that reach it from afar.

Leaves, columns and details pass through as the bytes they came in: the actor runs nothing of a reward's, and
imports no torch.
"""

from __future__ import annotations

import sys
from concurrent.futures import Future
from typing import NamedTuple, cast

from guerdon.engine.job import TRIES, Job
from guerdon.engine.process import ProcessLane
from guerdon.engine.wire import Report


class Order(NamedTuple):
    """To an actor: some units of one leaf, which it counts from 0."""

    key: bytes  # stands for the leaf
    path: list[str]  # where the leaf's modules are found
    columns: bytes  # `Units.slices`, pickled
    units: int  # how many
    sizes: list[int] | None  # how many rows each unit has; None: units are rows
    deadline: float


class Answer(NamedTuple):
    """From an actor: what a worker made of an order."""

    reports: list[Report]  # of the first units, in order
    failed: tuple[int, str] | None  # the unit that cost the worker its life, and the reason it abstains for
    left: list[tuple[int, int]]  # the units that were not reached, from and up to
    refused: str | None  # why those cannot be read
    abandoned: str | None  # why there is no point in trying this leaf's other units
    seconds: float | None  # from the order's beginning to its end, where the worker lived to see it


class Errand:
    """An order in the hands of a process lane, which takes it for a `Job`.

    A worker's death before the order's first unit is this machine's to mend, as it is a `Job`'s; whatever
    else remains undone is handed back, so that all actors can share it.
    """

    def __init__(self, leaf: bytes, order: Order) -> None:
        self.leaf, self.key, self.deadline = leaf, order.key, order.deadline
        self._order = order
        self._waits = True
        self._deaths = 0
        self._reports: list[Report] = []
        self._failed: tuple[int, str] | None = None
        self._seconds: float | None = None
        self._answered: Future[Answer] = Future()

    def answer(self) -> Answer:
        """Wait for the order's end."""
        return self._answered.result()

    @property
    def queued(self) -> int:
        """How many units wait for the worker: all or none."""
        return self._order.units if self._waits else 0

    @property
    def done(self) -> bool:
        """Whether there is an answer."""
        return self._answered.done()

    def take(self, workers: int) -> tuple[int, int, bytes] | None:
        """The whole order: how much work it is was chosen where it came from."""
        self._waits = False
        return 0, self._order.units, self._order.columns

    def sizes(self, first: int, last: int) -> list[int] | None:
        """How many rows the units have; None if units are rows."""
        return self._order.sizes

    def write(self, first: int, report: Report) -> None:
        """Note what the worker reports of the next units."""
        self._reports.append(report)

    def fail(self, unit: int, reason: str) -> None:
        """Note that one unit is to abstain."""
        self._failed = unit, reason

    def measured(self, units: int, seconds: float) -> None:
        """Note how long the worker took."""
        self._seconds = seconds

    def back(self, *ranges: tuple[int, int], refused: str | None = None) -> None:
        """The worker is done, but for these units."""
        if refused is None and ranges == ((0, self._order.units),):
            self._waits = True
        else:
            self._settle([(first, last) for first, last in ranges if first < last], refused=refused)

    def survives(self, *, progress: bool) -> bool:
        """Note that the worker died; False if that happened too often before the first unit."""
        self._deaths = 0 if progress else self._deaths + 1
        return self._deaths < TRIES

    def abandon(self, reason: str | BaseException) -> None:
        """Answer that there is no point in trying, or raise an error to who waits for the answer."""
        self._waits = False
        if isinstance(reason, str):
            self._settle([], abandoned=reason)
        elif not self.done:
            self._answered.set_exception(reason)

    def _settle(self, left: list[tuple[int, int]], *, refused: str | None = None, abandoned: str | None = None) -> None:
        if not self.done:
            answer = Answer(self._reports, self._failed, left, refused, abandoned, self._seconds)
            self._answered.set_result(answer)


class Relay(ProcessLane):
    """A process lane of one worker that is given one order at a time, and may be told to drop it."""

    def __init__(self) -> None:
        super().__init__(workers=1)
        self._here = list(sys.path)
        self._errand: Errand | None = None

    def ready(self) -> None:
        """Answer, which says that it has started and is there."""

    def work(self, leaf: bytes, order: Order) -> Answer:
        """Carry out an order; modules are looked for where the sender finds them, then where this machine does.

        Raises:
            GuerdonError: if the lane is closed.
        """
        sys.path[:] = dict.fromkeys([*order.path, *self._here])
        self._errand = errand = Errand(leaf, order)
        self._ask(lambda: self._admit(cast(Job, errand)))
        return errand.answer()

    def drop(self, key: bytes) -> None:
        """Kill the worker if it is at an order of this leaf: nobody wants the answer."""
        if self._errand is not None and self._errand.key == key:
            self._cancel(cast(Job, self._errand))
