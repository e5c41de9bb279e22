"""What the tests of the sandbox share. The hostile programs are never imported, not even to look for doctests."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guerdon.sandbox import Limits, Sandbox, SandboxUnavailable

collect_ignore_glob = ["hostile/*"]
sys.path.append(str(Path(__file__).parent))  # for hostile_programs.py, which the benchmark reads, too


@pytest.fixture(scope="session")
def isolation() -> None:
    """What starts sandboxes is skipped where this machine has none."""
    try:
        with Sandbox() as sandbox:
            sandbox.check()
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def box(isolation: None) -> Iterator[Sandbox]:
    """One sandbox for the tests of a module, so that what one run leaves behind is met by the next."""
    with Sandbox(limits=Limits(memory=128 << 20, disk=4 << 20)) as sandbox:
        sandbox.check()
        yield sandbox


@pytest.fixture(scope="session")
def descendants() -> Callable[..., set[int]]:
    """The processes that a process has started, and those that they have; zombies are none."""

    def state(pid: str) -> tuple[int, str] | None:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return None
        return int(fields[1]), fields[0]

    def find(pid: int = 0) -> set[int]:
        parents = {int(name): state(name) for name in os.listdir("/proc") if name.isdigit()}
        found, before = {pid or os.getpid()}, set()
        while found != before:
            before = set(found)
            found |= {child for child, known in parents.items() if known and known[0] in found and known[1] != "Z"}
        return found - {pid or os.getpid()}

    return find


@pytest.fixture(scope="session")
def ends() -> Callable[..., bool]:
    """Whether processes end within some seconds; a zombie has ended."""

    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    def wait(pids: set[int], seconds: float = 5.0) -> bool:
        end = time.monotonic() + seconds
        while any(map(alive, pids)) and time.monotonic() < end:
            time.sleep(0.02)
        return not any(map(alive, pids))

    return wait
