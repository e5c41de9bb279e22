# Calls by the numbers of another convention, which a filter may have forgotten.
# machine: x86_64
# says: contained
import ctypes

libc = ctypes.CDLL(None, use_errno=True)

for number in (41, 56, 57, 59, 101, 165, 272, 308, 319, 512, 520, 521, 539, 540, 545, 546):
    for high in (0x40000000, 0x80000000, 0xC0000000):
        if libc.syscall(ctypes.c_long(high | number), 0x10000000, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 38:
            print("ESCAPED: call", hex(high | number), ctypes.get_errno())
print("contained")
