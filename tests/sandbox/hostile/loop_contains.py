# Searches for ever, in C.
# must: deadline
import itertools

-1 in itertools.count()  # noqa: B015
