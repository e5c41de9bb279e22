# Changes what it is given until there is nothing to compare.
# run: tests
# must: failed
def solve(numbers):
    numbers.clear()
    return numbers
