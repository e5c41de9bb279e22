# Ends before it is asked.
# run: calls
# must: lost
import os

os._exit(0)
