"""A worker process: evaluates units, one after the other, as they come over its socket.

Started by the engine as `python -m guerdon.engine.worker SOCKET CELL PARENT PYTHONPATH`. It imports no torch,
ends when the engine does, and holds nothing but the leaves it was sent.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import math
import mmap
import os
import pickle
import signal
import socket
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Literal

from guerdon.core.protocols import Leaf
from guerdon.engine.outcome import Outcome, abstain, explain, judge, judge_group, late, limits
from guerdon.engine.units import calls
from guerdon.engine.wire import BEGAN, CELL_BYTES, UNIT, Chunk, Frames, Ready, Report, Unusable, frame

FLUSH = 0.01  # seconds of finished work that may be lost, and done again, when a later unit is killed
YIELD = 0.2  # seconds after which the rest of a chunk goes back, for other workers to take

PR_SET_PDEATHSIG = 1

Packed = tuple[float, str | None, Any]  # an outcome whose evidence is pickled


def main() -> None:
    """Serve until the engine closes the socket."""
    connection, cell, parent = (int(number) for number in sys.argv[1:4])
    _die_with(parent)
    _restore_environment(sys.argv[4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    os.dup2(2, 1)  # what a reward prints must not pass for what the user's program prints
    sys.stdout = sys.stderr
    with socket.socket(fileno=connection) as channel, mmap.mmap(cell, CELL_BYTES) as memory:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            _serve(channel, memoryview(memory).cast("d"))
        os._exit(0)  # threads that a reward started do not keep a worker alive


def _die_with(parent: int) -> None:
    """Die when the process that started this one dies, even by SIGKILL and amid a unit."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _restore_environment(path: str) -> None:
    """Undo what the start needed, so that programs a reward starts see what the user set."""
    del sys.argv[1:]
    if path:
        os.environ["PYTHONPATH"] = path
    else:
        os.environ.pop("PYTHONPATH", None)


def _serve(channel: socket.socket, cell: memoryview[float]) -> None:
    def send(message: Any) -> None:
        channel.sendall(frame(message))

    leaves: dict[bytes, Leaf] = {}
    frames = Frames()
    send(Ready())
    while piece := channel.recv(1 << 20):
        for chunk in frames.feed(piece):
            _work(chunk, leaves, cell, send)


def _work(chunk: Chunk, leaves: dict[bytes, Leaf], cell: memoryview[float], send: Callable[[Any], None]) -> None:
    if chunk.forget is not None:
        leaves.pop(chunk.forget, None)
    what: Literal["leaf", "columns"] = "leaf"
    try:
        if chunk.leaf is not None:
            sys.path[:] = chunk.path
            leaves[chunk.key] = pickle.loads(chunk.leaf)
        leaf = leaves[chunk.key]
        what = "columns"
        columns = pickle.loads(chunk.columns)
    except BaseException as error:  # an import may raise anything, SystemExit too
        send(Unusable(what, explain(error)))
        return
    _evaluate(chunk, leaf, columns, cell, send)


def _evaluate(
    chunk: Chunk, leaf: Leaf, columns: list[Any], cell: memoryview[float], send: Callable[[Any], None]
) -> None:
    clock, evaluate, within, deadline = time.monotonic, leaf.evaluate, limits(leaf.range), chunk.deadline
    sizes = repeat(None, chunk.units) if chunk.sizes is None else chunk.sizes
    results = _Results()
    flushed = started = clock()
    for unit, (arguments, size) in enumerate(zip(calls(leaf.reads, columns, chunk.units), sizes, strict=True)):
        began = clock()
        if began - flushed > FLUSH:
            last = began - started > YIELD
            send(results.take(last=last))
            if last:
                return
            began = flushed = clock()
        cell[UNIT] = unit
        cell[BEGAN] = began
        # Turning what a reward returned or raised into plain data may run its code: that is part of the unit.
        try:
            returned = evaluate(*arguments)
            outcomes = [judge(returned, within)] if size is None else judge_group(returned, size, within)
            packed = outcomes if size is None and outcomes[0][2] is None else [_packed(o) for o in outcomes]
        except BaseException as error:  # a reward that raises SystemExit or KeyboardInterrupt has failed like any other
            packed = abstain(explain(error), size or 1)
        cell[BEGAN] = 0.0
        took = clock() - began
        if took > deadline:
            packed = abstain(late(deadline), size or 1)
        results.add(packed, took)
    send(results.take(last=True))


def _packed(outcome: Outcome) -> Packed:
    value, reason, details = outcome
    if details is None:
        return outcome
    try:
        return value, reason, pickle.dumps(details, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return math.nan, f"details cannot leave the worker: {explain(error)}", None


class _Results:
    """The outcomes of the units since the last report."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._units = 0
        self._seconds = 0.0
        self._values = array("d")
        self._reasons: dict[int, str] = {}
        self._details: dict[int, bytes] = {}

    def add(self, outcomes: Sequence[Packed], seconds: float) -> None:
        for value, reason, details in outcomes:
            if reason is not None:
                self._reasons[len(self._values)] = reason
            if details is not None:
                self._details[len(self._values)] = details
            self._values.append(value)
        self._units += 1
        self._seconds += seconds

    def take(self, *, last: bool) -> Report:
        report = Report(self._units, self._values.tobytes(), self._reasons, self._details, last, self._seconds)
        self._clear()
        return report


if __name__ == "__main__":
    main()
