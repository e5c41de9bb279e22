# Looks for open files that are not its streams.
# says: contained
import os
import stat

for number in range(64):
    try:
        kind = os.fstat(number).st_mode
    except OSError:
        continue
    if number > 2 or not stat.S_ISFIFO(kind):
        print("ESCAPED: descriptor", number)
print("contained")
