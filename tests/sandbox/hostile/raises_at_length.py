# Raises an error of a megabyte, with classes by the thousand, that would stand in every log.
# run: calls
# must: raised
import os
import struct

from guerdon.sandbox.inside import channel


def say(content, length=None):
    frame = struct.pack("=I", len(content) if length is None else length) + content
    while frame:
        frame = frame[os.write(3, frame) :]


def send(self, message, handle=None):
    names = b",".join([b'"' + b"E" * 1000 + b'"'] * 1000)
    say(b'{"tuple":[%d,"raised",[%b],"%b"]}' % (message[0], names, b"x" * 10**6))


def solve(numbers):
    channel.Channel.send = send
