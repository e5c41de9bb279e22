"""Plain data crosses unchanged, nothing else crosses, and reading what a program made up is never dear."""

import contextlib
import itertools
import json
import math
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import date, datetime, time as clock, timedelta
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from guerdon.sandbox import NotPlain
from guerdon.sandbox.inside import plain
from guerdon.sandbox.inside.plain import dumps, loads

numbers = st.integers() | st.integers(-(2**2000), 2**2000) | st.floats(allow_nan=False) | st.booleans()
hashable = st.recursive(
    st.none()
    | numbers
    | st.text(st.characters(), max_size=8)
    | st.binary(max_size=8)
    | st.complex_numbers(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.dates()
    | st.datetimes()
    | st.times()
    | st.timedeltas()
    | st.builds(range, st.integers(), st.integers(), st.integers(1, 9)),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=8,
)
values = st.recursive(
    hashable | st.binary(max_size=8).map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.sets(hashable, max_size=4)
        | st.lists(inner, max_size=4).map(deque)
    ),
    max_leaves=12,
)


def same(a, b):
    """Equal, and of one type at every depth; −0.0 is not 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    if isinstance(a, (list, tuple, deque)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a), list(b)) and same(list(a.values()), list(b.values()))
    return bool(a == b)


@given(values)
@example(-0.0)
@example({1: [True, 1.0], (2,): "\ud800", None: b"\0"})
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_with_its_exact_types(value):
    assert same(loads(dumps(value)), value)


@pytest.mark.parametrize("value", [math.nan, complex(0, math.nan), Decimal("NaN")], ids=str)
def test_nan_stays_what_it_is(value):
    read = loads(dumps(value))
    assert type(read) is type(value)
    assert read != read


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "as_read"),
    [
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, {1: [2]}), {1: [2]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (Pair(1, [2]), (1, [2])),
    ],
    ids=["OrderedDict", "defaultdict", "Counter", "namedtuple"],
)
def test_kinds_of_the_standard_library_become_plain_ones(value, as_read):
    assert same(loads(dumps(value)), as_read)


@pytest.mark.parametrize(
    "make",
    [
        lambda: iter([1, 2]),
        lambda: map(int, "12"),
        lambda: (n for n in (1, 2)),
        lambda: itertools.islice(itertools.count(1), 2),
        lambda: itertools.chain([1], [2]),
        lambda: {1: 0, 2: 0}.keys(),
        lambda: reversed([2, 1]),
        lambda: iter(range(1, 3)),
    ],
    ids=["list", "map", "generator", "islice", "chain", "keys", "reversed", "range"],
)
def test_an_iterator_gives_its_items_and_is_read_as_one(make):
    read = loads(dumps(make()))
    assert iter(read) is read
    assert list(read) == [1, 2]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.array([[0.5, -0.0], [np.inf, 2]], np.float32),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array(["a", "bcd"]),
        np.zeros((0, 3)),
        np.array(7, np.uint8),
        np.int16(-3),
        np.float64(0.1),
        np.bool_(True),
    ],
    ids=lambda a: f"{a.dtype}{list(a.shape)}",
)
def test_numpy_arrays_and_numbers_keep_type_and_shape(array):
    read = loads(dumps(array))
    assert type(read) is type(array)
    assert (read.dtype, read.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(read, array)


class Liar(int):
    """Equal to everything, which is why kinds of a type are not that type."""

    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    "value",
    [
        Liar(3),
        type("L", (list,), {})([1]),
        type("S", (str,), {})("a"),
        type("D", (dict,), {})(a=1),
        type("F", (float,), {})(0.5),
        object(),
        len,
        int,
        NotPlain,
        NotImplemented,
        ...,
        memoryview(b"a"),
        datetime(2020, 1, 1).astimezone(),
        np.array([object()]),
        np.array([(1, 2)], "i4,i4"),
        np.datetime64("2020-01-01"),
        itertools.count(),
        itertools.repeat(1),
        Fraction(1, 2**70_000),
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}",
)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: {"a": (1, v)}], ids=["", "in a list", "deep"])
def test_what_is_not_plain_is_refused_at_every_depth(value, wrap):
    with pytest.raises(NotPlain):
        dumps(wrap(value))


def test_a_kind_of_a_type_that_says_it_is_the_type_is_refused():
    class Kind(type):
        def __eq__(cls, other):
            return True

        def __hash__(cls):
            return hash(list)

    with pytest.raises((NotPlain, TypeError)):
        dumps(Kind("Anything", (), {})())


def test_what_holds_itself_or_nests_too_deep_is_refused():
    own, deep = [], []
    own.append(own)
    for _ in range(plain.DEEPEST + 2):
        deep = [deep]
    for value in (own, deep):
        with pytest.raises(NotPlain, match="nests deeper"):
            dumps(value)


def nested(kind, levels):
    value = 1
    for _ in range(levels):
        value = kind(value)
    return value


@pytest.mark.parametrize(
    "kind", [lambda v: [v], lambda v: (v,), lambda v: {"a": v}, lambda v: {(v,)}], ids=list("ltds")
)
def test_what_is_written_as_deep_as_may_be_is_read(kind):
    levels = plain.DEEPEST if kind(1).__class__ is not set else 1
    assert loads(dumps(nested(kind, levels))) == nested(kind, levels)


def test_handles_stand_for_what_is_not_plain():
    one, other = object(), object()
    held = [one, other]
    written = dumps([other, {"a": one}], held.index)
    assert json.loads(written) == [{"handle": 1}, {"dict": [["a", {"handle": 0}]]}]
    assert loads(written, held.__getitem__) == [other, {"a": one}]
    with pytest.raises(NotPlain):
        loads(written)


fragments = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["<i8", "|O", "<U9"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*plain._COLLECTIONS, *plain._ATOMS, "handle", "x"]), inner, max_size=2)
    ),
    max_leaves=10,
)


@given(fragments.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=64))
@example(b"")
@example(b"\xff\xfe")
@example(b"[" * 100_000)
@example(b'{"tuple":[' * 10_000)
@example(b"1" * 5000)
@example(b'{"ndarray":["(2,3",[1],[1]]}')
@example(b'{"ndarray":["<i8,<i8",[1],[1]]}')
@example(b'{"ndarray":["<i8",[1e9],[1]]}')
@example(b'{"scalar":["<U1",[]]}')
@example(b'{"Decimal":"1e99999999999999999999"}')
@example(b'{"timedelta":[1e300]}')
@example(b'{"range":[0,1,0]}')
@example(b'{"Fraction":[1,0]}')
@example(b'{"dict":[[1]]}')
@example(b'{"dict":{"range":[0,9]}}')
@settings(max_examples=500, deadline=None)
def test_whatever_is_read_gives_data_or_is_refused(data):
    with contextlib.suppress(NotPlain):
        loads(data)


def same_hash(n):
    """Ints k·(2⁶¹ − 1), all of which CPython hashes to 0."""
    return [k * (2**61 - 1) for k in range(n)]


@pytest.mark.parametrize(
    "message",
    [
        {"set": same_hash(100_000)},
        {"frozenset": same_hash(100_000)},
        {"dict": [[k, 0] for k in same_hash(100_000)]},
        {"set": {"range": [0, 10**9]}},
        {"tuple": {"range": [0, 10**9]}},
        {"deque": {"range": [0, 10**9]}},
        {"Fraction": ["1e999999999"]},
        {"Fraction": [{"Decimal": "1e999999999"}]},
        {"Fraction": [{"int": "7" * 10**6}, {"int": "3" * 10**6}]},
        {"ndarray": ["<U16000000", [1000], [["a"] * 1000]]},
        {"ndarray": ["<U16000000", [1000], ["a"] * 1000]},
        {"ndarray": ["|O", [1], [1]]},
        {"ndarray": ["<i8", [1000], {"range": [0, 1000]}]},
        {"ndarray": ["<i8", [10**18], {"range": [0, 10**18]}]},
        {"ndarray": ["(1000000,)<f8", [1], [1]]},
    ],
    ids=lambda message: f"{next(iter(message))}-{str(next(iter(message.values())))[:16]}",
)
def test_a_short_message_that_is_dear_to_read_is_refused(message):
    with pytest.raises(NotPlain):
        loads(json.dumps(message).encode())


def test_many_items_of_few_hashes_are_read():
    assert loads(dumps(set(same_hash(100)))) == set(same_hash(100))
    assert loads(dumps(set(range(100_000)))) == set(range(100_000))
    assert loads(dumps({-1: 0, -2: 1})) == {-1: 0, -2: 1}  # which CPython gives one hash


def test_reading_calls_nothing_that_it_reads():
    for name in ("eval", "exec", "print", "__import__", "getattr", "object", "type", "list", "str", "open"):
        with pytest.raises(NotPlain):
            loads(json.dumps({name: "1"}).encode())


def test_days_and_times_are_checked():
    assert loads(dumps([date(2020, 2, 29), clock(1, 2), timedelta(-1, 2, 3)]))[2] == timedelta(-1, 2, 3)
    with pytest.raises(NotPlain):
        loads(b'{"date":"2021-02-29"}')
