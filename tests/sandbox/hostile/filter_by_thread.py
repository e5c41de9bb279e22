# Hopes that the filter holds its first thread only.
# says: contained
import os
import socket
import threading


def attempt():
    for call in (socket.socket, os.fork, lambda: os.mknod("/tmp/x")):
        try:
            call()
            print("ESCAPED:", call)
        except OSError:
            pass


threads = [threading.Thread(target=attempt) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("contained")
