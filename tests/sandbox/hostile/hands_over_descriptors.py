# Sends descriptors with its answer.
# run: calls
# must: wrong
import os
import socket
import struct

from guerdon.sandbox.inside import channel


def say(content, length=None):
    frame = struct.pack("=I", len(content) if length is None else length) + content
    while frame:
        frame = frame[os.write(3, frame) :]


def send(self, message, handle=None):
    content = b'{"tuple":[%d,"value",[3,2,1],null]}' % message[0]
    socket.send_fds(socket.socket(fileno=3), [struct.pack("=I", len(content)) + content], [0, 1, 2, 3])


def solve(numbers):
    channel.Channel.send = send
