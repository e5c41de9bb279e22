"""A generated program whose names can be called, and a process that judges one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from guerdon.core.errors import GuerdonError
from guerdon.sandbox.inside.peer import Lost, Peer
from guerdon.sandbox.run import Job, Late, SandboxFailed


class BrokenTests(GuerdonError):
    """Tests that are no tests: the setup raises, or one is not Python."""


class Program:
    """A program that has been loaded; its definitions run in the sandbox, and plain data comes back."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.peer = Peer(job.channel, objects=False)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, deadline: float) -> None:
        """Wait until it has defined its names; see `Sandbox.load`."""
        with self.job.deadline(deadline), _told_apart(self.job):
            self.peer.wait()

    def call(
        self,
        name: str,
        *arguments: Any,
        keywords: Mapping[str, Any] | None = None,
        in_place: bool = True,
        deadline: float,
    ) -> Any:
        """The value of a call.

        Args:
            name: a function or class, or a method of a class `Solution`.
            arguments: plain data.
            keywords: plain data.
            in_place: whether mutable arguments that it changes are changed here, too.
            deadline: seconds; a program that is late is ended, and cannot be called again.

        Raises:
            Late: if it is past its deadline.
            Raised: if it raises.
            Lost: if the program ends or has ended, or answers anything but plain data.
            NotPlain: if an argument is not plain data.
            SandboxFailed: if not the program has ended, but the sandbox.
        """
        with self.job.deadline(deadline), _told_apart(self.job):
            return self.peer.call(name, arguments, keywords, in_place=in_place)

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
        end = time.monotonic() + deadline
        try:
            word, *message = self._hear(deadline)
        except Late:
            raise BrokenTests(f"the setup takes more than {deadline:g} s") from None
        if word != "sound":
            raise BrokenTests(message[0])
        word, *message = self._hear(end - time.monotonic())
        if word != "ready":
            raise Lost(message[0])

    def run(self, test: int, *, deadline: float) -> str | None:
        """Run a test: why it failed, or None if it passed.

        Raises:
            Late: if it is past its deadline; the program and its judge are ended.
            SandboxFailed: if not the test has ended its process, but the sandbox.
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
            with self._job.deadline(deadline), _told_apart(self._job):
                said: tuple[str, ...] = self._job.channel.receive()
                return said
        except Late:
            self._program.job.kill()
            raise
        except (EOFError, ConnectionError):
            return "failed", "the test ended its process"


@contextlib.contextmanager
def _told_apart(job: Job) -> Iterator[None]:
    """Let a run that is lost with its sandbox not pass for one that has ended itself."""
    try:
        yield
    except (Lost, EOFError, ConnectionError):
        job.wait(0.0)
        if job.report is not None and "failed" in job.report:
            raise SandboxFailed(f"a run was lost: {job.report['failed']}") from None
        raise
