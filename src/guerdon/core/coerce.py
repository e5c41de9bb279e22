"""Plain data, as YAML and JSON give it, to the types a part's annotations ask for."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from typing import Any, Literal, Union

from guerdon.core.errors import SpecError, nearest


def coerce(value: Any, annotation: Any, where: str) -> Any:
    """`value` as `annotation` asks, or an error that says what was expected and where.

    Numbers are what this is for: YAML reads `1e-6` as text and `1` as an integer where a float is
    meant. Nothing is guessed beyond that: a text is not a truth value, and 2.5 is not an integer.

    >>> coerce("1e-6", float, "tolerance")
    1e-06
    >>> coerce([1, 2], tuple[float, ...], "weights")
    (1.0, 2.0)

    Raises:
        SpecError: if the value cannot be what is asked for.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return coerce(value, arguments[0], where)
    if annotation in (Any, None, type(None)) or annotation is object:
        if annotation in (None, type(None)) and value is not None:
            raise _wrong(value, "nothing (null)", where)
        return value
    if origin is Literal:
        for choice in arguments:
            if value == choice and type(value) is type(choice):
                return choice
        raise SpecError(f"{where}: {value!r} is not a choice: {nearest(str(value), map(str, arguments))}")
    if origin in (Union, types.UnionType):
        return _first_fit(value, arguments, where)
    if annotation is bool:
        if isinstance(value, bool):
            return value
        raise _wrong(value, "true or false", where)
    if annotation is float:
        return _number(value, where)
    if annotation is int:
        return _whole(value, where)
    if annotation is str:
        if isinstance(value, str):
            return value
        raise _wrong(value, "text", where)
    if origin is tuple or annotation is tuple:
        return _tuple(value, arguments, where)
    if origin in (list, collections.abc.Sequence) or annotation in (list, collections.abc.Sequence):
        if isinstance(value, str) or not isinstance(value, collections.abc.Sequence):
            raise _wrong(value, "a list", where)
        inner = arguments[0] if arguments else Any
        return [coerce(v, inner, f"{where}[{i}]") for i, v in enumerate(value)]
    if origin in (dict, collections.abc.Mapping) or annotation in (dict, collections.abc.Mapping):
        if not isinstance(value, collections.abc.Mapping):
            raise _wrong(value, "a mapping", where)
        key, inner = arguments or (Any, Any)
        return {coerce(k, key, f"{where}.{k}"): coerce(v, inner, f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type) and not isinstance(value, annotation):
        return _dataclass(value, annotation, where)
    kind = annotation if isinstance(annotation, type) else origin
    if isinstance(kind, type) and not isinstance(value, kind):
        raise _wrong(value, kind.__name__, where)
    return value


def _dataclass(value: Any, kind: type, where: str) -> Any:
    """A dataclass from a mapping of its fields; what it refuses (ValueError, TypeError) is said with the place."""
    if not isinstance(value, collections.abc.Mapping):
        raise _wrong(value, f"a mapping with the fields of {kind.__name__}", where)
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    for key in value:
        if key not in fields:
            raise SpecError(f"{where}.{key}: there is no such setting: {nearest(str(key), fields)}".removeprefix("."))
    for name, f in fields.items():
        if name not in value and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise SpecError(f"{where}.{name} is missing".removeprefix("."))
    settings = {key: coerce(v, hints[key], f"{where}.{key}".removeprefix(".")) for key, v in value.items()}
    try:
        return kind(**settings)
    except (ValueError, TypeError) as error:
        raise SpecError(f"{where}: {error}".removeprefix(": ")) from error


def _first_fit(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in choices:
        return None
    exact = [c for c in choices if isinstance(c, type) and type(value) is c]
    problems = []
    for choice in exact or [c for c in choices if c is not type(None)]:
        try:
            return coerce(value, choice, where)
        except SpecError as problem:
            problems.append(problem)
    raise problems[0] if len(problems) == 1 else SpecError(" or ".join(str(p) for p in problems))


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool):
        raise _wrong(value, "a number", where)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise _wrong(value, "a number", where) from None
    if not isinstance(value, (int, float)):
        raise _wrong(value, "a number", where)
    try:
        return float(value)
    except OverflowError:
        raise _wrong(value, "a number that a float can hold", where) from None


def _whole(value: Any, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = _number(value, where)
    if not number.is_integer():
        raise _wrong(value, "a whole number", where)
    try:
        return int(value)  # every digit of a text, where a float would round
    except ValueError:
        return int(number)


def _tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, collections.abc.Sequence):
        raise _wrong(value, "a list", where)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(coerce(v, arguments[0], f"{where}[{i}]") for i, v in enumerate(value))
    if arguments and len(arguments) != len(value):
        raise _wrong(value, f"a list of {len(arguments)}", where)
    return tuple(
        coerce(v, a, f"{where}[{i}]")
        for i, (v, a) in enumerate(zip(value, arguments or [Any] * len(value), strict=True))
    )


def _wrong(value: Any, expected: str, where: str) -> SpecError:
    return SpecError(f"{where}: expected {expected}, got {value!r}")
