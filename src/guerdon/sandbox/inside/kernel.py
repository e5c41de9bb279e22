"""The few things that Linux can do and Python 3.11's `os` cannot: namespaces, mounts, capabilities, filters."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterable
from typing import NoReturn

NEW_USER, NEW_PID, NEW_MOUNTS, NEW_IPC, NEW_UTS = 0x10000000, 0x20000000, 0x00020000, 0x08000000, 0x04000000
NO_SUID, NO_DEVICES, BIND, RECURSIVE, PRIVATE = 2, 4, 1 << 12, 1 << 14, 1 << 18
USER = 1000  # what every user inside is called

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38

_libc = ctypes.CDLL(None, use_errno=True)


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_void_p))


def unshare(namespaces: int) -> None:
    """Move this process into new namespaces; of process ids, its next child."""
    if _libc.unshare(namespaces) < 0:
        _fail("unshare")


def enter(namespace: int, kind: int) -> None:
    """Move this process, or of process ids its next child, into the namespace of a descriptor."""
    if _libc.setns(namespace, kind) < 0:
        _fail("setns")


def mount(what: bytes, where: bytes, kind: bytes | None, flags: int, options: bytes | None = None) -> None:
    """Mount a file system, or with `BIND` a folder, on a folder."""
    if _libc.mount(what, where, kind, ctypes.c_ulong(flags), options) < 0:
        _fail(f"mount {where.decode()}")


def become(user: int) -> None:
    """Turn from root into a user that nobody else is."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    _prctl(_PR_SET_DUMPABLE, 1)  # or /proc/self would still be root's


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
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if _libc.capset(_THIS_PROCESS, _NO_CAPABILITIES) < 0:
        _fail("capset")


class Calls:
    """A filter: the system calls that a process and its children may make."""

    def __init__(self, program: bytes) -> None:
        self._program = ctypes.create_string_buffer(program, len(program))
        self._lines = _Filter(len(program) // 8, ctypes.addressof(self._program))
        self._address = ctypes.c_ulong(ctypes.addressof(self._lines))

    def restrict(self) -> None:
        """Hold this process to it from now on."""
        if _libc.prctl(_PR_SET_SECCOMP, _FILTER, self._address, _ZERO, _ZERO) < 0:
            _fail("seccomp")


def limit(limits: Iterable[tuple[int, int]]) -> None:
    """Set resource limits, soft and hard: pairs of a kind and a value."""
    for kind, value in limits:
        resource.setrlimit(kind, (value, value))


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(argument), _ZERO, _ZERO, _ZERO) < 0:
        _fail(f"prctl {option}")


def _fail(call: str) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, f"{call}: {os.strerror(number)}")


_THIS_PROCESS = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
_NO_CAPABILITIES = (ctypes.c_uint32 * 6)()
_ZERO, _FILTER = ctypes.c_ulong(0), ctypes.c_ulong(2)  # SECCOMP_MODE_FILTER
