"""One run in the sandbox, seen from outside: start it, talk to it, end it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from guerdon.core.errors import GuerdonError
from guerdon.sandbox.inside.channel import Channel
from guerdon.sandbox.inside.plain import NotPlain
from guerdon.sandbox.launch import START

GRACE = 5.0  # seconds that a run may take to end once it is killed
LONGEST_REPLY = 4 << 20  # bytes

Ended = Literal["exit", "signal", "deadline", "output"]


class Late(Exception):
    """Something took longer than its deadline; the run was ended."""


class SandboxFailed(GuerdonError):
    """A run could not be started, or not be ended: nothing is known about the program."""


@dataclass(frozen=True)
class Limits:
    """What a run may use.

    Args:
        memory: bytes that it may allocate, beyond what the interpreter already has; of each process, where there
            may be several.
        disk: bytes it may keep in its `/tmp`, the only place it can write; they are memory too.
        output: bytes it may write to each of its standard streams.
        processes: how many processes it may have at a time. With 1, the default, it may not start any, so that
            `memory` bounds the whole run.
        threads: how many threads it may have besides. Where there may be several processes, Linux counts these
            as threads: there can be `processes + threads` of them.
        files: how many files it may have open.
    """

    memory: int = 512 << 20
    disk: int = 16 << 20
    output: int = 1 << 20
    processes: int = 1
    threads: int = 64
    files: int = 64


@dataclass(frozen=True)
class Ran:
    """How a run went.

    Args:
        ended: 'exit' by itself, by a 'signal', killed at its 'deadline', or for its 'output' being too much.
        code: its exit code, or the number of the signal.
        stdout: what it wrote.
        stderr: what it complained of.
        seconds: how long it took.
        cpu: seconds of computing, its own.
    """

    ended: Ended
    code: int
    stdout: bytes
    stderr: bytes
    seconds: float
    cpu: float

    @property
    def fine(self) -> bool:
        """Whether it ended by itself and reported no error."""
        return self.ended == "exit" and self.code == 0

    def __str__(self) -> str:
        if self.ended == "signal":
            with contextlib.suppress(ValueError):
                return f"ended by {signal.Signals(self.code).name}"
        return {"exit": f"exit code {self.code}", "deadline": "past its deadline", "output": "too much output"}.get(
            self.ended, f"ended by signal {self.code}"
        )


class _End:
    """A descriptor that is given away."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        os.close(self._descriptor)


class Job:
    """A run, seen from here."""

    def __init__(self, limits: Limits, streams: bool) -> None:
        self.limits = limits
        self.began = time.monotonic()
        self.report: dict[str, Any] | None = None
        self.given: dict[str, Any] = {}
        self._status, self.given["status"] = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket, self.given["channel"] = socket.socketpair()
        self.channel = Channel(self.socket.fileno(), LONGEST_REPLY)
        self._pipes: dict[str, int] = {}
        for name in ("stdin", "stdout", "stderr") if streams else ():
            read, write = os.pipe()
            ours, theirs = (write, read) if name == "stdin" else (read, write)
            self._pipes[name] = ours
            self.given[name] = _End(theirs)

    def hand_over(self) -> None:
        """Close the ends that were given away."""
        for end in self.given.values():
            end.close()
        self.given = {}

    def move_in(self, message: Any) -> None:
        """Say what it is about, for it to hear once it is in its namespaces, and wait until it is.

        Raises:
            SandboxFailed: if it does not get there.
        """
        try:
            self.channel.until = time.monotonic() + START
            self.channel.send(message)
            word = self.channel.receive()
        except (OSError, EOFError, NotPlain) as error:
            self.wait(0.2)
            raise SandboxFailed(f"a run did not start: {(self.report or {}).get('failed', error)}") from error
        if "failed" in word:
            raise SandboxFailed(f"a run did not start: {word['failed']}")
        self.began = time.monotonic()

    @contextlib.contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Let what is said on the channel take so long.

        Raises:
            Late: when the time is over; the run has been ended.
        """
        self.channel.until = time.monotonic() + seconds
        try:
            yield
        except TimeoutError:
            self.kill()
            raise Late(f"deadline {seconds:g} s") from None

    def finish(self, stdin: bytes, deadline: float) -> Ran:
        """Feed it, and wait for its end."""
        written = {"stdout": bytearray(), "stderr": bytearray()}
        ended: Ended | None = None
        with contextlib.closing(self):
            if stdin:
                os.set_blocking(self._pipes["stdin"], False)
            else:
                os.close(self._pipes.pop("stdin"))
            names = {descriptor: name for name, descriptor in self._pipes.items()} | {self._status.fileno(): "status"}
            ready = select.poll()
            for descriptor, name in names.items():
                ready.register(descriptor, select.POLLOUT if name == "stdin" else select.POLLIN)
            while names and ended is None:
                left = self.began + deadline - time.monotonic()
                if left <= 0:
                    ended = "deadline"
                for descriptor, _ in ready.poll(max(left, 0) * 1000):
                    name = names[descriptor]
                    if name == "status":
                        over = self.wait(GRACE)
                    elif name == "stdin":
                        stdin = self._feed(stdin)
                        over = not stdin
                    else:
                        piece = os.read(descriptor, 1 << 16)
                        written[name] += piece
                        over = not piece
                        if len(written[name]) > self.limits.output:
                            ended = "output"
                    if over:
                        ready.unregister(descriptor)
                        del names[descriptor]
                        if name == "stdin":
                            os.close(self._pipes.pop("stdin"))
            seconds = time.monotonic() - self.began
            self.kill()
            assert self.report is not None
            if "failed" in self.report:
                raise SandboxFailed(f"a run was lost: {self.report['failed']}")
            code = self.report["code"]
            stdout, stderr = (bytes(text[: self.limits.output]) for text in written.values())
            ended = ended or ("signal" if code < 0 else "exit")
            return Ran(ended, abs(code), stdout, stderr, seconds, self.report["cpu"])

    def _feed(self, stdin: bytes) -> bytes:
        """Write some; what is left."""
        try:
            return stdin[os.write(self._pipes["stdin"], stdin[: 1 << 16]) :]
        except BlockingIOError:
            return stdin
        except BrokenPipeError:  # it reads no more
            return b""

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended, and learn how."""
        if self.report is None:
            self._status.settimeout(max(0.0, seconds) or 1e-6)
            with contextlib.suppress(TimeoutError, BlockingIOError):
                self.report = json.loads(self._status.recv(1 << 12) or b'{"failed": "the sandbox has ended"}')
        return self.report is not None

    def kill(self) -> None:
        """End it, with all it has started.

        Raises:
            SandboxFailed: if it does not end.
        """
        if self.report is None:
            with contextlib.suppress(OSError):
                self._status.shutdown(socket.SHUT_WR)
            if not self.wait(GRACE):
                raise SandboxFailed(f"a run that was killed was still there after {GRACE:g} s")

    def close(self) -> None:
        """Let go of it; what still runs is ended."""
        self.hand_over()
        for descriptor in self._pipes.values():
            os.close(descriptor)
        self._pipes = {}
        self._status.close()
        self.socket.close()
        self.channel.descriptor = -1  # soon another file's number
