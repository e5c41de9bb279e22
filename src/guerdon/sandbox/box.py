"""The sandbox: runs generated programs, and lets them be called."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import TracebackType

from guerdon.sandbox.languages import Language
from guerdon.sandbox.launch import launch
from guerdon.sandbox.program import Judge, Program
from guerdon.sandbox.run import GRACE, Job, Limits, Ran, SandboxFailed

TRIES = 3  # to start a run
CPU = 600.0  # seconds of computing, of programs that are called; each call has its own deadline


class Sandbox:
    """A place for generated programs, from which nothing gets out but what they are asked for.

    Linux namespaces by bubblewrap: no network, no environment, nothing to read but the interpreter and the
    standard library, nothing to write but a small `/tmp`. Inside waits a warm interpreter, and each run is a
    fork of it in process, mount, IPC and user namespaces of its own, under a system call filter and resource
    limits; when it ends, all of it is gone. Starting takes some tens of milliseconds, a run about one.

    It starts with the first run, is started again should it fail, and ends with `close`, with the `with` block
    or with this process. Runs from several threads go on side by side.

    Args:
        packages: names of packages that programs may import, besides the standard library; they are taken from
            where they are installed here, and are imported before the first run.
        tools: names of commands that `command` may execute.
        languages: that programs may be written in, besides Python.
        limits: what each run may use.

    Raises:
        SandboxUnavailable: by each method, where programs cannot be isolated; none is ever run otherwise.

    >>> with Sandbox() as box:  # doctest: +SKIP
    ...     box.run("print(int(input()) ** 2)", stdin="12", deadline=2.0).stdout
    b'144\\n'

    Source: bubblewrap (containers/bubblewrap); namespaces(7), seccomp(2), getrlimit(2).
    """

    def __init__(
        self,
        *,
        packages: Sequence[str] = (),
        tools: Sequence[str] = (),
        languages: Sequence[Language] = (),
        limits: Limits | None = None,
    ) -> None:
        self.packages = tuple(packages)
        self.tools = tuple(dict.fromkeys((*tools, *(tool for language in languages for tool in language.tools))))
        self.limits = limits or Limits()
        self._lock = threading.Lock()
        self._zygote: _Zygote | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all runs and the interpreter; a later run starts another."""
        with self._lock:
            zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.close()

    def check(self) -> None:
        """Start now.

        Raises:
            SandboxUnavailable: if programs cannot be isolated here; says what to do.
        """
        self._warm()

    def run(
        self,
        source: str,
        *,
        stdin: str | bytes = b"",
        deadline: float,
        limits: Limits | None = None,
        language: Language | None = None,
    ) -> Ran:
        """Run a program.

        Args:
            source: the program.
            stdin: what it reads.
            deadline: seconds, from when it starts.
            limits: in place of the sandbox's.
            language: one of the sandbox's. Default: Python, where the program is the script `__main__`.

        Raises:
            SandboxFailed: if it could not be run.
            ValueError: if the language is none of the sandbox's.
        """
        if language is not None:
            limits = replace(limits or self.limits, processes=language.processes)
            files = {language.file: source}
            return self.command(*language.commands, files=files, stdin=stdin, deadline=deadline, limits=limits)
        job = self._start("program", source, deadline, limits, streams=True)
        return job.finish(stdin.encode() if isinstance(stdin, str) else stdin, deadline)

    def command(
        self,
        *commands: Sequence[str],
        files: Mapping[str, str | bytes] | None = None,
        stdin: str | bytes = b"",
        deadline: float,
        limits: Limits | None = None,
    ) -> Ran:
        """Execute tools, one after the other until one fails, without a shell, in an empty folder.

        Args:
            commands: each the name of a tool and its arguments. To execute several, or such as start others, the
                limits must allow more processes than one.
            files: what the folder contains, by name.
            stdin: what the last command reads.
            deadline: seconds, from when it starts.
            limits: in place of the sandbox's.

        Raises:
            SandboxFailed: if it could not be run.
            ValueError: if it is none of the tools, or a file lies outside of the folder.
        """
        for tool, *_ in commands:
            if tool not in self.tools:
                raise ValueError(f"{tool!r} is none of the tools of this sandbox: {', '.join(self.tools) or 'none'}")
        contents = {name: text.encode() if isinstance(text, str) else text for name, text in (files or {}).items()}
        for name in contents:
            if os.path.isabs(name) or ".." in name.split("/"):
                raise ValueError(f"the file {name!r} lies outside of the folder")
        message = ([[f"/usr/bin/{tool}", *arguments] for tool, *arguments in commands], contents)
        job = self._start("command", message, deadline, limits, streams=True)
        return job.finish(stdin.encode() if isinstance(stdin, str) else stdin, deadline)

    def load(self, source: str, *, deadline: float, limits: Limits | None = None) -> Program:
        """Have a program define its names, to be called from here.

        Args:
            source: the program; its `__name__` is not '__main__'.
            deadline: seconds it may take to do so.
            limits: in place of the sandbox's.

        Raises:
            Late: if it does not.
            Lost: if it ends instead.
            Raised: if it raises.
            SandboxFailed: if it could not be run.
        """
        program = Program(self._start("calls", source, CPU, limits))
        try:
            program.wait(deadline)
        except BaseException:
            program.close()
            raise
        return program

    def judge(
        self,
        program: Program,
        tests: Sequence[str],
        *,
        setup: str = "",
        under_test: Sequence[str] = (),
        deadline: float,
    ) -> Judge:
        """Have tests ready that call a program, in a process of their own.

        Args:
            program: what is judged; it is the judge's from now on.
            tests: Python statements, each a test that fails by raising.
            setup: definitions that the task gives; run beside the tests, not beside the program.
            under_test: the names that the program is to define, though they be built-in ones.
            deadline: seconds that setup may take.

        Raises:
            BrokenTests: if setup raises, or a test is not Python.
            Late, Lost: if the program does not say what it defines.
            SandboxFailed: if the judge could not be started.
        """
        message = (setup, list(tests), list(under_test))
        judge = Judge(self._start("tests", message, CPU, None, peer=program.job.socket), program)
        try:
            judge.wait(deadline)
        except BaseException:
            judge.close()
            raise
        return judge

    def _start(
        self,
        kind: str,
        message: Any,
        cpu: float,
        limits: Limits | None,
        *,
        streams: bool = False,
        peer: socket.socket | None = None,
    ) -> Job:
        limits = limits or self.limits
        problem: Exception | None = None
        for _ in range(TRIES):
            zygote = self._warm()
            try:
                return zygote.start(kind, message, cpu, limits, streams=streams, peer=peer)
            except (OSError, SandboxFailed) as error:
                problem = error
                self._replace(zygote)
        raise SandboxFailed(f"a run could not be started, {TRIES} times: {problem}") from problem

    def _warm(self) -> _Zygote:
        with self._lock:
            if self._zygote is not None and self._zygote.process != os.getpid():
                self._zygote = None  # a fork's parent goes on using it
            if self._zygote is None:
                self._zygote = _Zygote(self.packages, self.tools)
            return self._zygote

    def _replace(self, zygote: _Zygote) -> None:
        with self._lock:
            if self._zygote is zygote:
                self._zygote = None
        zygote.close()


