# Makes the sockets that it has into others.
# says: contained
import socket

one, _ = socket.socketpair()
for attempt in (
    lambda: one.connect("/tmp/socket"),
    lambda: one.connect("\0abstract"),
    lambda: one.bind("/tmp/socket"),
    lambda: one.bind(""),
    lambda: one.listen(),
):
    try:
        attempt()
        print("ESCAPED: a socket that others can reach")
    except OSError:
        pass
print("contained")
