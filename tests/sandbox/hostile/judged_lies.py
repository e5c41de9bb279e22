# Returns an object that is equal to everything.
# run: tests
# must: failed
class Anything:
    __eq__ = __ge__ = __le__ = lambda self, other: True
    __len__ = lambda self: 2
    __iter__ = lambda self: iter(())


def solve(numbers):
    return Anything()
