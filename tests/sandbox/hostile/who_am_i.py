# Looks at who it is, and becomes somebody else.
# says: contained
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
if os.getresuid() != (1000,) * 3 or os.getresgid() != (1000,) * 3 or set(os.getgroups()) - {1000, 65534}:
    print("ESCAPED: is", os.getresuid(), os.getresgid(), os.getgroups())
header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
if libc.syscall({"x86_64": 125, "aarch64": 90}[os.uname().machine], header, sets) == 0 and any(sets):
    print("ESCAPED: capabilities", list(sets))
for option, value, meaning in ((39, 1, "no new privileges"), (21, 2, "a filter")):
    if libc.prctl(option, 0, 0, 0, 0) not in (value, -1):
        print("ESCAPED: without", meaning)
for capability in range(41):
    if libc.prctl(47, 1, capability, 0, 0) == 1 or libc.prctl(47, 2, capability, 0, 0) != -1:
        print("ESCAPED: an ambient capability")
for attempt in (
    lambda: os.setuid(0),
    lambda: os.setgid(0),
    lambda: os.setgroups([0]),
    lambda: os.setresuid(0, 0, 0),
    lambda: os.seteuid(0),
    lambda: os.setregid(0, 0),
):
    try:
        attempt()
        print("ESCAPED: somebody else")
    except OSError:
        pass
if os.uname().nodename != "sandbox":
    print("ESCAPED: on", os.uname().nodename)
print("contained")
