# Looks for the tests in the frames and the memory of its process.
# run: tests
# must: failed
import gc
import sys


def solve(numbers):
    frame = sys._getframe()
    while frame.f_back:
        frame = frame.f_back
        if "codes" in frame.f_locals or "tests" in frame.f_locals:
            return sorted(numbers)
    for thing in gc.get_objects():
        if isinstance(thing, dict) and "under_test" in thing and "codes" in thing:
            return sorted(numbers)
    return numbers
