"""A generated program whose names can be called, and a process that judges one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from guerdon.core.errors import GuerdonError
from guerdon.sandbox.inside.peer import Lost, Peer
from guerdon.sandbox.run import Job


class BrokenTests(GuerdonError):
    """Tests that are no tests: the setup raises, or one is not Python."""


class Program:
    """A program that has been loaded; its definitions run in the sandbox, and plain data comes back."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.peer = Peer(job.channel)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, deadline: float) -> None:
        """Wait until it has defined its names; see `Sandbox.load`."""
        with self.job.deadline(deadline):
            self.peer.wait()

    def call(self, name: str, *arguments: Any, keywords: Mapping[str, Any] | None = None, deadline: float) -> Any:
        """The value of a call. Mutable arguments that it changes are changed here, too.

        Args:
            name: a function or class, or a method of a class `Solution`.
            arguments: plain data.
            keywords: plain data.
            deadline: seconds; a program that is late is ended, and cannot be called again.

        Raises:
            Late: if it is past its deadline.
            Raised: if it raises.
            Lost: if the program ends or has ended, or answers anything but plain data.
            NotPlain: if an argument is not plain data.
        """
        with self.job.deadline(deadline):
            return self.peer.call(name, arguments, keywords)

    def close(self) -> None:
        """End it."""
        self.job.close()


class Judge:
    """Tests that are ready to run against a program."""

    def __init__(self, job: Job, program: Program) -> None:
        self._job, self._program = job, program

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, deadline: float) -> None:
        """Wait until the tests are ready; see `Sandbox.judge`."""
        word, *message = self._hear(deadline)
        if word == "broken":
            raise BrokenTests(message[0])
        if word != "ready":
            raise Lost(message[0])

    def run(self, test: int, *, deadline: float) -> str | None:
        """Run a test: why it failed, or None if it passed.

        Raises:
            Late: if it is past its deadline; the program and its judge are ended.
        """
        with contextlib.suppress(ConnectionError):  # then there is nothing to hear either
            self._job.channel.send(test)
        word, *message = self._hear(deadline)
        return None if word == "passed" else message[0]

    def close(self) -> None:
        """End the program and its judge."""
        self._job.close()
        self._program.close()

    def _hear(self, deadline: float) -> tuple[str, ...]:
        try:
            with self._job.deadline(deadline):
                said: tuple[str, ...] = self._job.channel.receive()
                return said
        except (EOFError, ConnectionError):
            return "failed", "the test ended its process"
