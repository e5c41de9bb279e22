# Has more processes at a time than it may.
# limits: processes=8 threads=1
# says: contained
import os
import time

children = 0
try:
    while children < 100:
        if os.fork() == 0:
            time.sleep(60)
        children += 1
except OSError:
    pass
print("contained" if children <= 9 else f"ESCAPED: {children} children")
