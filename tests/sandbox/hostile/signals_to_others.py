# Looks for processes other than its own.
# says: contained
import os

for pid in range(2, 70_000):
    try:
        os.kill(pid, 0)
        print("ESCAPED: the process", pid)
    except ProcessLookupError:
        pass
if os.getpid() != 1 or os.getppid() != 0:
    print("ESCAPED: is", os.getpid(), "of", os.getppid())
print("contained")
