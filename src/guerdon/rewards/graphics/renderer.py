"""The process that draws: SVG in, PNG out, over a pipe; the kernel ends a drawing that takes too much.

Started as a file by `drawing`, with the seconds of CPU per drawing and the MiB of memory. What a drawing may want
without end (copies of copies, filters, dashes) costs this process, and not the one that scores.
"""

from __future__ import annotations

import resource
import signal
import struct
import sys

REQUEST = struct.Struct("<III")  # width, height, bytes of SVG
REPLY = struct.Struct("<?I")  # whether it was drawn, bytes of PNG or of the reason


def main() -> None:
    """Draw what is asked for until the pipe closes."""
    seconds, memory, *fonts = float(sys.argv[1]), int(sys.argv[2]) << 20, *sys.argv[3:]
    import resvg_py

    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while len(head := source.read(REQUEST.size)) == REQUEST.size:
        width, height, size = REQUEST.unpack(head)
        svg = source.read(size).decode()
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            data = bytes(
                resvg_py.svg_to_bytes(
                    svg_string=svg,
                    width=width,
                    height=height,
                    background="#ffffff",
                    skip_system_fonts=True,
                    font_files=list(fonts) or None,
                )
            )
            drawn = True
        except BaseException as error:  # a panic in Rust is no Exception
            drawn, data = False, str(error).encode(errors="replace")[:500]
        signal.setitimer(signal.ITIMER_PROF, 0)
        sink.write(REPLY.pack(drawn, len(data)) + data)
        sink.flush()


if __name__ == "__main__":
    main()
