# Is a class, so that the judge holds on to its objects.
# run: tests
# must: failed
class Solve:
    __eq__ = lambda self, other: True
    __hash__ = lambda self: 0
    __len__ = lambda self: 2
    __iter__ = lambda self: iter([1, 2])
    __getitem__ = lambda self, index: self

    def __init__(self, numbers):
        pass


solve = Solve
