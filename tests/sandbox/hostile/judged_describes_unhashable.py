# Describes a set.
# run: tests
# under:
# must: lost failed
from guerdon.sandbox.inside import calls

calls.Program._describe = lambda self, names: ("value", {"solve"})


def solve(numbers):
    return numbers
