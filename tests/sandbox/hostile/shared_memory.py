# Keeps something in memory that has a name.
# says: contained
from multiprocessing import Lock, shared_memory

for attempt in (lambda: shared_memory.SharedMemory("mark", create=True, size=4096), Lock):
    try:
        attempt()
        print("ESCAPED: a name that others can see")
    except OSError:
        pass
print("contained")
