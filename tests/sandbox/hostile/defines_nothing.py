# Defines nothing.
# run: calls
# must: raised
