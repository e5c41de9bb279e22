"""The async lane: units that wait for something else, on one event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any

from aiolimiter import AsyncLimiter

from guerdon.core.errors import GuerdonError
from guerdon.core.protocols import Leaf
from guerdon.core.scores import Scores
from guerdon.engine.lane import CLOSED, Task
from guerdon.engine.outcome import Outcome, abstain, explain, judge, judge_group, late, limits
from guerdon.engine.retry import pause, transient
from guerdon.engine.units import Sheet, Units

GRACE = 1.0  # seconds a unit past its deadline may take to clean up, and an event loop to answer
GLANCE = 0.2  # seconds between looks at whether the event loop answers
BLOCKED_LOOPS = 3  # event loops that may be blocked under one task before the rest of it abstains
BACKING_OFF = 8  # units of a task that retries which may be under way for each that may be awaited


class Gate:
    """Where the attempts of a leaf begin: one by one, at its rate, and each with a slot of the event loop.

    Only one stands before the slots, so that leaves take turns, and none saves up its turn in the rate.
    """

    def __init__(self, rate: float | None, slots: asyncio.Semaphore) -> None:
        self._limiter = None if rate is None else AsyncLimiter(1, 1 / rate)
        self._slots = slots
        self._turn = asyncio.Lock()

    async def enter(self, wanted: Callable[[], bool] = lambda: True) -> bool:
        """Wait for an attempt's turn and take a slot; False, with nothing taken, if it is wanted no more by then."""
        async with self._turn:
            if not wanted():
                return False
            if self._limiter is not None:
                await self._limiter.acquire()
            await self._slots.acquire()
            return True

    def leave(self) -> None:
        """Give the slot back."""
        self._slots.release()


class Loop:
    """An event loop in a daemon thread, on which at most `concurrency` units are awaited at a time."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.lost = False  # blocked: nothing more is to be begun on it
        self._slots = asyncio.Semaphore(concurrency)
        self._gates: dict[tuple[str, float | None], Gate] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="guerdon-async-lane", daemon=True)
        self._thread.start()

    def begin(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        """Run a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def gate(self, leaf: Leaf) -> Gate:
        """The gate of a leaf; leaves of one name and rate, which differ in their options, share one."""
        key = leaf.name, leaf.rate
        if key not in self._gates:
            self._gates[key] = Gate(leaf.rate, self._slots)
        return self._gates[key]

    def ping(self) -> threading.Event:
        """An event that is set once the loop has come round."""
        answered = threading.Event()
        with contextlib.suppress(RuntimeError):  # closed: whoever pings is about to learn of it
            self._loop.call_soon_threadsafe(answered.set)
        return answered

    def stop(self, *, wait: float = 0.0) -> None:
        """Cancel what runs on the loop and end it; a loop that is blocked ends when it is blocked no more."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(wait)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=GRACE))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


class AsyncLane:
    """Awaits the units of its tasks on a shared event loop, which starts with the first of them."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._closed = False

    def start(self, task: Task) -> Awaited:
        """Begin to await a task's units."""
        return Awaited(task, self)

    def loop(self, *, instead_of: Loop | None = None) -> Loop:
        """The event loop; a new one in place of one that is blocked.

        Raises:
            GuerdonError: if the lane is closed.
        """
        with self._lock:
            if self._closed:
                raise GuerdonError(CLOSED)
            if self._loop is None or self._loop is instead_of:
                if self._loop is not None:
                    self._loop.lost = True
                    self._loop.stop()
                self._loop = Loop(self._concurrency)
            return self._loop

    def close(self) -> None:
        """Cancel what is awaited and end the event loop."""
        with self._lock:
            self._closed, loop, self._loop = True, self._loop, None
        if loop is not None:
            loop.stop(wait=2 * GRACE)


