# Waits for a lock that it holds.
# must: deadline
import threading

lock = threading.Lock()
lock.acquire()
lock.acquire()
