# Aborts.
# must: signal
import os

os.abort()
