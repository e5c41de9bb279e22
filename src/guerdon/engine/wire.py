"""What the engine and a worker process say to each other, and how it is framed on their socket."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

HEADER = struct.Struct("=Q")

# A worker writes what it is doing into two float64s that it shares with the engine: when the present unit
# began (`time.monotonic`; 0 between units), and which unit of the chunk that is. The unit is written first,
# so that it is right whenever the beginning is not 0; each is written in one piece.
BEGAN, UNIT = 0, 1
CELL_BYTES = 16


class Chunk(NamedTuple):
    """To a worker: some units of one leaf."""

    key: bytes  # stands for the leaf
    leaf: bytes | None  # the leaf itself, pickled, where this worker has not met it
    path: list[str]  # where the leaf's modules are found
    forget: bytes | None  # the key of a leaf it may drop
    columns: bytes  # `Units.slices`, pickled
    units: int  # how many
    sizes: list[int] | None  # how many rows each unit has; None: units are rows
    deadline: float


class Ready(NamedTuple):
    """From a worker: it has started."""


class Unusable(NamedTuple):
    """From a worker: the leaf or the columns of the chunk could not be unpickled."""

    what: str  # 'leaf' or 'columns'
    reason: str


class Report(NamedTuple):
    """From a worker: the outcomes of the next units of its chunk. Places count rows from the last report."""

    units: int
    values: bytes  # float64, NaN where there is no score
    reasons: dict[int, str]
    details: dict[int, bytes]  # each pickled by itself, so that one that cannot be read spoils no other
    last: bool  # nothing more of this chunk: the units it has not reached are handed back
    seconds: float = 0.0  # that the units took


def frame(message: Any) -> bytes:
    """A message as bytes that say how long they are."""
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(content)) + content


class Frames:
    """The whole messages in a stream that arrives in pieces; a torn last one is never given."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, piece: bytes) -> Iterator[Any]:
        """The messages that `piece` completes."""
        self._bytes += piece
        while len(self._bytes) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._bytes)
            if len(self._bytes) < HEADER.size + length:
                return
            content = bytes(memoryview(self._bytes)[HEADER.size : HEADER.size + length])
            del self._bytes[: HEADER.size + length]
            yield pickle.loads(content)
