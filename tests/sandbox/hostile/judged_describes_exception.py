# Describes an exception with a name that no class can have.
# run: tests
# under:
# must: lost failed
from guerdon.sandbox.inside import calls

calls.Program._describe = lambda self, names: ("value", {"solve": ("exception", ["\0", "\ud800"])})


def solve(numbers):
    return numbers
