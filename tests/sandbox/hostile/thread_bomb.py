# Starts threads until it may not.
# says: contained
import threading
import time

count = 0
try:
    while count < 1000:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        count += 1
except RuntimeError:
    pass
print("contained" if count <= 65 else f"ESCAPED: {count} threads")
