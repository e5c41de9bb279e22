# Multiplies for ever, in C, holding the lock.
# must: deadline
import math

math.factorial(10**8)
