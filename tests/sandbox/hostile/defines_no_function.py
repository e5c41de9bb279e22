# Defines what cannot be called.
# run: calls
# must: raised
solve = [1, 2, 3]
