"""A program whose definitions are called, one call at a time, from outside this process.

Only plain data leaves it. It may say what it likes: what it says is the value of a call and nothing else.
"""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Callable
from typing import Any

from guerdon.sandbox.inside.channel import Channel
from guerdon.sandbox.inside.plain import NotPlain, dumps
from guerdon.sandbox.inside.program import compiled, module

LONGEST_MESSAGE = 500  # characters of an error


def serve_calls(channel: Channel) -> int:
    """Load the program that comes over the channel, then answer requests until there are no more."""
    source = channel.receive()
    namespace = module("program")
    try:
        exec(compiled(source), namespace)
    except BaseException as error:
        channel.send(("raised", *_raised(error)))
        return 1
    channel.send(("loaded",))
    program = Program(namespace)
    while True:
        try:
            ticket, *request = channel.receive(program.held)
        except EOFError:
            return 0
        try:
            answer = program.answer(*request)
        except BaseException as error:  # SystemExit and KeyboardInterrupt too
            answer = ("raised", *_raised(error))
        try:
            channel.send((ticket, *answer), program.hold)
        except NotPlain as error:
            channel.send((ticket, "raised", ["TypeError"], str(error)))


class Program:
    """The names a program has defined, and the objects that were handed out."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._names = namespace
        self._objects: list[Any] = []
        self._may_hold = False

    def hold(self, value: Any) -> int:
        """Keep an object that others know by its number.

        Raises:
            NotPlain: where only plain data is wanted.
        """
        if not self._may_hold:
            raise NotPlain(f"the result is not plain data: {type(value).__name__}")
        self._objects.append(value)
        return len(self._objects) - 1

    def held(self, number: Any) -> Any:
        """The object with a number."""
        return self._objects[number]

    def answer(self, what: str, *details: Any) -> tuple[Any, ...]:
        """Do one of the methods below."""
        self._may_hold = False
        known: dict[str, Callable[..., tuple[Any, ...]]] = {
            "call": self._call,
            "method": self._method,
            "get": self._get,
            "describe": self._describe,
        }
        return known[what](*details)

    def _call(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any], back: bool) -> tuple[Any, ...]:
        function = self._names.get(name)
        if function is None and isinstance(self._names.get("Solution"), type):  # as LeetCode has it
            function = getattr(self._names["Solution"](), name, None)
        if function is None:
            raise NameError(f"name {name!r} is not defined")
        return self._result(function, arguments, keywords, back, isinstance(function, type) and name[:1].isupper())

    def _method(
        self, owner: Any, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any], back: bool
    ) -> tuple[Any, ...]:
        return self._result(getattr(owner, name), arguments, keywords, back, True)

    def _result(
        self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], back: bool, objects: bool
    ) -> tuple[Any, ...]:
        before = dumps(arguments, id) if back else b""
        value = function(*arguments, **keywords)
        self._may_hold = objects
        changed = arguments if back and dumps(arguments, id) != before else None
        return "value", value, changed

    def _get(self, owner: Any, name: str) -> tuple[Any, ...]:
        value = getattr(owner, name)
        if callable(value):
            return ("method",)
        self._may_hold = True
        return "value", value

    def _describe(self, names: list[str]) -> tuple[Any, ...]:
        return "value", {name: _kind(self._names[name]) for name in names if name in self._names}


def _kind(value: Any) -> tuple[Any, ...]:
    if isinstance(value, types.ModuleType):
        return "module", value.__name__
    if isinstance(value, type) and issubclass(value, BaseException):
        return "exception", _builtin_names(value)
    if callable(value):
        return "callable", getattr(value, "__module__", None)
    try:
        dumps(value)
    except NotPlain:
        return ("other",)
    return "value", value


def _raised(error: BaseException) -> tuple[list[str], str]:
    try:
        message = str(error)[:LONGEST_MESSAGE]
    except BaseException:
        message = ""
    return _builtin_names(type(error)), message


def _builtin_names(kind: type) -> list[str]:
    """What an exception is, most special first; of its own classes only the first, by which others may catch it."""
    bases = [base for base in kind.__mro__ if base is not object]
    known = [base.__name__ for base in bases if getattr(builtins, base.__name__, None) is base]
    return known if bases and bases[0].__name__ in known else [kind.__name__, *known]


sys.setrecursionlimit(sys.getrecursionlimit() + 50)  # a program has as many frames as it would have by itself
