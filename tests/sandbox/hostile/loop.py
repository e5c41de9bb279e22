# Computes for ever, in Python.
# must: deadline
while True:
    pass
