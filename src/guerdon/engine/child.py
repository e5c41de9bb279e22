"""One worker process, seen from the engine: start it, talk to it, see what it is at, end it."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from guerdon.engine.wire import BEGAN, CELL_BYTES, UNIT, Frames, frame

LEAVES_HELD = 32  # a worker forgets the leaf it used longest ago
PATIENCE = 120.0  # seconds a worker may be silent outside of a unit: to start, to import a leaf, to read a chunk
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class Child:
    """A worker process and the socket to it. Not thread-safe: one thread owns it, from its start to its end."""

    def __init__(self) -> None:
        """Start it.

        Raises:
            OSError: if the system gives no process, no socket or no memory.
        """
        in_memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        with contextlib.ExitStack() as undo, tempfile.TemporaryFile(dir=in_memory) as shared:
            os.ftruncate(shared.fileno(), CELL_BYTES)
            self._memory = undo.enter_context(mmap.mmap(shared.fileno(), CELL_BYTES))
            self.socket, theirs = socket.socketpair()
            undo.enter_context(self.socket)
            with theirs:
                handles = (theirs.fileno(), shared.fileno())
                arguments = (*handles, os.getpid(), os.environ.get("PYTHONPATH", ""))
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "guerdon.engine.worker", *map(str, arguments)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=handles,
                    start_new_session=True,  # Ctrl-C is not for workers, and a kill reaches what a reward started
                    env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(search_path())},
                )
            undo.pop_all()
        self._cell = memoryview(self._memory).cast("d")
        self._frames = Frames()
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self.heard = time.monotonic()  # when it last said something, was given something to do, or was seen amid a unit

    def knows(self, key: bytes) -> bool:
        """Whether it was sent this leaf and still holds it."""
        return key in self._known

    def learn(self, key: bytes) -> bytes | None:
        """Note that it will hold this leaf; the key of the leaf it is to forget, if it holds too many."""
        self._known[key] = None
        self._known.move_to_end(key)
        return self._known.popitem(last=False)[0] if len(self._known) > LEAVES_HELD else None

    def forget(self, key: bytes) -> None:
        """Note that it does not hold this leaf after all."""
        self._known.pop(key, None)

    def send(self, message: Any) -> None:
        """Send a message to a worker that is waiting for one.

        Raises:
            OSError: if it is gone, or does not read (it may be stopped).
        """
        self.heard = time.monotonic()
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(frame(message))

    def receive(self) -> Iterator[Any]:
        """The messages that have arrived.

        Raises:
            EOFError: after the last one, if the worker has closed its end.
        """
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    piece = self.socket.recv(1 << 20)
                except ConnectionResetError:
                    piece = b""
                if not piece:
                    raise EOFError
                self.heard = time.monotonic()
                yield from self._frames.feed(piece)

    @property
    def began(self) -> float | None:
        """When, on `time.monotonic`, the unit it is at began; None between units."""
        return self._cell[BEGAN] or None

    @property
    def unit(self) -> int:
        """Which unit of its chunk it is at."""
        return int(self._cell[UNIT])

    @property
    def dead(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def end(self, *, grace: float = 0.0) -> str:
        """Kill it and what a reward started in it, unless it ends by itself within the grace; say how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        status = self._process.poll()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        if status is None:
            return "stopped answering and was killed"
        return f"died (signal {-status})" if status < 0 else f"died (exit code {status})"

    def close(self) -> None:
        """Let go of the socket and the shared memory; a worker that is idle ends when it sees that."""
        self.socket.close()
        self._cell.release()
        self._memory.close()


def search_path() -> list[str]:
    """Where this process finds modules, in a form that means the same in any working directory."""
    return [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]
