# Answers a short way to say a large array.
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
    say(
        b'{"tuple":[%d,"value",%b,null]}'
        % (message[0], b'{"ndarray":["<U16000000",[1,1000],[["a"' + b',"a"' * 999 + b"]]]}")
    )


def solve(numbers):
    channel.Channel.send = send
