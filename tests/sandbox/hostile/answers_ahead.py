# Answers before it is asked, with every number it can think of.
# run: calls
# must: lost
import os
import struct


def say(content, length=None):
    frame = struct.pack("=I", len(content) if length is None else length) + content
    while frame:
        frame = frame[os.write(3, frame) :]


say(b'{"tuple":["loaded"]}')
for ticket in range(1000):
    say(b'{"tuple":[%d,"value",[1,2,3],null]}' % ticket)


def solve(numbers):
    return [3, 2, 1]
