"""This process's connection to Ray: the user's, or one that the first engine makes and the last one ends."""

from __future__ import annotations

import os
import threading
from typing import Any

from guerdon.core.errors import GuerdonError, MissingExtra


class Connection:
    """Ray allows a process one connection, which several engines and the user share; it ends where it was made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: set[int] = set()
        self._process = os.getpid()
        self._made: tuple[str, str] | None = None  # the session that an engine began

    def join(self, user: object, *, cpus: int | None) -> None:
        """Connect, unless this process is: to `RAY_ADDRESS`, or else to a Ray that is started on this machine.

        Args:
            user: who is going to `leave`.
            cpus: how many CPUs a Ray that is started has. Default: the machine's.

        Raises:
            MissingExtra: if Ray is not installed.
            GuerdonError: if there is no cluster at the address, or in a fork of a process that was connected.
        """
        ray = library()
        with self._lock:
            if self._users and self._process != os.getpid():
                raise GuerdonError(
                    "Ray does not work in a fork of a process that is connected to it: "
                    "start this process with 'spawn', or make the engine with backend='local'"
                )
            if not ray.is_initialized():
                _init(ray, os.environ.get("RAY_ADDRESS"), cpus)
                self._made = _session(ray)
            self._process = os.getpid()
            self._users.add(id(user))

    def leave(self, user: object) -> None:
        """Disconnect, if nobody else uses a connection that was made by `join`; a Ray it started ends."""
        ray = library()
        with self._lock:
            self._users.discard(id(user))
            if self._users:
                return
            made, self._made = self._made, None
            if made is not None and ray.is_initialized() and _session(ray) == made:
                ray.shutdown()


CONNECTION = Connection()


def library() -> Any:
    """Ray.

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtra("Engine(backend='ray')", "ray") from None
    return ray


def _init(ray: Any, address: str | None, cpus: int | None) -> None:
    try:
        if address:
            ray.init(address=address)
        else:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False)
    except Exception as error:
        where = f"connect to Ray at {address} (RAY_ADDRESS)" if address else "start Ray on this machine"
        raise GuerdonError(f"cannot {where}: {error}") from error


def _session(ray: Any) -> tuple[str, str]:
    here = ray.get_runtime_context()
    return here.get_node_id(), here.get_job_id()
