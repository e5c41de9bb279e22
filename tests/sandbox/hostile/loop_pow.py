# Multiplies for ever, in C.
# must: deadline
pow(3, 3**18)
