# A list without an end, built where no Python code is looked at.
# must: exit deadline
# deadline: 1.0
import itertools

sorted(itertools.count())
