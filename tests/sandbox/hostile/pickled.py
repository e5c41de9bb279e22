# Returns an object that would run code when it is unpickled.
# run: calls
# must: raised
class Pickled:
    def __reduce__(self):
        return print, ("ESCAPED",)

    __getstate__ = __reduce_ex__ = __reduce__


def solve(numbers):
    return Pickled()