class Awaited:
    """The units of one task, each not begun, awaited, or written on the sheet."""

    def __init__(self, task: Task, lane: AsyncLane) -> None:
        self._leaf, self._lane, self._deadline = task.leaf, lane, task.seconds
        self._within = limits(task.leaf.range)
        self._units = Units.of(task)
        self._sheet = Sheet(len(task.rollouts), task.rows)
        self._unbegun = deque(range(len(self._units)))
        self._awaited: set[int] = set()
        self._seconds = 0.0
        self._lock = threading.Lock()  # a blocked loop that comes back to life must find its units gone
        self._begin(lane.loop())

    def scores(self) -> Scores:
        """Wait for the last unit; one that blocks the event loop holds up the others for a deadline at most."""
        blocked = 0
        try:
            while not self._comes_to_its_end():
                blocked += 1
                if blocked == BLOCKED_LOOPS:
                    self._close(f"the event loop was blocked {BLOCKED_LOOPS} times")
                    break
                self._begin(self._lane.loop(instead_of=self._loop))
        except GuerdonError:
            self._close("the engine was closed")
        return self._sheet.scores()

    @property
    def cost(self) -> float:
        """Mean seconds per unit, from its first attempt to its outcome."""
        return self._seconds / len(self._units)

    def cancel(self) -> None:
        """Cancel what is awaited, and begin nothing more."""
        self._ended.cancel()

    def _begin(self, loop: Loop) -> None:
        self._loop = loop
        self._ended = loop.begin(self._serve_all(loop))

    def _comes_to_its_end(self) -> bool:
        """Wait for the end; False if the loop has not come round for so long that all that is awaited is late."""
        answered, since = self._loop.ping(), time.monotonic()
        while True:
            try:
                self._ended.result(GLANCE)
                return True
            except TimeoutError:
                if answered.is_set():
                    answered, since = self._loop.ping(), time.monotonic()
                elif time.monotonic() - since > self._deadline + GRACE:
                    self._retreat(f"{late(self._deadline)}: a coroutine blocked the event loop instead of awaiting")
                    return False
            except CancelledError:  # the loop was ended, because another task found it blocked: nothing here is late
                self._retreat()
                return False

    def _retreat(self, reason: str | None = None) -> None:
        """Take back what is awaited on a loop that is lost: to abstain, or to begin again."""
        with self._lock:
            self._loop.lost = True
            taken, self._awaited = sorted(self._awaited), set()
            if reason is None:
                self._unbegun.extendleft(reversed(taken))
                return
            for unit in taken:
                self._write(unit, abstain(reason, self._units.size(unit)))

    async def _serve_all(self, loop: Loop) -> None:
        under_way = loop.concurrency * (BACKING_OFF if self._leaf.retries else 1)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(under_way, len(self._units))):
                group.create_task(self._serve(loop, loop.gate(self._leaf)))

    async def _serve(self, loop: Loop, gate: Gate) -> None:
        while await gate.enter(lambda: bool(self._unbegun)):
            with self._lock:
                unit = self._unbegun.popleft() if self._unbegun and not loop.lost else None
                if unit is None:
                    gate.leave()
                    return
                self._awaited.add(unit)
            began = time.monotonic()
            outcomes = await self._attempts(unit, began, gate)
            with self._lock:
                if unit in self._awaited:
                    self._awaited.remove(unit)
                    self._seconds += time.monotonic() - began
                    self._write(unit, outcomes)

    async def _attempts(self, unit: int, began: float, gate: Gate) -> list[Outcome]:
        """The outcome of a unit that has a slot, for its first attempt; it holds none while it backs off."""
        size, attempts, earlier = self._units.size(unit), 0, ""
        while True:
            returned = await self._attempt(unit, began, gate)
            attempts += 1
            if returned is None:
                return abstain(late(self._deadline) + earlier, size)
            if not isinstance(returned, BaseException):
                return returned
            reason = explain(returned)
            if not transient(returned, self._leaf.retry_on):
                return abstain(reason, size)
            if attempts > self._leaf.retries:
                return abstain(f"{reason} ×{attempts}" if attempts > 1 else reason, size)
            earlier = f", after {reason} ×{attempts}"
            if not await self._back_off(pause(returned, attempts), began, gate):
                return abstain(late(self._deadline) + earlier, size)

    async def _back_off(self, seconds: float, began: float, gate: Gate) -> bool:
        """Wait, and take a slot for the next attempt; False, at once, if the deadline would be past by then."""
        left = began + self._deadline - time.monotonic()
        if seconds >= left:
            return False
        try:
            async with asyncio.timeout(left):
                await asyncio.sleep(seconds)
                return await gate.enter()
        except TimeoutError:
            return False

    async def _attempt(self, unit: int, began: float, gate: Gate) -> list[Outcome] | BaseException | None:
        """What came of one call, and give back the slot; None if it was late."""
        try:
            call = asyncio.ensure_future(self._call(unit))
            try:
                await asyncio.wait({call}, timeout=began + self._deadline - time.monotonic())
            finally:
                call.cancel()
            if call.done() and time.monotonic() - began <= self._deadline:
                return call.result()
            await asyncio.wait({call}, timeout=GRACE)  # the slot is taken until the unit has cleaned up
            return None
        finally:
            gate.leave()

    async def _call(self, unit: int) -> list[Outcome] | BaseException:
        size = self._units.size(unit)
        try:
            returned = await self._leaf.evaluate(*self._units.arguments(unit))
            return judge_group(returned, size, self._within) if self._units.grouped else [judge(returned, self._within)]
        except BaseException as error:  # SystemExit would end the event loop, and with it every other unit
            return error

    def _write(self, unit: int, outcomes: list[Outcome]) -> None:
        self._sheet.write_outcomes(self._units.rows_of(unit, unit + 1), outcomes)

    def _close(self, reason: str) -> None:
        with self._lock:
            self._awaited.clear()
            self._unbegun.clear()
            self._sheet.close(reason)
