"""A generated program as its judges see it: names to call, in another process, that give plain data."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from guerdon.sandbox.inside.channel import Channel
from guerdon.sandbox.inside.plain import NotPlain

LONGEST_MESSAGE, LONGEST_NAME = 500, 100  # characters of an error that are passed on, to stand in many a log
MOST_NAMES = 20  # of its classes


class Lost(Exception):
    """The program has ended, or does not keep to the protocol."""


class Raised(Exception):
    """The program raised an exception.

    Args:
        names: of its class and its built-in bases, most special first.
        message: what it says.
    """

    def __init__(self, names: list[str], message: str) -> None:
        super().__init__(f"{names[0]}: {message}".rstrip(": "))
        self.names, self.message = names, message


class Peer:
    """The other end of `serve_calls`.

    Args:
        channel: to the process that the program runs in.
        objects: whether answers may be objects of the program's, to ask further, or plain data only.
    """

    def __init__(self, channel: Channel, *, objects: bool = True) -> None:
        self._channel = channel
        self._object = partial(Remote, self) if objects else None
        self._classes: dict[str, type[BaseException]] = {}

    def wait(self) -> None:
        """Wait until the program has run, and so defined its names.

        Raises:
            Lost: if it ends instead.
            Raised: if it raises.
            TimeoutError: if the channel's time is over.
        """
        if self._read() != ("loaded",):
            raise Lost("the program does not keep to the protocol")

    def ask(self, what: str, *details: Any) -> tuple[Any, ...]:
        """Make one of the requests that `Program.answer` knows; its answer, of which nothing is certain.

        Raises:
            Lost: if the program does not answer, or answers something else.
            Raised: if it raises.
            NotPlain: if the request holds what cannot be sent.
            TimeoutError: if the channel's time is over.
        """
        ticket = int.from_bytes(os.urandom(6), "big")
        try:
            self._channel.send((ticket, what, *details), _number)
        except ConnectionError as error:
            raise Lost(f"the program has ended: {error}") from None
        answered, *answer = self._read()
        if type(answered) is not int or answered != ticket:
            raise Lost("the program answered what it was not asked")
        return tuple(answer)

    def call(
        self, name: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any] | None = None, *, in_place: bool = True
    ) -> Any:
        """The value of a call. Raises as `ask` does.

        Args:
            name: what is called.
            arguments: plain data.
            keywords: plain data.
            in_place: whether arguments that it changes are changed here, too.
        """
        return self._value("call", name, arguments, dict(keywords or {}), in_place=in_place)

    def method(self, owner: Remote, name: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """The value of a method's call."""
        return self._value("method", owner, name, arguments, dict(keywords))

    def attribute(self, owner: Remote, name: str) -> Any:
        """An attribute of an object."""
        answer = self.ask("get", owner, name)
        return Function(partial(self.method, owner, name), self) if answer == ("method",) else _only(answer)

    def describe(self, names: list[str]) -> dict[str, tuple[Any, ...]]:
        """What the program says that some names stand for; those it has not defined are left out."""
        described = _only(self.ask("describe", names))
        if not isinstance(described, dict) or not set(described) <= set(names):
            raise Lost("the program answered what it was not asked")
        return described

    def _value(self, what: str, *details: Any, in_place: bool = True) -> Any:
        arguments = details[-2]
        back = in_place and any(type(value) in _UPDATES for value in arguments)
        answer = self.ask(what, *details, back)
        value = _only(answer[:2])
        if back and len(answer) == 3 and isinstance(answer[2], tuple):
            for mine, theirs in zip(arguments, answer[2], strict=False):
                _assign(mine, theirs)
        return value

    def exception(self, names: list[str]) -> type[BaseException]:
        """The class of an exception of the program's, by the names of its bases, most special first."""
        own, *known = names
        kind = getattr(builtins, own, None)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            # SystemExit would end the judge; StopIteration a loop of a test's, before all is tested (as in PEP 479).
            harmless = issubclass(kind, Exception) and not issubclass(kind, (StopIteration, StopAsyncIteration))
            return kind if harmless else RuntimeError
        base = self.exception(known) if known else Exception
        return self._classes.setdefault(own, type(own, (base,), {}))

    def _read(self) -> tuple[Any, ...]:
        try:
            answer = self._channel.receive(self._object)
        except (EOFError, ConnectionError, NotPlain) as error:
            raise Lost(f"the program has ended: {error}") from None
        if not isinstance(answer, tuple) or not answer:
            raise Lost("the program does not keep to the protocol")
        match answer:
            case ("raised", list() as names, str() as message) | (_, "raised", list() as names, str() as message):
                known = [name[:LONGEST_NAME] for name in names[:MOST_NAMES] if isinstance(name, str)]
                raise Raised(known or ["Exception"], message[:LONGEST_MESSAGE])
        return answer


class Function:
    """Something of the program's that can be called.

    Args:
        call: gives the value of a call with arguments and keywords.
        peer: knows the classes of the program's exceptions.
    """

    def __init__(self, call: Callable[[tuple[Any, ...], dict[str, Any]], Any], peer: Peer) -> None:
        self._call, self._peer = call, peer

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        try:
            return self._call(arguments, keywords)
        except Raised as error:
            raise self._peer.exception(error.names)(error.message) from None


class Remote:
    """An object of the program's, of a class that the judge has called by name.

    Its methods and attributes can be asked for. No operator is passed on: an object that is free to say what it
    is equal to, or contains, would be right whatever is expected.
    """

    __slots__ = ("_number", "_peer")

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._peer.attribute(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("attributes of the program's objects cannot be set from outside")


def _only(answer: tuple[Any, ...]) -> Any:
    if len(answer) != 2 or answer[0] != "value":
        raise Lost("the program does not keep to the protocol")
    return answer[1]


def _number(value: Any) -> int:
    if type(value) is not Remote:
        raise NotPlain(f"{type(value).__name__} cannot be sent to the program")
    number: int = value._number
    return number


def _assign(mine: Any, theirs: Any) -> None:
    """Let one of my arguments be what the program has made of its copy."""
    update = _UPDATES.get(type(mine))
    if update is not None and type(theirs) is type(mine) and _differ(mine, theirs):
        mine.clear()
        getattr(mine, update)(theirs)


def _differ(mine: Any, theirs: Any) -> bool:
    try:
        return bool(mine != theirs)
    except Exception:  # an array in it that says so element by element, a signalling NaN
        return True


_UPDATES: Mapping[type, str] = {list: "extend", dict: "update", set: "update", bytearray: "extend"}
