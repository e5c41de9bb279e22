# A file longer than the disk, with nothing in it.
# says: contained
import os

for attempt in (lambda: os.truncate("hole", 1 << 40), lambda: os.posix_fallocate(file.fileno(), 0, 1 << 30)):
    try:
        with open("hole", "wb") as file:
            attempt()
        print("ESCAPED: a long file")
    except OSError:
        pass
print("contained")
