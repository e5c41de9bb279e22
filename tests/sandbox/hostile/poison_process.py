# Leaves its process changed: environment, folder, mask, timers, signals, exit.
# times: 2
# says: contained

import atexit
import os
import signal
import sys

if "MARK" in os.environ or os.getcwd() != "/tmp" or os.umask(0) not in (0o22, 0o77):
    print("ESCAPED: a process of another run")
if signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0) or signal.pthread_sigmask(signal.SIG_BLOCK, []):
    print("ESCAPED: timers or signals of another run")
os.environ["MARK"] = os.environ["PYTHONSTARTUP"] = os.environ["LD_PRELOAD"] = "mark"
os.mkdir("folder")
os.chdir("folder")
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 1000)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
os.set_blocking(0, False)
sys.stdout.write("contained")
sys.stdout.flush()
atexit.register(os.close, 1)
