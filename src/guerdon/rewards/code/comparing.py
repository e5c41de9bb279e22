"""Whether what a program gave or printed is what was expected."""

from __future__ import annotations

import math
import re
from typing import Any

_WHOLE = re.compile(rb"[+-]?\d++")
_NUMBER = re.compile(rb"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?")  # possessive: a long word takes linear time


def near(value: float, expected: float, tolerance: float) -> bool:
    """Whether two finite numbers agree to a tolerance, absolute or relative:

        |value − expected| ≤ tolerance · max(1, |expected|)

    >>> near(1000.0009, 1000.0, 1e-6), near(0.0009, 0.0, 1e-6)
    (True, False)

    Source: the checkers of programming contests (testlib's `doubleCompare`).
    """
    try:
        return math.isfinite(value) and abs(value - expected) <= tolerance * max(1.0, abs(expected)) < math.inf
    except OverflowError:  # a whole number that no float can hold
        return False


def same_tokens(printed: bytes, expected: str, tolerance: float | None) -> bool:
    """Whether two texts are the same words, whatever white space is between them.

    With a tolerance, words that are numbers are compared by `near`, unless both are whole: a count is right or wrong.

    >>> same_tokens(b"1 2\\n3.0000001\\n", "1\\n2\\n3.0", 1e-6), same_tokens(b"1000000", "1000001", 1e-6)
    (True, False)
    """
    ours, theirs = printed.split(), expected.encode("utf-8", "surrogatepass").split()
    if tolerance is None or len(ours) != len(theirs):
        return ours == theirs
    return all(a == b or _near_words(a, b, tolerance) for a, b in zip(ours, theirs, strict=True))


def _near_words(word: bytes, expected: bytes, tolerance: float) -> bool:
    if not (_NUMBER.fullmatch(word) and _NUMBER.fullmatch(expected)):
        return False
    if _WHOLE.fullmatch(word) and _WHOLE.fullmatch(expected):
        return False
    return near(float(word), float(expected), tolerance)


def same_data(value: Any, expected: Any, tolerance: float | None) -> bool:
    """Whether two values are equal as plain data.

    Lists, tuples and arrays of the same items are the same, at every depth: JSON, which tests are written in, has
    one kind only. NaN is the same as NaN, or no program could give what a test expects. Everything else is
    compared by `==`, and with a tolerance two numbers by `near`, unless both are whole.

    >>> same_data([(1, 2.0)], [[1, 2]], None), same_data(0.1 + 0.2, 0.3, 1e-9), same_data({1, 2}, [1, 2], None)
    (True, True, False)
    """
    if type(value).__module__ == "numpy":
        value = value.tolist()
    if isinstance(value, (list, tuple)) and isinstance(expected, (list, tuple)):
        return len(value) == len(expected) and all(map(same_data, value, expected, [tolerance] * len(value)))
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(same_data(value[k], expected[k], tolerance) for k in value)
    if equal(value, expected) or (_nan(value) and _nan(expected)):
        return True
    numbers = _real(value) and _real(expected) and float in (type(value), type(expected))
    return numbers and tolerance is not None and near(value, expected, tolerance)


def _nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def equal(value: Any, expected: Any) -> bool:
    """Whether `assert value == expected` passes; of plain data, no `==` is the program's own."""
    try:
        return bool(value == expected)
    except Exception:  # as of an array of several, or of signalling decimals
        return False


def true(value: Any) -> bool:
    """Whether `assert value` passes."""
    try:
        return bool(value)
    except Exception:
        return False


def false(value: Any) -> bool:
    """Whether `assert not value` passes."""
    try:
        return not value
    except Exception:
        return False
