# Sorts for ever: each comparison takes longer than the last.
# must: deadline
import functools

count = 0


def slow(a, b):
    global count
    count += 1
    return sum(range(count * 1000)) - 1


sorted(range(10**5), key=functools.cmp_to_key(slow))
