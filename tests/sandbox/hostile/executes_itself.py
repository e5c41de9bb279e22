# Becomes a fresh interpreter, which has done nothing to hold itself back.
# says: contained
import os
import sys

CHECK = """
import os, resource, socket
if resource.getrlimit(resource.RLIMIT_AS)[1] == resource.RLIM_INFINITY:
    print("ESCAPED: memory")
for attempt in (socket.socket, os.fork, lambda: os.unshare(0x10000000), lambda: os.listdir("/proc/1")):
    try:
        attempt()
        print("ESCAPED:", attempt)
    except (OSError, AttributeError):
        pass
print("contained")
"""
os.environ["PYTHONHOME"] = sys.base_prefix
os.execv(sys.executable, [sys.executable, "-S", "-c", CHECK])
