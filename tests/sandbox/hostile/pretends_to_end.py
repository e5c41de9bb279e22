# Says that it was ended by the sandbox, and that this was the sandbox's fault.
# run: calls
# must: lost
import os
import struct


def say(content, length=None):
    frame = struct.pack("=I", len(content) if length is None else length) + content
    while frame:
        frame = frame[os.write(3, frame) :]


def solve(numbers):
    say(b'{"dict":[["failed","no memory"]]}')
    say(b'{"failed": "no memory"}')
    return [3, 2, 1]
