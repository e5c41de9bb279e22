# Mounts, unmounts and changes its root, by the old calls and the new.
# machine: x86_64
# says: contained
import ctypes

libc = ctypes.CDLL(None, use_errno=True)

for number, arguments in (
    (165, (b"none", b"/tmp", b"tmpfs", 0, None)),
    (165, (b"proc", b"/tmp", b"proc", 0, None)),
    (165, (b"/usr/lib", b"/tmp", None, 4096, None)),
    (165, (None, b"/", None, 32, None)),
    (166, (b"/proc", 0)),
    (166, (b"/proc", 2)),
    (155, (b"/tmp", b"/tmp")),
    (161, (b"/tmp",)),
    (428, (-100, b"/", 1)),
    (429, (-1, b"", -100, b"/tmp", 4)),
    (430, (b"tmpfs", 0)),
    (433, (-100, b"/", 0)),
    (442, (-100, b"/", 0, None, 0)),
    (467, (-100, b"/", 1, None, 0)),
):
    if libc.syscall(number, *arguments) != -1 or ctypes.get_errno() not in (1, 38):
        print("ESCAPED: call", number, ctypes.get_errno())
print("contained")
