# Allocates until it may not; more than that never.
# says: contained
held = []
try:
    for _ in range(4096):
        held.append(bytearray(1 << 20))
except MemoryError:
    pass
size, held = len(held), None
print("contained" if size <= 128 else f"ESCAPED: {size} MiB")
