# Keeps something in a key ring.
# machine: x86_64
# says: contained
import ctypes

libc = ctypes.CDLL(None, use_errno=True)

for session in range(-8, 0):
    if libc.syscall(248, b"user", b"mark", b"ESCAPED", 7, session) != -1 or ctypes.get_errno() != 1:
        print("ESCAPED: a key")
    for operation in range(32):
        if libc.syscall(250, operation, session, 0, 0, 0) != -1 or ctypes.get_errno() != 1:
            print("ESCAPED: keyctl", operation)
    if libc.syscall(249, b"user", b"mark", None, session) != -1:
        print("ESCAPED: a key found")
print("contained")
