# Sends descriptors to itself and closes them, to have more files open than it may.
# says: contained
import os
import socket

one, other = socket.socketpair()
one.setblocking(False)
sent = 0
try:
    for _ in range(10_000):
        descriptor = os.open("/dev/null", os.O_RDONLY)
        socket.send_fds(one, [b"x"], [descriptor])
        os.close(descriptor)
        sent += 1
except OSError:
    pass
print("contained" if sent <= 256 else f"ESCAPED: {sent} descriptors")
