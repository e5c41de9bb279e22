# Recurses until there is no stack left.
# must: signal
import sys


class Deep:
    def __repr__(self):
        return repr(self)


sys.setrecursionlimit(10**9)
repr(Deep())
