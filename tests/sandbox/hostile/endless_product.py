# Returns an iterator without an end.
# run: calls
# must: raised late
import itertools


def solve(numbers):
    return itertools.product(range(10**9), range(10**9))
