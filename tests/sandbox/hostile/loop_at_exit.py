# Ends, but for what it does at its exit.
# must: deadline
import atexit


@atexit.register
def stay():
    while True:
        pass
