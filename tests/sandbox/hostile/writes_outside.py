# Writes, wherever it looks.
# says: contained
import os
import sys

places = ["/", "/usr", "/usr/lib", "/lib", "/usr/bin", "/packages", "/guerdon", "/guerdon/guerdon/sandbox/inside"]
places += ["/dev", "/proc", "/nothing", os.path.dirname(os.__file__), os.path.dirname(sys.executable), sys.base_prefix]
for place in places:
    for attempt in (
        lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)),
        os.mkdir,
        lambda path: os.symlink("/tmp", path),
        lambda path: os.rename("/tmp/mine", path),
        lambda path: os.link("/tmp/mine", path),
    ):
        open("/tmp/mine", "w").close()
        try:
            attempt(os.path.join(place, "mark"))
            print("ESCAPED: written in", place)
        except OSError:
            pass
for path in (
    os.__file__,
    sys.executable,
    "/guerdon/guerdon/sandbox/inside/plain.py",
    "/packages",
    "/usr/lib",
    "/dev/null",
):
    for attempt in (
        lambda path: os.close(os.open(path, os.O_RDWR)) if path != "/dev/null" else os.truncate(path, 1),
        os.unlink,
        os.rmdir,
        lambda path: os.chmod(path, 0o777),
        lambda path: os.chown(path, 1000, 1000),
        lambda path: os.utime(path, (1, 1)),
        lambda path: os.rename(path, path + "2"),
        lambda path: os.replace("/tmp/mine", path),
    ):
        try:
            attempt(path)
            print("ESCAPED: changed", path)
        except OSError:
            pass
print("contained")
