# Writes outside by links, dots and long names.
# says: contained
import os

for target in ("/guerdon/guerdon/sandbox/inside/plain.py", os.__file__, "/usr/lib/mark", "../../guerdon/mark"):
    os.symlink(target, "link")
    try:
        open("link", "w").close()
        print("ESCAPED: by a link to", target)
    except OSError:
        pass
    os.unlink("link")
for path in (
    "../mark",
    "/tmp/../mark",
    "/tmp/../../../../usr/lib/mark",
    "/proc/self/root/mark",
    "/proc/self/cwd/../mark",
):
    try:
        open(path, "w").close()
        print("ESCAPED: as", path)
    except OSError:
        pass
os.symlink("loop", "loop")
for path in ("loop", "x" * 256, "x/" * 5000):
    try:
        open(path, "w").close()
        print("ESCAPED: an impossible file")
    except OSError:
        pass
try:
    os.link("/guerdon/guerdon/sandbox/inside/plain.py", "/tmp/plain.py")
    print("ESCAPED: a link to a file that is not its own")
except OSError:
    pass
print("contained")
