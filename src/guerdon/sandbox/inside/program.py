"""A whole program: what it reads and writes goes through its standard streams."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import traceback
import types
from typing import Any

from guerdon.sandbox.inside.channel import Channel

MOST_FRAMES = 20  # of a traceback


def run_program(channel: Channel) -> int:
    """Run the source that comes over the channel as `__main__`; its exit code."""
    source = channel.receive()
    os.close(channel.descriptor)
    code = 0
    try:
        exec(compiled(source), module("__main__"))
        if "threading" in sys.modules:  # it is not imported here: it has much to do after each fork
            sys.modules["threading"]._shutdown()
    except SystemExit as stop:
        code = _exit_code(stop.code)
    except BaseException:
        code = 1
        with contextlib.suppress(BaseException):  # streams that are closed or patched
            traceback.print_exc(limit=-MOST_FRAMES)
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        code = code or 1
    return code


def compiled(source: str) -> types.CodeType:
    """A program's code.

    Raises:
        SyntaxError: if it is not Python; for text that no parser takes, too.
    """
    try:
        return compile(source, "program.py", "exec", dont_inherit=True)
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:  # null bytes, deep nesting
        raise SyntaxError(f"{type(error).__name__}: {error}") from None


def module(name: str) -> dict[str, Any]:
    """The names of a new module that can be imported under its name."""
    made = sys.modules[name] = types.ModuleType(name)
    return made.__dict__


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1
