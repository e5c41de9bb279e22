# Makes files of memory, which no limit counts.
# machine: x86_64
# says: contained
import ctypes

libc = ctypes.CDLL(None, use_errno=True)

for number, arguments in ((319, (b"mark", 0)), (319, (b"mark", 3)), (319, (b"mark", 4)), (447, (0,))):
    if libc.syscall(number, *arguments) != -1 or ctypes.get_errno() != 1:
        print("ESCAPED: a file of memory", number)
print("contained")
