# Types into a terminal, or gets hold of one.
# says: contained
import fcntl
import os
import termios

for number in range(3):
    try:
        fcntl.ioctl(number, termios.TIOCSTI, b"x")
        print("ESCAPED: typed")
    except OSError:
        pass
try:
    os.openpty()
    print("ESCAPED: a terminal")
except OSError:
    pass
print("contained")
