"""Starting a sandbox: bubblewrap, what is mounted in it, and a warm interpreter."""

from __future__ import annotations

import base64
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from guerdon.core.errors import GuerdonError
from guerdon.sandbox import filter as calls, inside

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "PYTHONUTF8": "1",
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",  # or each thread takes 64 MiB of the memory that a program may have
}  # fmt: skip
START = 30.0  # seconds a sandbox may take to start
AS_ROOT = ("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")  # to turn into someone else
_PACKAGES = "/packages"
_CODE = "/guerdon"
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64", "/lib32", "/usr/local/lib")
_FILES = ("/etc/ld.so.cache", "/usr/share/zoneinfo")
_BESIDE = {"yosys": "share/yosys"}  # what tools read; they look for it from where /proc/self/exe says they are
_SPARE_USERS = 60_000  # at the end of the user ids there are, from which each sandbox takes one


class SandboxUnavailable(GuerdonError):
    """Generated programs cannot be isolated on this machine, so they are not run."""


def launch(packages: Sequence[str], tools: Sequence[str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start bubblewrap with a warm interpreter in it, and wait until it is ready.

    Args:
        packages: names of packages that programs may import, besides the standard library.
        tools: names of commands that may be executed.

    Returns:
        Its process, and the socket on which it takes requests; it ends when that is closed.

    Raises:
        SandboxUnavailable: if this machine does not isolate.
        GuerdonError: if a package or a tool is not installed here.
    """
    bubblewrap = _bubblewrap()
    user = _spare_user()
    with ExitStack() as opened, tempfile.TemporaryFile() as complaints:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        opened.enter_context(theirs)
        host = os.pidfd_open(os.getpid())
        opened.callback(os.close, host)
        code = [(name, _readable(content, opened)) for name, content in _code()]
        start = (
            f"import sys; sys.path[:0] = [{_CODE!r}, {_PACKAGES!r}]; "
            "from guerdon.sandbox.inside.zygote import main; sys.path.pop(0); "
            f"main({theirs.fileno()}, {host})"
        )
        command = [
            bubblewrap,
            *(("--unshare-user",) if user is None else AS_ROOT),
            *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
            *("--hostname", "sandbox", "--new-session", "--as-pid-1", "--clearenv"),
            *(part for name, value in ENVIRONMENT.items() for part in ("--setenv", name, value)),
            *_mounts(packages, tools),
            *(part for name, file in code for part in ("--perms", "0444", "--ro-bind-data", file, f"{_CODE}/{name}")),
            *("--remount-ro", "/"),
            *(_interpreter(), "-I", "-S", "-B", "-c", start),
        ]  # fmt: skip
        try:
            process = subprocess.Popen(
                command, env={}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=complaints,
                pass_fds=(theirs.fileno(), host, *(int(file) for _, file in code)), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise SandboxUnavailable(f"{bubblewrap} cannot be started: {error}") from error
        theirs.close()
        failure = _first_word(ours, _configuration(user, packages))
        if failure is not None:
            ours.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(2)
            process.kill()
            process.wait()
            complaints.seek(0)
            raise SandboxUnavailable(_explained(failure, complaints.read(4000).decode("utf-8", "replace")))
    return process, ours


def _first_word(ours: socket.socket, configuration: bytes) -> str | None:
    """What is wrong, if anything is."""
    try:
        ours.settimeout(START)
        ours.send(configuration)
        word = json.loads(ours.recv(1 << 16) or b'{"failed": ""}')
        ours.settimeout(None)
    except TimeoutError:
        return f"it was not ready within {START:.0f} s"
    except OSError as error:
        return str(error)
    failed: str | None = word.get("failed")
    return failed


def _configuration(user: int | None, packages: Sequence[str]) -> bytes:
    filters = {
        name: base64.b64encode(calls.program(fork=name == "processes")).decode() for name in ("threads", "processes")
    }
    return json.dumps({"user": user, "packages": list(packages), "filters": filters}).encode()


def _explained(failure: str, complaints: str) -> str:
    said = " · ".join(line for line in (failure, *complaints.strip().splitlines()[-3:]) if line) or "it said nothing"
    remedy = ""
    if re.search(r"namespace|[Pp]ermission|not permitted|uid map|EPERM|loopback", said):
        remedy = (
            "; unprivileged user namespaces seem to be off: allow them (sysctl kernel.unprivileged_userns_clone=1, "
            "user.max_user_namespaces > 0, kernel.apparmor_restrict_unprivileged_userns=0), in a container run it with "
            "--security-opt seccomp=unconfined --security-opt apparmor=unconfined or --cap-add SYS_ADMIN"
        )
    return f"the sandbox did not start: {said}{remedy}"


def _bubblewrap() -> str:
    if not sys.platform.startswith("linux"):
        raise SandboxUnavailable(f"generated programs are isolated by Linux only, and this is {sys.platform}")
    if not calls.supported():
        raise SandboxUnavailable("generated programs are isolated on x86_64 and aarch64 only")
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxUnavailable("bubblewrap is not installed: apt install bubblewrap (or dnf, apk, pacman)")
    return found


def _spare_user() -> int | None:
    """A user id that is nobody's, of those root may become; None where we are not root and stay who we are.

    Limits on processes count per user and do not bind root: each sandbox is its own user.
    """
    if os.geteuid() != 0:
        return None
    with open("/proc/self/status") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    with open("/proc/self/uid_map") as file:
        first, outside, count = max((list(map(int, line.split())) for line in file), key=lambda row: row[2])
    if effective >> 21 & 1 and count > _SPARE_USERS:  # CAP_SYS_ADMIN
        return min(first + count - 2, 2**31 - 2) - int.from_bytes(os.urandom(4), "big") % _SPARE_USERS
    if outside == 0 and first == 0:
        raise SandboxUnavailable("root without CAP_SYS_ADMIN cannot isolate: run as an ordinary user")
    return None


def _interpreter() -> str:
    return os.path.realpath(sys.executable)


def _mounts(packages: Sequence[str], tools: Sequence[str]) -> Iterator[str]:
    """What there is to read: libraries, the interpreter and what it may import; and nothing to write."""
    # Folders that bubblewrap makes for a file to stand in would be closed to the sandbox's own user.
    files = (
        _interpreter(),
        *_FILES,
        *(f"{folder}/x" for folder in ("/usr/bin", "/dev", "/tmp", "/nothing", _PACKAGES)),
        *(f"{_CODE}/{n}" for n, _ in _code()),
    )
    for folder in sorted({str(parent) for file in files for parent in Path(file).parents} - {"/"}):
        yield from ("--perms", "0755", "--dir", folder)
    for path in _LIBRARIES:
        yield from ("--symlink", os.readlink(path), path) if os.path.islink(path) else ("--ro-bind-try", path, path)
    libraries = os.path.join(os.path.realpath(sys.base_prefix), "lib")
    if not libraries.startswith(_LIBRARIES):
        yield from ("--ro-bind", libraries, libraries)
    if not _interpreter().startswith((*_LIBRARIES, libraries)):
        yield from ("--ro-bind", _interpreter(), _interpreter())
    for path in _FILES:
        yield from ("--ro-bind-try", path, path)
    for folder in _others_packages(libraries):
        yield from ("--tmpfs", folder, "--remount-ro", folder)
    for name, place in sorted(_contents(packages).items()):
        yield from ("--ro-bind", str(place), f"{_PACKAGES}/{name}")
    for tool in tools:
        installed = shutil.which(tool)
        if installed is None:
            raise GuerdonError(f"the command {tool!r} is not installed")
        yield from ("--ro-bind", os.path.realpath(installed), f"/usr/bin/{tool}")
        if beside := _BESIDE.get(tool):  # a run's /proc is /nothing
            yield from ("--ro-bind-try", str(Path(installed).resolve().parents[1] / beside), f"/usr/{beside}")
            yield from ("--perms", "0755", "--dir", "/nothing/self")
            yield from ("--symlink", f"/usr/bin/{tool}", "/nothing/self/exe")
    yield from ("--symlink", "usr/bin", "/bin", "--proc", "/proc")
    for device in ("null", "zero", "full", "random", "urandom"):
        yield from ("--dev-bind", f"/dev/{device}", f"/dev/{device}")


def _others_packages(libraries: str) -> Iterator[str]:
    """Folders with packages that programs are not given."""
    standard = sysconfig.get_path("stdlib")
    candidates = [f"{os.path.realpath(standard)}/site-packages", "/usr/lib/python3/dist-packages"]
    for root in {libraries, "/usr/local/lib", "/usr/lib"}:
        candidates += [str(p) for kind in ("site", "dist") for p in Path(root).glob(f"python3*/{kind}-packages")]
    yield from (path for path in dict.fromkeys(candidates) if os.path.isdir(path) and not os.path.islink(path))


def _contents(packages: Iterable[str]) -> dict[str, Path]:
    """The folders and files of packages and of what they need, by name.

    Raises:
        GuerdonError: if one is not installed.
    """
    found: dict[str, Path] = {}
    distributions = importlib.metadata.packages_distributions() if packages else {}
    wanted: list[str] = []
    for name in packages:
        if name in sys.stdlib_module_names:
            continue
        if name not in distributions:
            raise GuerdonError(f"programs are to import {name!r}, which is not installed here: pip install {name}")
        wanted += distributions[name]
    seen: set[str] = set()
    while wanted:
        distribution = importlib.metadata.distribution(wanted.pop())
        if distribution.name in seen:
            continue
        seen.add(distribution.name)
        for file in distribution.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and top not in found:
                found[top] = Path(str(distribution.locate_file(top)))
        for requirement in distribution.requires or ():
            name, _, marker = requirement.partition(";")
            with suppress(importlib.metadata.PackageNotFoundError):
                if "extra" not in marker:
                    wanted.append(importlib.metadata.distribution(re.split(r"[^A-Za-z0-9._-]", name.strip())[0]).name)
    return found


def _code() -> Iterator[tuple[str, bytes]]:
    """The files that run inside, as the package they are here."""
    for package in ("guerdon", "guerdon/sandbox"):
        yield f"{package}/__init__.py", b""
    for path in sorted(Path(inside.__path__[0]).glob("*.py")):
        yield f"guerdon/sandbox/inside/{path.name}", path.read_bytes()


def _readable(content: bytes, opened: ExitStack) -> str:
    """The descriptor of a file with some content."""
    file = opened.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 -- the stack closes it
    file.write(content)
    file.seek(0)
    return str(file.fileno())
