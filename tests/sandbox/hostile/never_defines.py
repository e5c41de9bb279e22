# Never gets to define anything.
# run: calls
# must: late
while True:
    pass
