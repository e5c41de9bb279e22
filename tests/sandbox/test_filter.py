"""The seccomp filter does to each system call what its table says, and the table's numbers are the kernel's."""

import errno
import re
import struct
from pathlib import Path

import pytest

from guerdon.sandbox import filter as calls

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64
HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
CLONE_VM, CLONE_SIGHAND, CLONE_THREAD, SIGCHLD = 0x100, 0x800, 0x10000, 17
NAMESPACES = {
    "mounts": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000,
    "pid": 0x20000000, "net": 0x40000000,
}  # fmt: skip
FORBIDDEN = {  # numbers on x86_64 and aarch64, from the kernel's headers
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "memfd_create": (319, 279), "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "bpf": (321, 280),
    "perf_event_open": (298, 241), "io_uring_setup": (425, 425), "userfaultfd": (323, 282), "personality": (135, 92),
    "setuid": (105, 146), "setgroups": (116, 159), "mknodat": (259, 33), "init_module": (175, 105),
    "kexec_load": (246, 104), "reboot": (169, 142), "open_by_handle_at": (304, 265),
}  # fmt: skip


def decide(program, number, *arguments, architecture):
    """What a classic BPF program returns, instruction by instruction (linux/filter.h, linux/seccomp.h)."""
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, architecture, 0, *(*arguments, *[0] * 6)[:6])
    at, accumulator = 0, 0
    while True:
        code, if_true, if_false, operand = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        match code:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                (accumulator,) = struct.unpack_from("=I", data, operand)
            case 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
                at += if_true if accumulator == operand else if_false
            case 0x35:  # BPF_JMP | BPF_JGE | BPF_K
                at += if_true if accumulator >= operand else if_false
            case 0x45:  # BPF_JMP | BPF_JSET | BPF_K
                at += if_true if accumulator & operand else if_false
            case 0x06:  # BPF_RET | BPF_K
                return operand
            case _:
                raise AssertionError(f"instruction {code:#x}")


def table(text, machine):
    """Numbers by name."""
    rows = re.findall(r"(\w+) (\d+|-) (\d+|-)", text)
    return {name: int(n) for name, *numbers in rows if (n := numbers[machine == "aarch64"]) != "-"}


@pytest.fixture(params=ARCHITECTURES)
def machine(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["processes", "threads"])
def fork(request):
    return request.param


@pytest.fixture
def verdict(machine, fork):
    program = calls.program(fork=fork, machine=machine)
    return lambda number, *arguments: decide(program, number, *arguments, architecture=ARCHITECTURES[machine])


def test_every_number_is_answered_as_the_table_says(verdict, machine, fork):
    allowed, forbidden = table(calls._ALLOWED, machine), table(calls._FORBIDDEN, machine)
    expected = dict.fromkeys(allowed.values(), ALLOW) | dict.fromkeys(forbidden.values(), ERRNO | errno.EPERM)
    special = {
        "x86_64": {56: "clone", 57: "fork", 58: "fork", 53: "socketpair"},
        "aarch64": {220: "clone", 199: "socketpair"},
    }
    for number in (*range(1024), 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        match special[machine].get(number):
            case "fork" | "clone":
                wanted = ALLOW if fork else ERRNO | errno.EAGAIN
            case "socketpair":
                wanted = ERRNO | errno.EPERM  # of family 0
            case _:
                wanted = expected.get(number, ERRNO | errno.ENOSYS)
        assert verdict(number) == wanted, number


def test_numbers_of_the_x32_convention_do_not_exist(verdict):
    for number in range(1024):
        for high in (0x40000000, 0xC0000000):
            assert verdict(high | number) == ERRNO | errno.ENOSYS


@pytest.mark.parametrize("foreign", [0x40000003, 0x40000028, 0xC000003E, 0xC00000B7, 0, 0xFFFFFFFF], ids=hex)
def test_calls_by_another_architectures_convention_kill(machine, fork, foreign):
    program = calls.program(fork=fork, machine=machine)
    if foreign != ARCHITECTURES[machine]:
        assert {decide(program, number, architecture=foreign) for number in range(512)} == {KILL}


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("others", [0, SIGCHLD, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD, 0xFFFF], ids=hex)
def test_no_process_or_thread_is_made_in_a_new_namespace(verdict, machine, namespace, others):
    number = {"x86_64": 56, "aarch64": 220}[machine]
    assert verdict(number, NAMESPACES[namespace] | others) == ERRNO | errno.EPERM


def test_threads_may_be_started_and_processes_where_that_is_wanted(verdict, machine, fork):
    number = {"x86_64": 56, "aarch64": 220}[machine]
    assert verdict(number, 0x3D0F00) == ALLOW  # glibc's pthread_create
    refused = ALLOW if fork else ERRNO | errno.EAGAIN
    assert verdict(number, 0x01200011) == refused  # glibc's fork
    assert verdict(number, 0x00004111) == refused  # posix_spawn: CLONE_VM | CLONE_VFORK
    assert verdict(number, CLONE_VM | CLONE_SIGHAND) == refused


def test_only_local_socket_pairs_can_be_made(verdict, machine):
    number = {"x86_64": 53, "aarch64": 199}[machine]
    for family in range(64):
        assert verdict(number, family) == (ALLOW if family == 1 else ERRNO | errno.EPERM)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_leads_out_is_forbidden_by_name(name, verdict, machine):
    assert verdict(FORBIDDEN[name][machine == "aarch64"]) == ERRNO | errno.EPERM


@pytest.mark.parametrize("number", [424, 426, 427, 428, 429, 430, 431, 432, 433, 434, 435, 438, 440, 442, 448, 463])
def test_what_is_new_does_not_exist(verdict, number):
    """pidfds, io_uring, the mount calls, clone3, process_madvise, setxattrat: one number on all machines."""
    assert verdict(number) == ERRNO | errno.ENOSYS


def test_the_numbers_are_the_kernels(machine):
    header = Path(HEADERS[machine])
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    known = {name: int(n) for name, n in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())}
    same = {"fadvise64": "fadvise64", "newfstatat": "fstatat" if machine == "aarch64" else "newfstatat"}
    ours = table(calls._ALLOWED, machine) | table(calls._FORBIDDEN, machine)
    ours |= {name: n for name, numbers in calls._SPECIAL.items() if (n := numbers[machine == "aarch64"])}
    found = {name: known.get(same.get(name, name)) for name in ours}
    newest = max(known.values())  # of an older header
    wrong = {
        name: (ours[name], n)
        for name, n in found.items()
        if n != ours[name] and not (n is None and ours[name] > newest)
    }
    assert not wrong
    assert len(found) > 200


def test_no_call_is_listed_twice(machine):
    allowed, forbidden = table(calls._ALLOWED, machine), table(calls._FORBIDDEN, machine)
    special = [numbers[machine == "aarch64"] for numbers in calls._SPECIAL.values()]
    numbers = [*allowed.values(), *forbidden.values(), *filter(None, special)]
    assert len(set(numbers)) == len(numbers)


def test_a_program_fits_the_kernels_limit(machine, fork):
    program = calls.program(fork=fork, machine=machine)
    assert len(program) % 8 == 0
    assert len(program) // 8 <= 4096  # BPF_MAXINSNS


def test_another_machine_is_refused(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert not calls.supported()
    with pytest.raises(KeyError):
        calls.program(fork=False)
