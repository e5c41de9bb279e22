# Ends, but for a thread.
# must: deadline
import threading


def stay():
    while True:
        pass


threading.Thread(target=stay).start()
