# Says that it is what ends a process that imports it.
# run: tests
# under:
# must: lost
def solve(numbers):
    return numbers


solve.__module__ = "unittest.__main__"
