# Says one byte at a time, for ever.
# run: calls
# must: late
import os
import struct
import time


def say(content, length=None):
    frame = struct.pack("=I", len(content) if length is None else length) + content
    while frame:
        frame = frame[os.write(3, frame) :]


def solve(numbers):
    os.write(3, struct.pack("=I", 1000))
    while True:
        os.write(3, b" ")
        time.sleep(0.01)
