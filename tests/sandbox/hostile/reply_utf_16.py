# Answers in another encoding.
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
    say('{"tuple":[1,2]}'.encode("utf-16"))


def solve(numbers):
    channel.Channel.send = send
