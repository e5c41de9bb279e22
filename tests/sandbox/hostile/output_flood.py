# Prints without end.
# must: output
while True:
    print("x" * 1000)
