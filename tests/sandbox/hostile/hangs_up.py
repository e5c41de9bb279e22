# Hangs up.
# run: calls
# must: lost
import socket


def solve(numbers):
    socket.socket(fileno=3).shutdown(socket.SHUT_RDWR)
    while True:
        pass
