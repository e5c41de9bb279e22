# Calls by the numbers of 32 bits, with machine code of its own.
# machine: x86_64
# must: signal
import ctypes
import mmap

code = bytes.fromhex("b814000000 cd80 c3".replace(" ", ""))  # mov eax, 20; int 0x80; ret
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(code)
print("ESCAPED: getpid", ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))())
