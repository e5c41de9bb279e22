# Answers lists in lists in lists.
# run: calls
# must: lost
import os
import struct

from guerdon.sandbox.inside import channel


def say(content, length=None):
    frame = struct.pack("=I", len(content) if length is None else length) + content
    while frame:
        frame = frame[os.write(3, frame) :]


def send(self, message, handle=None):
    say(b"[" * 10**6)


def solve(numbers):
    channel.Channel.send = send
