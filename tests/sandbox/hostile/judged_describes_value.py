# Describes a value in place of a function.
# run: tests
# under:
# must: lost failed
from guerdon.sandbox.inside import calls

calls.Program._describe = lambda self, names: ("value", {"solve": ("value", [1, 2, 3])})


def solve(numbers):
    return numbers
