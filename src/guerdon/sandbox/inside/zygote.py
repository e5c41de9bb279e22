"""The warm interpreter: forks itself for each run, into namespaces of the run's own, and sees it end.

It is the first process inside bubblewrap and never runs generated code itself. Nor does it see any: what a
run is about goes past it, on a socket it hands on, so that no later run can find it in the memory it inherits.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from guerdon.sandbox.inside import kernel
from guerdon.sandbox.inside.calls import serve_calls
from guerdon.sandbox.inside.channel import Channel, frame
from guerdon.sandbox.inside.command import execute
from guerdon.sandbox.inside.program import run_program
from guerdon.sandbox.inside.tests import serve_tests

PLACES = {"stdin": 0, "stdout": 1, "stderr": 2, "channel": 3, "peer": 4}  # descriptors in a run
CHANNEL, PEER = PLACES["channel"], PLACES["peer"]
READY = frame({})
NOTHING = b"/nothing"  # an empty folder
MOST_HANDLES = 8
MOST_PLANS = 100
MESSAGE = 1 << 16
MOST_DESCRIPTORS = 4096  # of the zygote itself: some for each run that goes on


class Plan(NamedTuple):
    """What a run is to be: a request, worked out once for all runs that are alike."""

    handles: tuple[str, ...]  # what the descriptors that come with it are for
    run: Callable[[Channel], int]
    limits: tuple[tuple[int, int], ...]
    folder: bytes  # options of its file system
    calls: kernel.Calls


class Run(NamedTuple):
    """A run, as the zygote sees it."""

    pid: int
    handle: int  # a descriptor that can be read once it has ended
    status: int  # a socket that says so to the host; when the host hangs up, the run is ended


def main(control: int, host: int) -> None:
    """Serve until the host hangs up or ends.

    Args:
        control: a socket on which the host asks for runs.
        host: a descriptor of the host's process.
    """
    while os.dup(0) < PEER:  # so that what is received is never in the place of what a run has there
        pass
    channel = socket.socket(fileno=control)
    configuration = json.loads(channel.recv(MESSAGE))
    try:
        _settle(configuration)
    except Exception as error:
        channel.send(json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode())
        os._exit(1)
    Zygote(channel, host, configuration).serve()


def _settle(configuration: dict[str, Any]) -> None:
    """Become nobody in particular, in namespaces that are this process's own to multiply."""
    if configuration["user"] is not None:
        kernel.become(configuration["user"])
    user, group = os.getuid(), os.getgid()
    kernel.unshare(kernel.NEW_USER | kernel.NEW_PID | kernel.NEW_MOUNTS | kernel.NEW_IPC)
    kernel.map_user(user, group)
    if child := os.fork():
        os.closerange(0, 64)  # only the child holds the sockets, so that they close when it ends
        os.waitpid(child, 0)
        os._exit(0)
    kernel.mount(b"none", b"/", None, kernel.RECURSIVE | kernel.PRIVATE, None)
    for device in os.listdir("/dev"):  # they are the machine's own, and keep the time that one sets
        kernel.make_read_only(f"/dev/{device}")
    os.environ.pop("PWD", None)
    kernel.limit([(resource.RLIMIT_CORE, 1)])  # at 0, Linux still gives cores to a program that collects them
    kernel.limit(
        (kind, 0)
        for kind in (resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE)
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_DESCRIPTORS, MOST_DESCRIPTORS))
    for name in configuration["packages"]:
        importlib.import_module(name)


