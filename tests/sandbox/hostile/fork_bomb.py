# Forks, though it may have no other process.
# says: contained
import os

for _ in range(1000):
    try:
        if os.fork() == 0:
            os._exit(0)
        print("ESCAPED: a process")
    except BlockingIOError:
        pass
print("contained")
