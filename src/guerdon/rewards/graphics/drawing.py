"""Drawing SVG by resvg, in a process of its own that is bounded in time and memory."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.core.errors import GuerdonError
from guerdon.rewards.graphics import renderer
from guerdon.rewards.graphics.source import Box, Source
from guerdon.rewards.image.reading import Picture

LONGEST_SIDE = 3  # times the shorter one, at most: 1536 pixels beside 512
_KEPT = str(1 << 24)  # bytes that one drawing needed and the next one finds, rather than fresh pages of the kernel's


class NotDrawn(ValueError):
    """A drawing that the renderer refused, or did not end."""


def canvas(box: Box, side: int) -> tuple[int, int]:
    """Width and height in pixels of a picture of a view box, whose shorter side is `side`.

    >>> canvas((0, 0, 24, 48), 512), canvas((0, 0, 24, 240), 512)
    ((512, 1024), (154, 1536))
    """
    wide, high = box[2], box[3]
    scale = min(side / min(wide, high), LONGEST_SIDE * side / max(wide, high))
    return max(1, round(wide * scale)), max(1, round(high * scale))


def draw(
    source: Source,
    box: Box,
    size: tuple[int, int],
    *,
    seconds: float = 2.0,
    memory: int = 1024,
    fonts: tuple[str, ...] = (),
) -> Picture:
    """The picture of a document on white.

    Args:
        source: looked through by `read_svg`.
        box: the part of the plane that is drawn.
        size: width and height in pixels.
        seconds: of CPU.
        memory: MiB.
        fonts: files; without any, text is not drawn, whatever fonts this machine has.

    Raises:
        NotDrawn: if it could not be drawn within these bounds; says why.
    """
    import cv2

    data = _renderer(seconds, memory, fonts, os.getpid()).draw(source.framed(box, *size), *size)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None or pixels.shape[:2] != size[::-1]:
        raise NotDrawn("it was drawn at another size")
    return np.asarray(pixels, np.uint8)


@lru_cache(maxsize=4)
def _renderer(seconds: float, memory: int, fonts: tuple[str, ...], process: int) -> Renderer:
    """This process's own: a fork of it starts another."""
    return Renderer(seconds, memory, fonts)


class Renderer:
    """A process that draws one SVG after the other; one that ended is replaced.

    Args:
        seconds: of CPU, for each drawing.
        memory: MiB.
        fonts: files.
    """

    def __init__(self, seconds: float, memory: int, fonts: tuple[str, ...] = ()) -> None:
        self._seconds = seconds
        self._command = [sys.executable, str(Path(renderer.__file__)), str(seconds), str(memory), *fonts]
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def draw(self, svg: str, width: int, height: int) -> bytes:
        """PNG.

        Raises:
            NotDrawn: if the renderer refused it or did not end.
            GuerdonError: if there is no renderer.
        """
        data = svg.encode()
        request = renderer.REQUEST.pack(width, height, len(data)) + data
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                self.close()
                self._child = self._started()
            answer = self._asked(self._child, request)
        if not isinstance(answer, bytes):
            raise NotDrawn(self._why(answer))
        drawn, _ = renderer.REPLY.unpack(answer[: renderer.REPLY.size])
        rest = answer[renderer.REPLY.size :]
        if not drawn:
            raise NotDrawn(rest.decode(errors="replace") or "refused")
        return rest

    def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()

    def _started(self) -> subprocess.Popen[bytes]:
        place = os.pathsep.join(path for path in sys.path if path)
        child = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            env={
                "PYTHONPATH": place, "PYTHONSAFEPATH": "1",
                "MALLOC_TRIM_THRESHOLD_": _KEPT, "MALLOC_MMAP_THRESHOLD_": _KEPT,
            },
            close_fds=True,
        )  # fmt: skip
        probe = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
        answer = self._asked(child, renderer.REQUEST.pack(1, 1, len(probe)) + probe)
        if not isinstance(answer, bytes):
            raise GuerdonError(f"the renderer of SVG does not start: {self._why(answer)}")
        return child

    def _asked(self, child: subprocess.Popen[bytes], request: bytes) -> bytes | int:
        """The reply, or how the process ended."""
        if child.stdin is None or child.stdout is None:
            raise GuerdonError("the renderer of SVG has no pipes")
        try:
            _send(child.stdin, request)
            head = _receive(child.stdout, renderer.REPLY.size)
            return head + _receive(child.stdout, renderer.REPLY.unpack(head)[1])
        except (OSError, EOFError):
            return child.wait()

    def _why(self, status: int) -> str:
        if status == -signal.SIGPROF:
            return f"it takes more than {self._seconds:g} s to draw"
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
        return f"the renderer gave up, by memory or depth ({name})"


def _send(pipe: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[pipe.write(view) :]


def _receive(pipe: Any, size: int) -> bytes:
    parts = []
    while size:
        part = pipe.read(size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
