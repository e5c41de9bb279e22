# Asks for more memory than any machine has, in every way Python knows.
# says: contained
import mmap

for ask in (
    lambda: bytearray(1 << 44),
    lambda: [0] * (1 << 40),
    lambda: "x" * (1 << 40),
    lambda: 1 << (1 << 42),
    lambda: mmap.mmap(-1, 1 << 40),
    lambda: mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000),
):
    try:
        ask()
        print("ESCAPED: memory")
    except (MemoryError, OSError):
        pass
print("contained")
