# Raises what would interrupt its judge.
# run: tests
# must: failed
def solve(numbers):
    raise KeyboardInterrupt
