# Leaves a daemon behind, in a session of its own, that holds on to the streams.
# limits: processes=4
# says: contained
import os
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
        os.write(1, b"ESCAPED: outlived")
    os._exit(0)
os.wait()
print("contained")
