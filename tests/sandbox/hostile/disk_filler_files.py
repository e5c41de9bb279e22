# Makes files, folders and links until it may not.
# says: contained
import os

count = 0
try:
    while count < 100_000:
        os.mkdir(f"d{count}")
        os.symlink("x" * 1000, f"l{count}")
        count += 2
except OSError:
    pass
print("contained" if count <= 2048 else f"ESCAPED: {count} files")
