# Kills all that it sees.
# run: calls
# must: wrong lost raised
import os
import signal


def solve(numbers):
    os.kill(-1, signal.SIGKILL)
    os.kill(0, signal.SIGKILL)
