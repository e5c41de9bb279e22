# Looks for anything but libraries.
# says: contained
import os
import sys

expected = {"usr", "lib", "lib64", "lib32", "bin", "dev", "tmp", "proc", "nothing", "packages", "guerdon", "etc"}
expected |= {sys.executable.split("/")[1], sys.base_prefix.split("/")[1]}
for name in set(os.listdir("/")) - expected:
    print("ESCAPED: /" + name)
for name in set(os.listdir("/dev")) - {"null", "zero", "full", "random", "urandom"}:
    print("ESCAPED: /dev/" + name)
if os.listdir("/proc") or os.listdir("/nothing"):
    print("ESCAPED: /proc")
if os.path.isdir("/etc") and os.listdir("/etc") != ["ld.so.cache"]:
    print("ESCAPED: /etc")
if os.path.isdir("/etc") and os.listdir("/etc") != ["ld.so.cache"]:
    print("ESCAPED: /etc")
if os.path.isdir("/usr/bin") and [name for name in os.listdir("/usr/bin") if not name.startswith("python3")]:
    print("ESCAPED: a command")
print("contained")
