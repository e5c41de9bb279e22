# Raises what ends a loop, under a name of its own.
# run: tests
# must: failed
class Nothing(StopIteration):
    pass


def solve(numbers):
    raise Nothing
