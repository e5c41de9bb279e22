# Floods its channel while it is asked.
# run: calls
# must: lost
import os
import struct
import threading


def say(content, length=None):
    frame = struct.pack("=I", len(content) if length is None else length) + content
    while frame:
        frame = frame[os.write(3, frame) :]


def flood():
    while True:
        say(b'{"tuple":[0,"value",[1,2,3],null]}')


threading.Thread(target=flood, daemon=True).start()


def solve(numbers):
    return [3, 2, 1]
