# Asks for addresses that can be guessed, and memory that can be run.
# machine: x86_64
# says: contained
import ctypes

libc = ctypes.CDLL(None, use_errno=True)

for persona in (0, 0x0040000, 0x0400000, 0x0100000, 8, 0xFFFFFFFF):
    if libc.syscall(135, persona) != -1 or ctypes.get_errno() != 1:
        print("ESCAPED: personality", hex(persona))
print("contained")
