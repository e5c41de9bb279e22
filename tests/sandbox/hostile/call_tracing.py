# Looks into other processes, or has itself looked into.
# machine: x86_64
# says: contained
import ctypes

libc = ctypes.CDLL(None, use_errno=True)

buffer = ctypes.create_string_buffer(64)
local, remote = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 64), (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 64)
for request in (0, 16, 0x4206):
    for pid in (0, 1, 2):
        if libc.syscall(101, request, pid, 0, 0) != -1 or ctypes.get_errno() != 1:
            print("ESCAPED: ptrace", request, pid)
for number in (310, 311):
    for pid in (1, 2, 3):
        if libc.syscall(number, pid, local, 1, remote, 1, 0) != -1 or ctypes.get_errno() != 1:
            print("ESCAPED: memory of", pid)
for number, arguments in ((434, (1, 0)), (438, (0, 0, 0)), (440, (0, None, 0, 0, 0)), (312, (1, 1, 0, 0, 0))):
    if libc.syscall(number, *arguments) != -1 or ctypes.get_errno() != 38:
        print("ESCAPED: call", number)
print("contained")
