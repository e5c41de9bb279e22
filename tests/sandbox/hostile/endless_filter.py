# Returns an iterator without an end.
# run: calls
# must: late
import itertools


def solve(numbers):
    return filter(None, itertools.repeat(0))
