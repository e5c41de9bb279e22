# Raises what the tests know how to handle.
# run: tests
# must: failed
def solve(numbers):
    raise ValueError
