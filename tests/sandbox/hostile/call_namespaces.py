# Makes namespaces of its own, in which it would be root, or enters others.
# machine: x86_64
# says: contained
# limits: processes=8
import ctypes

libc = ctypes.CDLL(None, use_errno=True)

for flags in (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000, 0x80, 0x7E020000):
    if libc.syscall(272, flags) != -1 or ctypes.get_errno() != 1:
        print("ESCAPED: unshare", hex(flags))
    if flags != 0x80 and (libc.syscall(56, flags | 17, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1):
        print("ESCAPED: clone", hex(flags))
    if libc.syscall(308, 0, flags) != -1 or ctypes.get_errno() != 1:
        print("ESCAPED: setns", hex(flags))
arguments = (ctypes.c_uint64 * 11)(0x10000000, 0, 0, 0, 17)
for size in (64, 80, 88):
    if libc.syscall(435, arguments, size) != -1 or ctypes.get_errno() != 38:
        print("ESCAPED: clone3")
print("contained")
