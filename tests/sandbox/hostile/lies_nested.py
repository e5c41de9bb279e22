# Hides an object that is equal to everything in a list.
# run: calls
# must: raised
class Anything(int):
    __eq__ = lambda self, other: True
    __hash__ = lambda self: 0


def solve(numbers):
    return [Anything(7), [Anything(8)], {Anything(9): Anything(10)}]
