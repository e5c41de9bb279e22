# Floods its channel and reads nothing.
# run: calls
# must: lost late
import os
import struct


def say(content, length=None):
    frame = struct.pack("=I", len(content) if length is None else length) + content
    while frame:
        frame = frame[os.write(3, frame) :]


say(b'{"tuple":["loaded"]}')
while True:
    say(b"x" * (1 << 16))
