# Changes its arguments into an array that cannot be compared.
# run: calls
# must: wrong lost
import os
import struct

from guerdon.sandbox.inside import channel


def say(content, length=None):
    frame = struct.pack("=I", len(content) if length is None else length) + content
    while frame:
        frame = frame[os.write(3, frame) :]


def send(self, message, handle=None):
    say(b'{"tuple":[%d,"value",0,{"tuple":[[{"ndarray":["<i8",[2],[1,2]]},1,2]]}]}' % message[0])


def solve(numbers):
    channel.Channel.send = send
