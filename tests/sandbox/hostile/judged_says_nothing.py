# Does not say what it defines.
# run: tests
# under:
# must: late
import time

from guerdon.sandbox.inside import calls

calls.Program._describe = lambda self, names: time.sleep(3600)


def solve(numbers):
    return numbers
