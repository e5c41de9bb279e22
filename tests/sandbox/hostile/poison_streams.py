# Leaves something in what a program that is called complains to.
# times: 2
# run: calls
# must: wrong

import fcntl
import os


def solve(numbers):
    for number in (0, 1, 2):
        try:
            os.lseek(number, 0, os.SEEK_SET)
            if os.read(number, 100):
                return [1, 2, 3]
        except OSError:
            pass
        try:
            os.write(number, b"mark")
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pass
