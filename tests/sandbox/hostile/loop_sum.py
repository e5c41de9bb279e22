# Adds for ever, in C.
# must: deadline
import itertools

sum(itertools.repeat(0))
