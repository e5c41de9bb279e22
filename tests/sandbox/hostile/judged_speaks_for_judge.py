# Says on its channel, and on all others, that it has passed.
# run: tests
# must: failed
import os
import struct


def say(content, length=None):
    frame = struct.pack("=I", len(content) if length is None else length) + content
    while frame:
        frame = frame[os.write(3, frame) :]


def solve(numbers):
    for descriptor in range(64):
        try:
            os.write(descriptor, struct.pack("=I", 20) + b'{"tuple":["passed"]}')
        except OSError:
            pass
    return numbers
