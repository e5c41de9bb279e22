"""The process that judges: it runs the task's tests, and calls the program in another process.

What the tests name is, in this order: what they or the task's setup define; the program's functions under
test; built-in; a module of the standard library, a name imported from one, `isclose` and `deepcopy`; last, what
else the program defines. So a program cannot slip the tests an `abs`, a `math` or an `isclose` of its own.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import sys
import traceback
from functools import partial
from typing import Any

from guerdon.sandbox.inside.channel import Channel
from guerdon.sandbox.inside.peer import Function, Lost, Peer

ALIASES = {"np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot"}
COMPARING = {"isclose": "math", "deepcopy": "copy"}  # what tests compare with, imported or not
LONGEST_MESSAGE = 500  # characters


def serve_tests(channel: Channel, program: Channel) -> int:
    """Get ready for the tests that come over the channel, then run each that is asked for."""
    setup, tests, under_test = channel.receive()
    namespace: dict[str, Any] = {"__name__": "tests"}
    peer = Peer(program)
    try:
        exec(compile(setup, "setup.py", "exec", dont_inherit=True), namespace)
        for name in under_test:
            namespace[name] = _function(peer, name)
        codes = [compile(test, "test.py", "exec", dont_inherit=True) for test in tests]
        free = _free_names([setup, *tests]) - set(namespace) - set(dir(builtins))
        namespace.update(_known(free))
    except BaseException as error:
        channel.send(("broken", _message(error)))
        return 0
    channel.send(("sound",))
    try:
        namespace.update(_from_program(peer, sorted(free - set(namespace))))
    except BaseException as error:  # whatever the program says of itself is no fault of the tests
        channel.send(("lost", str(error) if isinstance(error, Lost) else _message(error)))
        return 0
    channel.send(("ready",))
    while True:
        try:
            number = channel.receive()
        except EOFError:
            return 0
        try:
            exec(codes[number], namespace)
            channel.send(("passed",))
        except BaseException as error:
            channel.send(("failed", _message(error)))


def _free_names(sources: list[str]) -> set[str]:
    """What is read and bound nowhere in some sources."""
    read: set[str] = set()
    bound: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Name):
                (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                bound.add(node.name)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.alias):
                bound.add((node.asname or node.name).partition(".")[0])
            elif isinstance(node, ast.ExceptHandler) and node.name:
                bound.add(node.name)
    return read - bound


def _known(names: set[str]) -> dict[str, Any]:
    found = {}
    for name in names:
        module = ALIASES.get(name, name)
        if name in ALIASES or name in sys.stdlib_module_names:
            with contextlib.suppress(ImportError):
                found[name] = importlib.import_module(module)
        elif name in COMPARING:
            found[name] = getattr(importlib.import_module(COMPARING[name]), name)
    return found


def _from_program(peer: Peer, names: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, kind in (peer.describe(names) if names else {}).items():
        match kind:
            case ("callable", module):
                found[name] = _imported(name, module) or _function(peer, name)
            case ("exception", list() as bases) if bases and all(isinstance(base, str) for base in bases):
                found[name] = peer.exception(bases)
            case ("value", value):
                found[name] = value
    return found


def _function(peer: Peer, name: str) -> Function:
    return Function(partial(peer.call, name), peer)


def _imported(name: str, module: Any) -> Any:
    """What a name of the standard library's stands for, where the program says it imported it from there."""
    if not isinstance(module, str) or module.partition(".")[0].lstrip("_") not in sys.stdlib_module_names:
        return None
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def _message(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in ("test.py", "setup.py")]
    at = f"line {frames[0].lineno}: " if frames else ""
    return f"{at}{type(error).__name__}: {error}".rstrip(": ")[:LONGEST_MESSAGE]
