# Computes for ever when it is called.
# run: calls
# must: late
def solve(numbers):
    while True:
        pass
