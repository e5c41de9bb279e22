"""Plain data as JSON and back: what may cross between a generated program and those who judge it.

Values are checked by exact type, at every depth: a subclass may lie about what it is equal to. JSON has
no tuple, set or complex number, so everything but None, bool, int, float, str and list is written as an
object with one key, its type. Nothing that is read is ever called or looked up.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any

DEEPEST = 100  # levels of nesting
MOST_ITEMS = 100_000  # that an iterator may give
LARGEST_ARRAY = 1 << 26  # bytes
LONGEST_INT = 10_000  # bits of an int that is written in decimal, which takes quadratic time
LONGEST_FRACTION = 1 << 16  # bits of a numerator or denominator: reducing it takes quadratic time
MOST_ALIKE = 100  # different items of one hash: looking one up takes as long as there are others

_SCALARS = frozenset((type(None), bool, float, str))
_NUMBERS_AND_TEXT = frozenset((bool, int, float, complex, str))
_EXAMPLES: tuple[Any, ...] = (
    (i for i in ""), iter([]), iter(()), iter({}), iter(set()), iter(""), iter(range(0)), map(len, ()),
    filter(None, ()), zip(), enumerate(()), reversed([]), {}.keys(), {}.values(), {}.items(),
)  # fmt: skip
_ITERATORS = frozenset(map(type, _EXAMPLES))
_JSON = json.JSONEncoder(separators=(",", ":"))

Handle = Callable[[Any], Any]


class NotPlain(TypeError):
    """A value that is not plain data."""


def dumps(value: Any, handle: Handle | None = None) -> bytes:
    """A value as JSON.

    Args:
        value: None, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, range, deque, Decimal,
            Fraction, dates and times, NumPy arrays and numbers, nested; iterators give their items, and the
            standard library's dicts and named tuples become plain ones.
        handle: gives something JSON can hold for any other object, which is then written under the key 'handle'.

    Raises:
        NotPlain: if something in it is of another type, too deep, or endless.
    """
    try:
        return _JSON.encode(_encode(value, handle, 0)).encode("ascii")
    except (ValueError, RecursionError) as error:
        raise NotPlain(f"{_kind(value)} cannot be written: {error}") from None


def loads(data: bytes, handle: Handle | None = None) -> Any:
    """The value that `dumps` wrote.

    Args:
        data: from outside; anything.
        handle: gives an object for what was written under 'handle'.

    Raises:
        NotPlain: if it is not what `dumps` writes.
    """
    try:
        return _decode(json.loads(data), handle)
    except NotPlain:
        raise
    except (ValueError, TypeError, ArithmeticError, RecursionError, MemoryError, ImportError) as error:
        raise NotPlain(f"not plain data: {type(error).__name__}: {str(error)[:200]}") from None


def _encode(value: Any, handle: Handle | None, depth: int) -> Any:
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is int:
        return value if value.bit_length() <= LONGEST_INT else {"int": hex(value)}
    if depth > DEEPEST:
        raise NotPlain(f"nests deeper than {DEEPEST} levels")
    if kind is list:
        return _items(value, handle, depth)
    if kind is tuple:
        return {"tuple": _items(value, handle, depth)}
    if kind in (dict, OrderedDict, defaultdict, Counter):
        return {"dict": [_items(pair, handle, depth) for pair in dict.items(value)]}
    if kind in (set, frozenset, deque):
        return {kind.__name__: _items(list(value), handle, depth)}
    if kind in (bytes, bytearray):
        return {kind.__name__: value.hex()}
    if kind is complex:
        return {"complex": [value.real, value.imag]}
    if kind is range:
        return {"range": [value.start, value.stop, value.step]}
    if kind is Fraction:
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > LONGEST_FRACTION:
            raise NotPlain(f"a fraction of ints of more than {LONGEST_FRACTION:,} bits is not plain data")
        return {"Fraction": _items([value.numerator, value.denominator], handle, depth)}
    if kind is Decimal:
        return {"Decimal": str(value)}
    if kind in (datetime, date, time) and getattr(value, "tzinfo", None) is None:
        return {kind.__name__: value.isoformat()}
    if kind is timedelta:
        return {"timedelta": [value.days, value.seconds, value.microseconds]}
    if kind in _ITERATORS or kind.__module__ == "itertools":
        items = list(islice(value, MOST_ITEMS + 1))
        if len(items) > MOST_ITEMS:
            raise NotPlain(f"{kind.__name__} gives more than {MOST_ITEMS:,} items")
        return {"iterator": _items(items, handle, depth)}
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return {"tuple": _items(list(tuple.__iter__(value)), handle, depth)}
    if kind.__module__ == "numpy":
        numpy = sys.modules["numpy"]
        if kind is numpy.ndarray and value.dtype.kind in "biufcU":
            return {"ndarray": [value.dtype.str, list(value.shape), _items(value.ravel().tolist(), handle, depth)]}
        if issubclass(kind, numpy.generic) and value.dtype.kind in "biufcU":
            return {"scalar": [value.dtype.str, _encode(value.item(), handle, depth + 1)]}
    if handle is None:
        raise NotPlain(f"{_kind(value)} is not plain data")
    return {"handle": handle(value)}


def _items(values: Any, handle: Handle | None, depth: int) -> list[Any]:
    if _SCALARS.issuperset(map(type, values)):
        return list(values)
    return [_encode(item, handle, depth + 1) for item in values]


def _decode(data: Any, handle: Handle | None) -> Any:
    if type(data) is list:
        return [_decode(item, handle) if type(item) in (list, dict) else item for item in data]
    if type(data) is not dict:
        return data
    if len(data) != 1:
        raise NotPlain("not plain data: an object with several keys")
    ((kind, content),) = data.items()
    if kind == "handle" and handle is not None:
        return handle(content)
    if kind in _COLLECTIONS:
        if type(content) is not list:  # nor what decodes to something to go through: a range can be longer than memory
            raise NotPlain(f"not plain data: the items of a {kind} are no list")
        return _COLLECTIONS[kind](_decode(content, handle))
    if kind in _ATOMS:
        return _ATOMS[kind](content)
    raise NotPlain(f"not plain data: {kind[:40]!r}")


def _spread(items: list[Any]) -> list[Any]:
    """Items as they are, unless they were chosen to have one hash."""
    if len(items) > MOST_ALIKE and max(Counter(map(hash, items)).values()) > MOST_ALIKE:
        raise NotPlain(f"not plain data: more than {MOST_ALIKE} items of one hash")
    return items


def _dict(pairs: list[Any]) -> dict[Any, Any]:
    keys = _spread([key for key, _ in pairs])
    return dict(zip(keys, (item for _, item in pairs), strict=True))


def _fraction(parts: list[Any]) -> Fraction:
    if [type(part) for part in parts] != [int, int] or max(map(int.bit_length, parts)) > LONGEST_FRACTION:
        raise NotPlain("not plain data: a fraction of anything but two ints, or of too long ones")
    return Fraction(*parts)


def _ndarray(content: list[Any]) -> Any:
    import numpy

    kind, shape, items = content
    if not re.fullmatch(r"[<>|=][biufcU][0-9]{1,9}", kind):
        raise NotPlain(f"not plain data: an array of {kind!r:.40}")
    if type(items) is not list or not _NUMBERS_AND_TEXT.issuperset(map(type, items)):
        raise NotPlain("not plain data: an array of anything but numbers or text")
    dtype = numpy.dtype(kind)
    if dtype.itemsize * len(items) > LARGEST_ARRAY:
        raise NotPlain(f"not plain data: an array of {len(items)} × {kind}")
    return numpy.array(items, dtype).reshape(shape)


def _scalar(content: Any) -> Any:
    kind, item = content
    return _ndarray([kind, [], [item]])[()]


_COLLECTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "dict": _dict,
    "set": lambda items: set(_spread(items)),
    "frozenset": lambda items: frozenset(_spread(items)),
    "deque": deque,
    "iterator": iter,
    "complex": lambda parts: complex(*parts),
    "Fraction": _fraction,
    "ndarray": _ndarray,
    "scalar": _scalar,
}
_ATOMS: dict[str, Callable[[Any], Any]] = {
    "int": lambda digits: int(digits, 16),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "range": lambda bounds: range(*bounds),
    "Decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda parts: timedelta(*parts),
}


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"
