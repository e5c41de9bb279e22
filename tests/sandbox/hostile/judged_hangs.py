# Computes for ever when it is tested.
# run: tests
# must: late
def solve(numbers):
    while True:
        pass
