"""The few things that Linux can do and Python 3.11's `os` cannot: namespaces, mounts, capabilities, filters."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable, Iterable
from typing import Any

NEW_USER, NEW_PID, NEW_MOUNTS, NEW_IPC = 0x10000000, 0x20000000, 0x00020000, 0x08000000
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXECUTION, REMOUNT = 1, 2, 4, 8, 32
BIND, RECURSIVE, PRIVATE = 1 << 12, 1 << 14, 1 << 18
USER = 1000  # what every user inside is called

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
_SECCOMP_MODE_FILTER = 2


def _function(name: str, *types: Any) -> Callable[..., None]:
    """A function of the C library's that raises when it fails. It is looked up now, and not after each fork."""
    function = getattr(_libc, name)
    function.argtypes = types

    def call(*arguments: Any) -> None:
        if function(*arguments) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")

    return call


_libc = ctypes.CDLL(None, use_errno=True)
_long, _text, _address = ctypes.c_ulong, ctypes.c_char_p, ctypes.c_void_p

unshare = _function(
    "unshare", ctypes.c_int
)  # (namespaces): new ones for this process; of process ids, for its next child
enter = _function("setns", ctypes.c_int, ctypes.c_int)  # (descriptor, kind): those of a descriptor, likewise
mount = _function("mount", _text, _text, _text, _long, _text)  # (what, where, kind, flags, options)
_prctl = _function("prctl", ctypes.c_int, _long, _long, _long, _long)
_capset = _function("capset", _address, _address)
_THIS_PROCESS = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
_NO_CAPABILITIES = (ctypes.c_uint32 * 6)()


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_void_p))


class Calls:
    """A filter: the system calls that a process and its children may make."""

    def __init__(self, program: bytes) -> None:
        self._program = ctypes.create_string_buffer(program, len(program))
        self._lines = _Filter(len(program) // 8, ctypes.addressof(self._program))
        self._address = ctypes.addressof(self._lines)

    def restrict(self) -> None:
        """Hold this process to it from now on."""
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, self._address, 0, 0)


def become(user: int) -> None:
    """Turn from root into a user that nobody else is."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    _prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # or /proc/self would still be root's


def make_read_only(path: str) -> None:
    """Let nobody in this mount namespace change what is mounted on a path; devices can still be written to."""
    kept = os.statvfs(path).f_flag & (NO_SUID | NO_DEVICES | NO_EXECUTION)  # which may not be taken off
    mount(b"none", path.encode(), None, REMOUNT | BIND | READ_ONLY | kept, None)


def map_user(user: int, group: int) -> None:
    """In a new user namespace: be `USER`, who is `user` outside."""
    for path, content in (
        ("/proc/self/setgroups", b"deny"),
        ("/proc/self/uid_map", b"%d %d 1" % (USER, user)),
        ("/proc/self/gid_map", b"%d %d 1" % (USER, group)),
    ):
        file = os.open(path, os.O_WRONLY)
        os.write(file, content)
        os.close(file)


def give_up_capabilities() -> None:
    """Hold no capability, and never gain one again."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _capset(_THIS_PROCESS, _NO_CAPABILITIES)


def limit(limits: Iterable[tuple[int, int]]) -> None:
    """Set resource limits, soft and hard: pairs of a kind and a value."""
    for kind, value in limits:
        resource.setrlimit(kind, (value, value))
