# Raises an exception with a name and a message that are none.
# run: calls
# must: raised lost
class Odd(Exception):
    __str__ = lambda self: "\ud800\0" * 10**6


Odd.__name__ = "\ud800"


def solve(numbers):
    raise Odd
