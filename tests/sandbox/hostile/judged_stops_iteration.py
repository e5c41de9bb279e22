# Raises what ends a loop before all is tested.
# run: tests
# must: failed
def solve(numbers):
    raise StopIteration
