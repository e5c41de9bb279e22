# Opens sockets of every kind.
# says: contained
import socket

for family in range(1, 46):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            socket.socket(family, kind).close()
            print("ESCAPED: a socket of family", family)
        except OSError:
            pass
for attempt in (
    lambda: socket.create_connection(("127.0.0.1", 80), 0.1),
    lambda: socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM) and socket.create_server(("127.0.0.1", 0)),
    lambda: socket.socketpair(socket.AF_INET),
):
    try:
        attempt()
        print("ESCAPED: connected")
    except OSError:
        pass
print("contained")
