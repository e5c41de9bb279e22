# Forks for ever, in all its processes.
# limits: processes=8
# must: deadline
import os

while True:
    try:
        os.fork()
    except OSError:
        pass
