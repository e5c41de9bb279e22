# Returns an iterator without an end.
# run: calls
# must: raised
import itertools


def solve(numbers):
    return itertools.repeat([1, 2, 3])
