# Raises what looks like success.
# run: calls
# must: raised
class passed(BaseException):
    __str__ = __repr__ = lambda self: "[1, 2, 3]"


passed.__name__ = passed.__qualname__ = "value"


def solve(numbers):
    raise passed([1, 2, 3])
