# Ends when it is asked what it defines.
# run: tests
# under:
# must: lost
import os

from guerdon.sandbox.inside import calls

calls.Program._describe = lambda self, names: os._exit(0)
