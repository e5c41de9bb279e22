# Stops in the middle of a message.
# run: calls
# must: late
import os
import struct


def say(content, length=None):
    frame = struct.pack("=I", len(content) if length is None else length) + content
    while frame:
        frame = frame[os.write(3, frame) :]


def solve(numbers):
    say(b'{"tuple":[1,"val', 1000)
    while True:
        pass
