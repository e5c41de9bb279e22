# Writes to its folder until it may not; more than that never.
# says: contained
size = 0
try:
    for number in range(1000):
        with open(f"file{number}", "wb", buffering=0) as file:
            for _ in range(8):
                size += file.write(bytes(1 << 17))
except OSError:
    pass
print("contained" if 0 < size <= 4 << 20 else f"ESCAPED: {size} bytes")
