# Has the loader execute what it has written itself.
# must: exit signal
import os
import sys

with open("program", "wb") as copy, open(sys.executable, "rb") as original:
    copy.write(original.read(1 << 20))
os.chmod("program", 0o4755)
for command in (["/lib64/ld-linux-x86-64.so.2", "/tmp/program"], ["/tmp/program"]):
    try:
        os.execv(command[0], command)
    except OSError:
        pass
