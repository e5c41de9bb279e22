# Leaves a time on the devices, which are the machine's own.
# says: contained
import os

for name in ("null", "zero", "full", "random", "urandom"):
    path = f"/dev/{name}"
    with open(path, "rb") as device:
        device.read(1)
    for attempt in (
        lambda path: os.utime(path),
        lambda path: os.utime(path, (1, 1)),
        lambda path: os.chmod(path, 0o666),
    ):
        try:
            attempt(path)
            print("ESCAPED: a mark on", path)
        except OSError:
            pass
with open("/dev/null", "w") as device:
    device.write("works")
print("contained")
