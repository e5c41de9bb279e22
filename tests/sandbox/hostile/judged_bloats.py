# Answers more than its judge has memory for.
# run: tests
# deadline: 2.0
# must: failed late
import os
import struct


def say(content, length=None):
    frame = struct.pack("=I", len(content) if length is None else length) + content
    while frame:
        frame = frame[os.write(3, frame) :]


def solve(numbers):
    say(b"[" + b"[]," * (20 << 20) + b"[]]")
