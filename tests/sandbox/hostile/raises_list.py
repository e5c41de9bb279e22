# Raises an exception whose class has a hundred bases.
# run: calls
# must: raised
kind = Exception
for number in range(100):
    kind = type(f"E{number}", (kind,), {})


def solve(numbers):
    raise kind
