# Describes a module that nobody can import.
# run: tests
# under:
# must: lost failed
from guerdon.sandbox.inside import calls

calls.Program._describe = lambda self, names: ("value", {"solve": ("callable", "json.\0")})


def solve(numbers):
    return numbers
