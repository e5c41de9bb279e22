# Answers before it is asked, without a number.
# run: calls
# must: lost
import os
import struct


def say(content, length=None):
    frame = struct.pack("=I", len(content) if length is None else length) + content
    while frame:
        frame = frame[os.write(3, frame) :]


say(b'{"tuple":["loaded"]}')
say(b'{"tuple":["value",[1,2,3]]}')
say(b'{"tuple":[null,"value",[1,2,3],null]}')
say(b'{"tuple":[true,"value",[1,2,3],null]}')


def solve(numbers):
    return [3, 2, 1]
