"""The system calls that a generated program may make, as a seccomp filter.

What is not listed does not exist (ENOSYS), or is forbidden (EPERM) where a program should read that in its
error. There is no network, no namespace, no mount, no tracing, no key ring, no shared memory that outlives
its process or escapes its memory limit, and none of the kernel's newer machinery (io_uring, bpf, userfaultfd).
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Mapping

# name, its number on x86_64 and on aarch64 (Linux: asm/unistd_64.h, asm-generic/unistd.h)
_ALLOWED = """
read 0 63; write 1 64; readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68; preadv 295 69; pwritev 296 70;
preadv2 327 286; pwritev2 328 287; open 2 -; openat 257 56; creat 85 -; close 3 57; close_range 436 436;
lseek 8 62; stat 4 -; fstat 5 80; lstat 6 -; newfstatat 262 79; statx 332 291; statfs 137 43; fstatfs 138 44;
access 21 -; faccessat 269 48; faccessat2 439 439; readlink 89 -; readlinkat 267 78; getcwd 79 17; chdir 80 49;
fchdir 81 50; getdents 78 -; getdents64 217 61; mkdir 83 -; mkdirat 258 34; rmdir 84 -; unlink 87 -;
unlinkat 263 35; rename 82 -; renameat 264 38; renameat2 316 276; link 86 -; linkat 265 37; symlink 88 -;
symlinkat 266 36; chmod 90 -; fchmod 91 52; fchmodat 268 53; fchmodat2 452 452; chown 92 -; fchown 93 55;
lchown 94 -; fchownat 260 54; utime 132 -; utimes 235 -; utimensat 280 88; futimesat 261 -; truncate 76 45;
ftruncate 77 46; fallocate 285 47; fsync 74 82; fdatasync 75 83; sync_file_range 277 84; fadvise64 221 223;
readahead 187 213; copy_file_range 326 285; sendfile 40 71; splice 275 76; tee 276 77; pipe 22 -; pipe2 293 59;
dup 32 23; dup2 33 -; dup3 292 24; fcntl 72 25; flock 73 32; ioctl 16 29; poll 7 -; ppoll 271 73; select 23 -;
pselect6 270 72; epoll_create 213 -; epoll_create1 291 20; epoll_ctl 233 21; epoll_wait 232 -;
epoll_pwait 281 22; epoll_pwait2 441 441; eventfd 284 -; eventfd2 290 19; timerfd_create 283 85;
timerfd_settime 286 86; timerfd_gettime 287 87; signalfd 282 -; signalfd4 289 74; getxattr 191 8;
lgetxattr 192 9; fgetxattr 193 10; listxattr 194 11; llistxattr 195 12; flistxattr 196 13; umask 95 166;
mmap 9 222; munmap 11 215; mremap 25 216; mprotect 10 226; madvise 28 233; msync 26 227; mincore 27 232;
brk 12 214; membarrier 324 283; rseq 334 293; futex 202 98; futex_waitv 449 449; set_robust_list 273 99;
get_robust_list 274 100; set_tid_address 218 96; arch_prctl 158 -; prctl 157 167; execve 59 221;
execveat 322 281; exit 60 93; exit_group 231 94; wait4 61 260; waitid 247 95; kill 62 129; tgkill 234 131;
tkill 200 130; rt_sigaction 13 134; rt_sigprocmask 14 135; rt_sigpending 127 136; rt_sigtimedwait 128 137;
rt_sigqueueinfo 129 138; rt_sigreturn 15 139; rt_sigsuspend 130 133; rt_tgsigqueueinfo 297 240;
sigaltstack 131 132; restart_syscall 219 128; pause 34 -; alarm 37 -; getitimer 36 102; setitimer 38 103;
nanosleep 35 101; clock_nanosleep 230 115; clock_gettime 228 113; clock_getres 229 114; gettimeofday 96 169;
time 201 -; times 100 153; timer_create 222 107; timer_settime 223 110; timer_gettime 224 108;
timer_getoverrun 225 109; timer_delete 226 111; getpid 39 172; getppid 110 173; gettid 186 178; getuid 102 174;
geteuid 107 175; getgid 104 176; getegid 108 177; getresuid 118 148; getresgid 120 150; getgroups 115 158;
getpgrp 111 -; getpgid 121 155; setpgid 109 154; getsid 124 156; setsid 112 157; uname 63 160; sysinfo 99 179;
getrlimit 97 163; setrlimit 160 164; prlimit64 302 261; getrusage 98 165; getpriority 140 141;
sched_yield 24 124; sched_getaffinity 204 123; sched_setaffinity 203 122; sched_getparam 143 121;
sched_getscheduler 145 120; sched_get_priority_max 146 125; sched_get_priority_min 147 126;
sched_getattr 315 275; getcpu 309 168; getrandom 318 278; recvfrom 45 207; sendto 44 206; recvmsg 47 212;
sendmsg 46 211; recvmmsg 299 243; sendmmsg 307 269; shutdown 48 210; getsockname 51 204; getpeername 52 205;
getsockopt 55 209; setsockopt 54 208
"""
_FORBIDDEN = """
socket 41 198; connect 42 203; bind 49 200; listen 50 201; accept 43 202; accept4 288 242; mount 165 40;
umount2 166 39; pivot_root 155 41; chroot 161 51; unshare 272 97; setns 308 268; ptrace 101 117;
process_vm_readv 310 270; process_vm_writev 311 271; memfd_create 319 279; memfd_secret 447 447; shmget 29 194;
shmat 30 196; shmctl 31 195; msgget 68 186; msgsnd 69 189; semget 64 190; semop 65 193; mq_open 240 180;
keyctl 250 219; add_key 248 217; request_key 249 218; bpf 321 280; perf_event_open 298 241;
io_uring_setup 425 425; userfaultfd 323 282; mknod 133 -; mknodat 259 33; setuid 105 146; setgid 106 144;
setreuid 113 145; setregid 114 143; setresuid 117 147; setresgid 119 149; setgroups 116 159; setxattr 188 5;
lsetxattr 189 6; fsetxattr 190 7; personality 135 92; kexec_load 246 104; init_module 175 105;
finit_module 313 273; swapon 167 224; reboot 169 142; sethostname 170 161; mlock 149 228; mlockall 151 230;
setpriority 141 140; sched_setscheduler 144 119; sched_setattr 314 274; ioprio_set 251 30;
open_by_handle_at 304 265; name_to_handle_at 303 264; quotactl 179 60; acct 163 89; syslog 103 116
"""
_NUMBERS = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # which column, and the kernel's AUDIT_ARCH
_SPECIAL = {  # 0: there is none
    "clone": (56, 220),
    "fork": (57, 0),
    "vfork": (58, 0),
    "socketpair": (53, 199),
}

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_MISSING = 0x00050000 | errno.ENOSYS  # for clone3, too: its flags are out of a filter's sight
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # places in the kernel's struct seccomp_data
_CLONE_THREAD, _CLONE_NEW = 0x00010000, 0x7E020000
_AF_UNIX = 1

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def supported() -> bool:
    """Whether the filter is known for this machine."""
    return platform.machine() in _NUMBERS


def program(*, fork: bool, machine: str | None = None) -> bytes:
    """A filter for `seccomp(SECCOMP_SET_MODE_FILTER)`.

    Args:
        fork: whether processes may be started. Threads always may be.
        machine: 'x86_64' or 'aarch64'. Default: this machine.

    Raises:
        KeyError: if the machine is another.
    """
    column, architecture = _NUMBERS[machine or platform.machine()]
    special = {name: numbers[column] for name, numbers in _SPECIAL.items()}
    actions = dict.fromkeys(_table(_ALLOWED, column), _ALLOW)
    actions |= {number: _error(errno.EPERM) for number in _table(_FORBIDDEN, column)}
    actions |= {special[name]: _ALLOW if fork else _error(errno.EAGAIN) for name in ("fork", "vfork") if special[name]}
    lines: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for name, checks in (("socketpair", _SOCKETPAIR), ("clone", _CLONE if fork else _CLONE_OF_THREADS)):
        lines += [(_EQUAL, 0, len(checks) + 1, special[name]), (_LOAD, 0, 0, _FIRST_ARGUMENT), *checks]
    lines += _tree(_steps(actions))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _error(number: int) -> int:
    return 0x00050000 | number


_SOCKETPAIR: list[Instruction] = [
    (_EQUAL, 0, 1, _AF_UNIX),
    (_RETURN, 0, 0, _ALLOW),
    (_RETURN, 0, 0, _error(errno.EPERM)),
]
_CLONE: list[Instruction] = [
    (_ANY_BIT, 0, 1, _CLONE_NEW),
    (_RETURN, 0, 0, _error(errno.EPERM)),
    (_RETURN, 0, 0, _ALLOW),
]
_CLONE_OF_THREADS: list[Instruction] = [
    (_ANY_BIT, 0, 1, _CLONE_NEW),
    (_RETURN, 0, 0, _error(errno.EPERM)),
    (_ANY_BIT, 0, 1, _CLONE_THREAD),
    (_RETURN, 0, 0, _ALLOW),
    (_RETURN, 0, 0, _error(errno.EAGAIN)),
]


def _table(text: str, column: int) -> list[int]:
    numbers = (entry.split()[1 + column] for entry in text.replace("\n", " ").split(";"))
    return [int(number) for number in numbers if number != "-"]


def _steps(actions: Mapping[int, int]) -> list[tuple[int, int]]:
    """Where, in the order of the numbers, what is to be done changes, and into what."""
    steps = [(0, _MISSING)]
    for number in range(max(actions) + 2):
        action = actions.get(number, _MISSING)
        if number == 0:
            steps = [(0, action)]
        elif action != steps[-1][1]:
            steps.append((number, action))
    return steps


def _tree(steps: list[tuple[int, int]]) -> list[Instruction]:
    """A search by halves: the kernel asks the filter about each call there is whenever it is put up."""
    if len(steps) == 1:
        return [(_RETURN, 0, 0, steps[0][1])]
    half = len(steps) // 2
    below, above = _tree(steps[:half]), _tree(steps[half:])
    return [(_AT_LEAST, len(below), 0, steps[half][0]), *below, *above]
