# Backtracks for ever, in C.
# must: deadline
import re

re.match(r"(a+)+$", "a" * 60 + "b")
