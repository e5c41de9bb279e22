# Fills pipes and sockets, whose buffers are nobody's memory.
# says: contained
import fcntl
import os
import socket

size = 0
try:
    while True:
        read, write = os.pipe()
        try:
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)
        except OSError:
            pass
        os.set_blocking(write, False)
        try:
            while True:
                size += os.write(write, bytes(1 << 16))
        except BlockingIOError:
            pass
except OSError:
    pass
try:
    while True:
        socket.socketpair()[0].detach()
except OSError:
    pass
print("contained" if size <= 64 << 20 else f"ESCAPED: {size >> 20} MiB in pipes")
