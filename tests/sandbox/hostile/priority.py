# Wants to be more important than others, or not to be swapped.
# says: contained
import ctypes
import os

libc = ctypes.CDLL(None)
for attempt in (
    lambda: os.nice(-5),
    lambda: os.setpriority(os.PRIO_PROCESS, 0, -5),
    lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10)),
):
    try:
        attempt()
        print("ESCAPED: a priority")
    except PermissionError:
        pass
if libc.mlockall(3) == 0 or libc.mlock(libc.malloc(4096), 4096) == 0:
    print("ESCAPED: locked memory")
print("contained")
