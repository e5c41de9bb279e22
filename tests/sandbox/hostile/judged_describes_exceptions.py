# Describes an exception with a thousand bases.
# run: tests
# under:
# must: lost failed
from guerdon.sandbox.inside import calls

calls.Program._describe = lambda self, names: ("value", {"solve": ("exception", ["x"] * 10_000)})


def solve(numbers):
    return numbers
