# Returns an iterator that says it is of the standard library and has no end.
# run: calls
# must: raised
class Endless:
    __module__ = "itertools"
    __iter__ = lambda self: self
    __next__ = lambda self: 1


def solve(numbers):
    return Endless()
