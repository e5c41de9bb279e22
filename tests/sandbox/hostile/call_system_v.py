# Leaves shared memory, semaphores and messages behind.
# machine: x86_64
# says: contained
import ctypes

libc = ctypes.CDLL(None, use_errno=True)

for key in (0, 0x1234):
    for number, arguments in ((29, (key, 1 << 20, 0o1666)), (64, (key, 8, 0o1666)), (68, (key, 0o1666))):
        if libc.syscall(number, *arguments) != -1 or ctypes.get_errno() != 1:
            print("ESCAPED: an object that outlives it", number)
    if libc.syscall(240, b"mark", 0o102, 0o666, None) != -1 or ctypes.get_errno() != 1:
        print("ESCAPED: a message queue")
print("contained")
