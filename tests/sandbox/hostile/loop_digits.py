# Writes out a number for ever, in C.
# must: deadline
import sys

sys.set_int_max_str_digits(0)
str(1 << (1 << 26))
