"""Where programs cannot be isolated it is said why, and where they can they see what they are given."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.sandbox import Sandbox, SandboxUnavailable, launch

SOURCE = Path(launch.__file__).parents[2]
ROOT = os.geteuid() == 0
REPORT = """
from guerdon.sandbox import Sandbox, SandboxUnavailable
try:
    with Sandbox() as box:
        print(box.run("print('ran')", deadline=5.0))
except SandboxUnavailable as error:
    print("UNAVAILABLE", error)
"""
COLLECTION = """
import sys
from guerdon.sandbox import Limits, Sandbox
from hostile_programs import attempt, ordinary_is_right, programs
with Sandbox(limits=Limits(memory=128 << 20, disk=4 << 20)) as box:
    for hostile in programs():
        if hostile.runs_here and hostile.name.startswith(tuple(sys.argv[1:])):
            for _ in range(hostile.times):
                outcome = attempt(box, hostile)
                if "ESCAPED" in outcome.text or outcome.rewarded or outcome.how not in hostile.must:
                    print(hostile.name, outcome)
            if not ordinary_is_right(box, hostile.run):
                print("after", hostile.name)
print("done")
"""


@pytest.fixture
def bubblewrap(tmp_path, monkeypatch):
    """A program in the place of bubblewrap."""

    def put(script):
        path = tmp_path / "bwrap"
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return put


@pytest.fixture(scope="module")
def anyone():
    """Run a script as a user with no rights, by the system's interpreter, since ours may lie in root's folder."""
    if not ROOT or shutil.which("setpriv") is None:
        pytest.skip("only root can become somebody else")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copytree(SOURCE / "guerdon", folder / "guerdon", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(__file__).with_name("hostile"), folder / "hostile")
    shutil.copy(Path(__file__).with_name("hostile_programs.py"), folder)
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    environment = {"PYTHONPATH": f"{folder}:{libraries}", "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}

    def run(script, *arguments, before=()):
        user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        return subprocess.run(
            [*user, *before, "/usr/bin/python3", "-c", script, *arguments],
            env=environment, capture_output=True, text=True, timeout=120, cwd="/", check=False,
        )  # fmt: skip

    try:
        able = run(REPORT)
        if able.stdout != "exit code 0\n":
            pytest.skip(f"no sandbox as another user: {(able.stdout + able.stderr).strip()[-300:]}")
        yield run
    finally:
        shutil.rmtree(folder)


def unavailable():
    """What is said where a sandbox does not start."""
    with Sandbox() as box, pytest.raises(SandboxUnavailable) as error:
        box.run("print('ESCAPED')", deadline=5.0)
    return str(error.value)


def test_without_bubblewrap_nothing_is_run(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "apt install bubblewrap" in unavailable()


def test_on_another_system_nothing_is_run(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "this is darwin" in unavailable()


def test_on_another_machine_nothing_is_run(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert "x86_64 and aarch64 only" in unavailable()


@pytest.mark.parametrize(
    "complaint",
    [
        "bwrap: No permissions to create new namespace, likely because the kernel does not allow it.",
        "bwrap: Creating new namespace failed: Operation not permitted",
        "bwrap: setting up uid map: Permission denied",
        "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted",
    ],
    ids=["namespaces", "creating", "map", "loopback"],
)
def test_where_namespaces_are_off_it_is_said_how_to_allow_them(complaint, bubblewrap, descendants):
    before = descendants()
    bubblewrap(f"echo '{complaint}' >&2\nexit 1\n")
    message = unavailable()
    assert complaint in message
    assert "sysctl kernel.unprivileged_userns_clone=1" in message
    assert "--cap-add SYS_ADMIN" in message
    assert not descendants() - before


def test_another_complaint_is_passed_on_without_advice(bubblewrap):
    bubblewrap("echo 'bwrap: Unknown option --perms' >&2\nexit 1\n")
    message = unavailable()
    assert "Unknown option --perms" in message
    assert "sysctl" not in message


def test_a_bubblewrap_that_hangs_is_given_up(bubblewrap, monkeypatch, descendants):
    monkeypatch.setattr(launch, "START", 0.3)
    before, files = descendants(), len(os.listdir("/proc/self/fd"))
    bubblewrap("exec sleep 60\n")
    assert "not ready within" in unavailable()
    assert not descendants() - before
    assert len(os.listdir("/proc/self/fd")) <= files


def test_a_bubblewrap_that_is_no_program_is_told(bubblewrap, tmp_path):
    bubblewrap("")
    (tmp_path / "bwrap").write_bytes(b"\x7fELF nonsense")
    assert "cannot be started" in unavailable()


@pytest.mark.skipif(not ROOT or shutil.which("setpriv") is None, reason="only root can take rights from itself")
def test_root_without_the_right_to_isolate_is_told_so():
    less = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]
    ran = subprocess.run([*less, sys.executable, "-c", REPORT], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.startswith("UNAVAILABLE root without CAP_SYS_ADMIN"), ran.stdout + ran.stderr
    assert "run as an ordinary user" in ran.stdout


def test_an_ordinary_user_without_namespaces_is_told_so(anyone):
    off = ["unshare", "-U", "-r", "sh", "-c", 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"', "sh"]
    ran = anyone(REPORT, before=off)
    assert ran.stdout.startswith("UNAVAILABLE"), ran.stdout + ran.stderr
    assert "user.max_user_namespaces > 0" in ran.stdout


def test_packages_can_be_imported_with_what_they_need_and_others_cannot(box):
    check = "import importlib.util as u; print([n for n in ('numpy', 'mpmath', 'yaml', 'torch') if u.find_spec(n)])"
    assert box.run(check, deadline=5.0).stdout == b"[]\n"
    with Sandbox(packages=["numpy", "json"]) as own:
        assert own.run(check, deadline=5.0).stdout == b"['numpy']\n"
        ran = own.run(
            "import sys; warm = 'numpy' in sys.modules; import numpy; print(warm, numpy.arange(3).sum())", deadline=5.0
        )
        assert ran.stdout == b"True 3\n"
        write = own.run("import numpy; open(numpy.__file__, 'a')", deadline=5.0)
        assert b"Read-only file system" in write.stderr or b"Permission denied" in write.stderr
        with own.load("import numpy\ndef f(a):\n    return a * 2", deadline=5.0) as program:
            assert program.call("f", [1], deadline=5.0) == [1, 1]


def test_what_packages_need_is_found():
    needed = {"typing_extensions", "attr"}
    found = launch._contents(["jsonschema"])
    requirements = " ".join(importlib.metadata.requires("jsonschema"))
    assert {"jsonschema", "referencing", "rpds"} <= set(found) or "referencing" not in requirements
    assert needed & set(found)
    assert "pytest" not in found


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(GuerdonError, match="pip install nonesuch"), Sandbox(packages=["nonesuch"]) as box:
        box.check()


def test_a_tool_that_is_not_installed_is_named():
    with (
        pytest.raises(GuerdonError, match="the command 'nonesuch' is not installed"),
        Sandbox(tools=["nonesuch"]) as box,
    ):
        box.check()


def test_two_sandboxes_have_nothing_in_common(box):
    with Sandbox() as other:
        assert other.run("open('/tmp/mark', 'w').close(); print(1)", deadline=5.0).fine
        assert box.run("import os; print(os.listdir('/tmp'))", deadline=5.0).stdout == b"[]\n"


def test_the_callers_secrets_are_in_no_process_of_the_sandboxs(isolation, monkeypatch, descendants):
    monkeypatch.setenv("GUERDON_TEST_SECRET", "hunter2")
    before = descendants()
    with Sandbox() as own:
        own.check()
        processes = descendants() - before
        assert len(processes) == 3
        for pid in processes:
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except PermissionError:
                continue  # which is what it would be to a program, too
            assert b"hunter2" not in environment
            assert b"GUERDON_TEST_SECRET" not in environment
        assert own.run("import os; print('GUERDON_TEST_SECRET' in os.environ)", deadline=5.0).stdout == b"False\n"


def test_as_root_each_sandbox_is_a_user_of_its_own(box, descendants):
    if not ROOT:
        pytest.skip("not root")
    with Sandbox() as other:
        other.check()
        users = [
            {os.stat(f"/proc/{pid}").st_uid for pid in descendants(sandbox._zygote._bubblewrap.pid)}
            for sandbox in (box, other)
        ]
    assert [len(each) for each in users] == [1, 1]
    assert users[0] != users[1]
    assert min(users[0] | users[1]) > 1_000_000


@pytest.mark.processes
def test_an_ordinary_user_is_as_safe(anyone):
    """Another user and another interpreter: hostile programs, and a right one after each."""
    chosen = """
        call children crash devices disk executes fork judged links memory network poison reads shell signals terminal
        who writes
    """
    ran = anyone(COLLECTION, *chosen.split())
    assert (ran.stdout, ran.returncode) == ("done\n", 0), ran.stdout + ran.stderr
