# Seven children that ignore every signal and compute on when their parent has ended.
# limits: processes=8
# says: contained
import os
import signal

for _ in range(7):
    if os.fork() == 0:
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        while True:
            pass
print("contained")
