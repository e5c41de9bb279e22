# Complains without end, past Python's buffers.
# must: output
import os

while True:
    os.write(2, b"x" * 65536)
