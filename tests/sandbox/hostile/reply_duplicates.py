# Answers a dict with one key, a million times.
# run: calls
# must: lost wrong
import os
import struct

from guerdon.sandbox.inside import channel


def say(content, length=None):
    frame = struct.pack("=I", len(content) if length is None else length) + content
    while frame:
        frame = frame[os.write(3, frame) :]


def send(self, message, handle=None):
    say(b'{"tuple":[%d,"value",%b,null]}' % (message[0], b'{"dict":[[1,1]' + b",[1,1]" * 10**5 + b"]}"))


def solve(numbers):
    channel.Channel.send = send
