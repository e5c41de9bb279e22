# Starts processes by all the ways of the standard library.
# says: contained
import concurrent.futures
import multiprocessing
import os
import subprocess
import sys

for attempt in (
    lambda: subprocess.run([sys.executable, "-c", "print('ESCAPED')"], check=True),
    lambda: multiprocessing.get_context("fork").Process(target=print, args=("ESCAPED",)).start(),
    lambda: os.posix_spawn(sys.executable, [sys.executable], {}),
    lambda: os.popen("echo ESCAPED").read() and None,
    lambda: concurrent.futures.ProcessPoolExecutor(1).submit(int).result(),
    lambda: os.forkpty(),
):
    try:
        if attempt():
            print("ESCAPED: a process")
    except (OSError, NotImplementedError, ImportError):
        pass
print("contained")
