# Uses the parts of the kernel that break most often.
# machine: x86_64
# says: contained
import ctypes

libc = ctypes.CDLL(None, use_errno=True)

for number in (
    298,  # perf_event_open
    321,  # bpf
    323,  # userfaultfd
    425, 426, 427,  # io_uring
    300, 301,  # fanotify
    253, 254, 294,  # inotify
    206, 207, 208, 209,  # aio
    256, 279, 237, 238, 239,  # pages and memory policies
    317,  # seccomp
    444, 445, 446,  # landlock
    216,  # remap_file_pages
    452 + 6, 457, 458,  # mounts, listed
    459, 460, 461,  # security modules
    463, 464, 465, 466,  # attributes
    278, 448,  # vmsplice, process_mrelease
    171, 172, 173,  # setdomainname, iopl, ioperm
    154, 156, 174, 177, 178, 180, 183,  # long gone
    134, 136, 139,  # uselib, ustat, sysfs
    246, 320,  # kexec
    175, 176, 313,  # modules
    103, 163, 167, 168, 169, 170, 179,  # syslog, acct, swap, reboot, names, quotas
    303, 304,  # files by handle
    159, 227, 305, 164,  # clocks
    188, 189, 190, 197,  # attributes of files
):  # fmt: skip
    for arguments in ((0, 0, 0, 0, 0, 0), (1, 1, 1, 1, 1, 1)):
        if libc.syscall(number, *arguments) != -1 or ctypes.get_errno() not in (1, 38):
            print("ESCAPED: call", number, ctypes.get_errno())
print("contained")
