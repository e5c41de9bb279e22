# Sleeps.
# must: deadline
import time

time.sleep(3600)
