# Returns an iterator without an end.
# run: calls
# must: raised
import itertools


def solve(numbers):
    return (n for n in itertools.count())
