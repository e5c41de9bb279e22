# Answers by a thread that outlives the call, again and again.
# run: calls
# must: wrong lost
import os
import struct
import threading


def say(content, length=None):
    frame = struct.pack("=I", len(content) if length is None else length) + content
    while frame:
        frame = frame[os.write(3, frame) :]


def solve(numbers):
    def on():
        while True:
            say(b'{"tuple":[1,"value",[1,2,3],null]}')

    threading.Thread(target=on).start()
    return [3, 2, 1]
