# Returns an iterator without an end.
# run: calls
# must: raised
import itertools


def solve(numbers):
    return map(lambda n: itertools.count(), itertools.count())
