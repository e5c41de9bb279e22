# Kills itself and all it sees: as the first of its processes it cannot be killed from inside.
# must: exit signal
import os
import signal

for pid in (-1, 0, os.getpid(), os.getppid()):
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
        try:
            os.kill(pid, number)
        except OSError:
            pass