class Zygote:
    """Starts runs and reports how they end."""

    def __init__(self, control: socket.socket, host: int, configuration: dict[str, Any]) -> None:
        self._control, self._host = control, host
        self._calls = {name: kernel.Calls(base64.b64decode(code)) for name, code in configuration["filters"].items()}
        self._plans: dict[bytes, Plan] = {}
        self._runs: dict[int, Run] = {}  # by both descriptors
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        with open("/proc/self/statm") as file:
            self._size = int(file.read().split()[0]) * resource.getpagesize()

    def serve(self) -> NoReturn:
        """Do as the host says, until it says no more. What then still runs ends with this process, the first of all."""
        self._poll = select.poll()
        for watched in (self._control.fileno(), self._host):  # first, so that no descriptor of an old run is taken for
            self._poll.register(watched, select.POLLIN)  # one of a run that has just been started
        os.dup2(0, 2)  # complaints went to a file of the host's: runs would hear of one another in it
        self._control.send(b"{}")
        gc.collect()
        gc.freeze()
        gc.disable()  # in a run it is on
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._host:
                    os._exit(0)
                if descriptor == self._control.fileno():
                    message, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE, MOST_HANDLES)
                    if not message:
                        os._exit(0)
                    self._start(self._plans.get(message) or self._plan(message), descriptors)
                elif run := self._runs.get(descriptor):
                    if descriptor == run.handle:
                        self._bury(run)
                    else:
                        self._poll.unregister(descriptor)
                        os.kill(run.pid, signal.SIGKILL)  # the first of its namespace: all in it end

    def _plan(self, message: bytes) -> Plan:
        request = json.loads(message)
        limits = (
            (resource.RLIMIT_AS, request["memory"] + self._size),
            (resource.RLIMIT_CPU, request["cpu"]),
            (resource.RLIMIT_FSIZE, request["disk"]),
            (resource.RLIMIT_NOFILE, request["files"]),
            (resource.RLIMIT_NPROC, request["tasks"]),
            (resource.RLIMIT_SIGPENDING, request["tasks"]),
        )
        folder = f"size={request['disk']},nr_inodes={request['inodes']},mode=0700".encode()
        plan = Plan(tuple(request["handles"]), _KINDS[request["kind"]], limits, folder, self._calls[request["calls"]])
        if len(self._plans) < MOST_PLANS:
            self._plans[message] = plan
        return plan

    def _start(self, plan: Plan, descriptors: list[int]) -> None:
        status, *given = descriptors
        try:
            kernel.unshare(kernel.NEW_PID)
            child = os.fork()
            if child == 0:
                _be(plan, given)
            kernel.enter(self._own, kernel.NEW_PID)
            run = Run(child, os.pidfd_open(child), status)
        except OSError as error:
            os.write(status, json.dumps({"failed": str(error)}).encode())
            os._exit(1)  # what is wrong here may be so for all later runs
        finally:
            for descriptor in given:
                os.close(descriptor)
        for descriptor in (run.handle, status):
            self._runs[descriptor] = run
            self._poll.register(descriptor, select.POLLIN)

    def _bury(self, run: Run) -> None:
        _, status, usage = os.wait4(run.pid, 0)
        report = {"code": os.waitstatus_to_exitcode(status), "cpu": usage.ru_utime + usage.ru_stime}
        with contextlib.suppress(OSError):  # the host may have lost interest
            os.write(run.status, json.dumps(report).encode())
        for descriptor in (run.handle, run.status):
            del self._runs[descriptor]
            with contextlib.suppress(KeyError):
                self._poll.unregister(descriptor)
            os.close(descriptor)


def _be(plan: Plan, given: list[int]) -> NoReturn:
    """Become the run: the first process of its namespace, without rights, and with nothing else in its hands."""
    code = 70
    try:
        gc.enable()
        channel = _move_in(plan, given)
        code = plan.run(channel)
    finally:
        os._exit(code)


def _move_in(plan: Plan, given: list[int]) -> Channel:
    last = CHANNEL
    for name, descriptor in zip(plan.handles[1:], given, strict=True):
        os.dup2(descriptor, PLACES[name], inheritable=PLACES[name] < CHANNEL)
        last = max(last, PLACES[name])
    os.closerange(last + 1, MOST_DESCRIPTORS)
    channel = Channel(CHANNEL)
    try:
        kernel.unshare(kernel.NEW_USER | kernel.NEW_MOUNTS | kernel.NEW_IPC)
        kernel.map_user(kernel.USER, kernel.USER)
        kernel.mount(b"tmpfs", b"/tmp", b"tmpfs", kernel.NO_SUID | kernel.NO_DEVICES, plan.folder)
        kernel.mount(NOTHING, b"/proc", None, kernel.BIND, None)
        os.chdir("/tmp")
        os.setsid()
        kernel.limit(plan.limits)
        kernel.give_up_capabilities()
        plan.calls.restrict()
    except BaseException as error:
        channel.send({"failed": f"{type(error).__name__}: {error}"})
        raise
    os.write(CHANNEL, READY)
    return channel


def _judge(channel: Channel) -> int:
    return serve_tests(channel, Channel(PEER))


_KINDS = {
    "program": run_program,
    "calls": serve_calls,
    "tests": _judge,
    "command": execute,
}

if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
