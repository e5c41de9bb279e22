"""Python values as bytes that tell them apart."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

LETTERS: dict[type, bytes] = {list: b"l%d:", tuple: b"t%d:"}
PLAIN_ARRAYS = "biufcSUmM"  # kinds of NumPy arrays whose bytes say all


def canonical(value: Any) -> bytes:
    """A value as bytes that are equal for equal values only; types and the sign of zero count.

    >>> canonical([1, "a"]) == canonical([1, "a"]), canonical(1) == canonical(1.0), canonical([]) == canonical(())
    (True, False, False)

    Raises:
        TypeError: for what is not text, bytes, numbers, None, arrays of those, or lists, tuples and
            mappings of all these. A subclass of one of them may behave otherwise and is not one.
        RecursionError: if it nests too deep, or holds itself.
    """
    if type(value) is str:  # most columns are text: worth a short way
        return _text(value)
    parts: list[bytes] = []
    _encode(value, parts.append)
    return b"".join(parts)


def _encode(value: Any, add: Callable[[bytes], None]) -> None:
    """Add the parts of `canonical`: a letter for the type, a length where there may be several, the content."""
    kind = type(value)
    if kind is str:
        add(_text(value))
    elif kind is bytes:
        add(b"b%d:" % len(value))
        add(value)
    elif value is None or kind is bool:
        add(b"N" if value is None else b"T" if value else b"F")
    elif kind is int:
        add(b"i%x;" % value)
    elif kind is float:
        add(struct.pack("<cd", b"f", value))
    elif kind is list or kind is tuple:
        add(LETTERS[kind] % len(value))
        for entry in value:
            _encode(entry, add)
    elif kind is dict:
        add(b"d%d:" % len(value))
        for key, entry in value.items():
            _encode(key, add)
            _encode(entry, add)
    elif (kind is np.ndarray or isinstance(value, np.generic)) and value.dtype.kind in PLAIN_ARRAYS:
        add(f"{'a' if kind is np.ndarray else 'g'}{value.dtype.str}{value.shape}:".encode())
        add(value.tobytes())
    else:
        raise TypeError(f"{kind.__name__} has no canonical form")


def _text(value: str) -> bytes:
    return f"s{len(value)}:{value}".encode("utf-8", "surrogatepass")