class _Zygote:
    """The interpreter inside, seen from here."""

    def __init__(self, packages: Sequence[str], tools: Sequence[str]) -> None:
        self.process = os.getpid()
        self._bubblewrap, self._control = launch(packages, tools)

    def start(
        self, kind: str, message: Any, cpu: float, limits: Limits, *, streams: bool, peer: socket.socket | None
    ) -> Job:
        """Begin a run, say what it is about, and wait until it has moved in."""
        job = Job(limits, streams)
        handles = (*job.given, *(("peer",) if peer else ()))
        descriptors = [*(end.fileno() for end in job.given.values()), *((peer.fileno(),) if peer else ())]
        try:
            socket.send_fds(self._control, [_request(kind, handles, int(cpu) + 2, limits)], descriptors)
            job.hand_over()
            job.move_in(message)
        except BaseException:
            job.close()
            raise
        return job

    def close(self) -> None:
        """End it and all that runs in it."""
        if self.process == os.getpid():
            with contextlib.suppress(OSError):  # it has ended
                self._control.shutdown(socket.SHUT_RDWR)  # for copies in forks of this process, too
        self._control.close()  # at which it ends, and all in its namespace with it
        try:
            self._bubblewrap.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._kill()
            self._bubblewrap.kill()
            self._bubblewrap.wait()

    def _kill(self) -> None:
        """End the first process inside, and so all; without bubblewrap, which sees it end, it would go on."""
        pid = self._bubblewrap.pid
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)


@lru_cache
def _request(kind: str, handles: tuple[str, ...], cpu: int, limits: Limits) -> bytes:
    return json.dumps(
        {
            "kind": kind,
            "handles": handles,
            "cpu": cpu,
            "calls": "threads" if limits.processes == 1 else "processes",
            "tasks": limits.threads + limits.processes,
            "memory": limits.memory,
            "disk": limits.disk,
            "inodes": 1024 + limits.disk // 4096,
            "files": limits.files,
        }
    ).encode()
