"""Messages on a stream socket: each its length, then plain data."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import time
from typing import Any

from guerdon.sandbox.inside import plain

HEADER = struct.Struct("=I")
LONGEST = 1 << 26  # bytes of a message
PIECE = 1 << 16


def frame(message: Any, handle: plain.Handle | None = None) -> bytes:
    """A message as it is sent.

    Raises:
        NotPlain: if it is not plain data, or too long.
    """
    content = plain.dumps(message, handle)
    if len(content) > LONGEST:
        raise plain.NotPlain(f"{len(content):,} bytes of data are more than {LONGEST:,}")
    return HEADER.pack(len(content)) + content


class Channel:
    """One end of a conversation.

    Args:
        descriptor: of a connected stream socket.
        longest: bytes of a message that is read.
    """

    def __init__(self, descriptor: int, longest: int = LONGEST) -> None:
        self.descriptor, self.longest = descriptor, longest
        self.until: float | None = None  # on time.monotonic: when the other end is waited for no more
        self._heard = bytearray()  # of a message that is not read yet
        self._polls: dict[int, select.poll] = {}

    def send(self, message: Any, handle: plain.Handle | None = None) -> None:
        """Say something.

        Raises:
            NotPlain: if it is not plain data, or too long; nothing is sent.
            OSError: if nobody listens; TimeoutError if nobody does in time.
        """
        unsent = memoryview(frame(message, handle))
        while unsent:
            self._wait(select.POLLOUT)
            with contextlib.suppress(BlockingIOError):
                unsent = unsent[os.write(self.descriptor, unsent[: 1 << 16]) :]

    def receive(self, handle: plain.Handle | None = None) -> Any:
        """Wait for what the other end says.

        Raises:
            EOFError: if it has hung up, or says more than is read.
            NotPlain: if it is not plain data.
            TimeoutError: if it does not say it in time.
        """
        (length,) = HEADER.unpack(self._read(HEADER.size))
        if length > self.longest:
            raise EOFError(f"a message of {length:,} bytes is more than {self.longest:,}")
        return plain.loads(self._read(length), handle)

    def _read(self, size: int) -> bytes:
        while len(self._heard) < size:
            self._wait(select.POLLIN)
            try:
                piece = os.read(self.descriptor, max(PIECE, size - len(self._heard)))
            except ConnectionError:
                piece = b""
            if not piece:
                raise EOFError("hung up")
            self._heard += piece
        content = bytes(self._heard[:size])
        del self._heard[:size]
        return content

    def _wait(self, event: int) -> None:
        if self.until is None:
            return
        if event not in self._polls:
            self._polls[event] = select.poll()
            self._polls[event].register(self.descriptor, event)
        if not self._polls[event].poll(max(0.0, self.until - time.monotonic()) * 1000):
            raise TimeoutError
