# Consumes for ever, in C.
# must: deadline
import collections
import itertools

collections.deque(itertools.count(), maxlen=0)
