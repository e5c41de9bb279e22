# Reads what there is outside.
# says: contained
import os

for path in (
    "/etc/passwd", "/etc/shadow", "/etc/hostname", "/etc/resolv.conf", "/root", "/home", "/var", "/sys", "/run", "/mnt",
    "/opt", "/srv", "/boot", "/media", "/proc/self", "/proc/1/environ", "/proc/kcore", "/proc/sys", "/dev/shm",
    "/dev/mem", "/dev/kmsg", "/dev/tty", "/dev/pts", "/dev/fuse", "/dev/net/tun", "/dev/kvm", "/usr/bin/sh", "/bin/sh",
    "/usr/sbin", "/usr/local/bin", "/usr/local/etc", "/tmp/.X11-unix", "/guerdon/guerdon/core",
):  # fmt: skip
    if os.path.lexists(path) and not "/root/.".startswith(path):
        print("ESCAPED:", path)
    try:
        if os.path.isdir(path):
            os.listdir(path) if not "/root/.".startswith(path) else None
        else:
            open(path).close()
            print("ESCAPED:", path)
    except OSError:
        pass
print("contained")
