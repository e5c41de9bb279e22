"""The score cache gives back what was measured, exactly, or nothing; and never costs a scoring."""

import asyncio
import copy
import json
import math
import os
import sqlite3
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.core import Abstain, Scores
from guerdon.engine import Engine, cache, recall, score
from guerdon.engine.cache import default_path, packed
from guerdon.engine.canonical import canonical

SLOW = 0.002  # twice what makes a unit costly


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "scores.sqlite"


@pytest.fixture
def calls(tmp_path):
    """A function that notes its argument, in whatever process, and one that tells what was noted since."""
    log = tmp_path / "calls"
    log.touch()

    def note(what):
        with open(log, "a") as file:
            file.write(f"{what}\n")

    def noted():
        lines = sorted(log.read_text().split())
        log.write_text("")
        return lines

    return note, noted


@pytest.fixture
def every_unit_is_costly(monkeypatch):
    monkeypatch.setattr(cache, "COSTLY", 1e-12)


@pytest.fixture
def measure(path, run):
    """Measure a leaf in an engine of its own, with the cache."""

    def measure(leaf, rollouts, path=path, **options):
        with Engine(workers=2, cache=path, **options) as engine:
            return run(leaf, rollouts, engine)

    return measure


def rows(path, table="score"):
    connection = sqlite3.connect(path)
    found = connection.execute(f"SELECT * FROM {table}").fetchall()
    connection.close()
    return found


def entries(path):
    """What is kept, of units and of blocks of them, as values and details in turn."""
    return [json.loads(b"[%b]" % text) for _, _, text in rows(path)]


def same(first, second):
    np.testing.assert_array_equal(first.read(fill=np.nan), second.read(fill=np.nan))
    assert (first.reasons, first.details) == (second.reasons, second.details)
    assert first.mask.tolist() == second.mask.tolist()


# What is kept, and given back


def test_a_second_scoring_measures_nothing_and_says_the_same(leaf, batch, measure, calls, path):
    note, noted = calls

    def slow(number):
        note(number)
        time.sleep(SLOW)
        return number / 3 if number % 5 else (number / 3, {"fifth": True, "nested": {"π": [1, 2.5, None]}})

    part = leaf(slow, known_as="slow")
    first = measure(part, batch(40))
    assert noted() == sorted(str(i) for i in range(40))
    np.testing.assert_array_equal(first.read(fill=-1), np.arange(40) / 3)
    same(measure(part, batch(40)), first)
    assert noted() == []
    assert [1.0, None] in entries(path)  # no more than the row had


def test_awaited_units_are_kept_too(leaf, batch, measure):
    begun = []

    async def judge(number):
        begun.append(number)
        await asyncio.sleep(2 * SLOW)
        return number, {"critique": f"number {number}"}

    part = leaf(judge, lane="async", known_as="judge")
    first = measure(part, batch(30))
    same(measure(part, batch(30)), first)
    assert sorted(begun) == list(range(30))


def test_groups_are_kept_whole(leaf, batch, measure, calls):
    note, noted = calls

    def rank(numbers):
        note("-".join(map(str, numbers)))
        time.sleep(SLOW)
        return [(place, {"of": len(numbers)}) for place in range(len(numbers))]

    part = leaf(rank, unit="topic", known_as="rank")
    first = measure(part, batch(5, topic=list("abaab")))
    assert noted() == ["0-2-3", "1-4"]
    same(measure(part, batch(5, topic=list("abaab"))), first)
    assert noted() == []
    scores = measure(part, batch(5, topic=list("abbab")))
    assert noted() == ["0-3", "1-2-4"]
    np.testing.assert_array_equal(scores.read(fill=-1), [0, 0, 1, 1, 2])


def test_known_and_new_rows_stand_in_their_places(leaf, batch, engine, measure, path, calls):
    note, noted = calls

    def slow(number):
        note(number)
        time.sleep(SLOW)
        return (number, {"twice": 2 * number}) if number != 7 else None

    part = leaf(slow, known_as="slow")
    with Engine(workers=2, cache=path) as cached:
        asked = np.arange(12) % 3 != 2
        cached.measure({part: asked}, batch(12))
        noted()
        scores = cached.measure({part: np.arange(12) > 1}, batch(12))[part]
    assert noted() == sorted(str(i) for i in (2, 5, 7, 8, 11))  # 7 has no number, the others are new
    assert scores.mask.tolist() == [i > 1 for i in range(12)]
    assert scores.reasons == {7: "no score was returned"}
    np.testing.assert_array_equal(scores.read(fill=-1), [-1, -1, 2, 3, 4, 5, 6, -1, 8, 9, 10, 11])
    assert scores.details["twice"] == [None, None, 4, 6, 8, 10, 12, None, 16, 18, 20, 22]


@pytest.fixture
def looked_up(monkeypatch):
    """How many keys the cache was asked for, each time."""
    counts, get = [], cache.Cache.get
    monkeypatch.setattr(cache.Cache, "get", lambda self, keys: counts.append(len(keys)) or get(self, keys))
    return counts


@pytest.mark.usefixtures("every_unit_is_costly")
@pytest.mark.parametrize("unit", ["row", "topic"])
def test_units_that_come_again_beside_each_other_are_looked_up_together(
    leaf, batch, measure, unit, looked_up, calls, monkeypatch
):
    monkeypatch.setattr(recall, "BLOCK", 4)
    note, noted = calls

    def rank(number):
        note(str(number).replace(" ", ""))
        return number + 1 if unit == "row" else [(n + 1, {"of": len(number)}) for n in number]

    part = leaf(rank, unit=unit, known_as="rank")
    rollouts = batch(20, topic=[k // 2 for k in range(20)])
    units = 20 if unit == "row" else 10
    first = measure(part, rollouts)
    assert len(noted()) == units
    looked_up.clear()
    same(measure(part, rollouts), first)
    assert (noted(), looked_up) == ([], [math.ceil(units / 4)])


@pytest.mark.usefixtures("every_unit_is_costly")
def test_a_block_with_an_abstention_is_not_kept_and_the_others_are(leaf, batch, measure, looked_up, monkeypatch, path):
    monkeypatch.setattr(recall, "BLOCK", 4)
    part = leaf(lambda number: None if number == 5 else number, known_as="but for five")
    for _ in range(2):
        assert measure(part, batch(12)).reasons == {5: "no score was returned"}
    assert sorted(map(len, entries(path))) == [2] * 11 + [8, 8]
    assert looked_up[2:] == [3, 4]


@pytest.mark.usefixtures("every_unit_is_costly")
def test_calls_of_a_leaf_that_reads_nothing_are_not_taken_for_blocks_of_them(leaf, batch, measure, monkeypatch):
    monkeypatch.setattr(recall, "BLOCK", 4)
    part = leaf(lambda: (5.0, {"read": []}), reads=(), known_as="constant")
    for n in (7, 7, 4, 1):
        scores = measure(part, batch(n))
        assert (scores.read(fill=-1).tolist(), scores.details["read"]) == ([5.0] * n, [[]] * n)


@settings(max_examples=30)
@given(batches=st.lists(st.lists(st.integers(0, 9), max_size=9), min_size=2, max_size=4), size=st.integers(1, 4))
def test_what_is_recalled_is_what_was_measured_however_rows_stand(leaf, batch, batches, size):
    async def thrice(number):
        begun.append(number)
        return None if number == 7 else (3 * number, {"number": number})

    begun: list[int] = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(recall, "BLOCK", size)
        patch.setattr(cache, "COSTLY", 1e-12)
        part = leaf(thrice, lane="async", known_as="thrice")
        known: set[int] = set()
        for numbers in batches:
            asked = np.array([number != 9 for number in numbers], bool)
            with Engine(workers=1, cache=Path(folder) / "scores.sqlite") as engine:
                scores = engine.measure({part: asked}, batch(len(numbers), number=numbers))[part]
            expected = [-1.0 if number in (7, 9) else 3.0 * number for number in numbers]
            assert scores.read(fill=-1).tolist() == expected
            details = scores.details.get("number", [None] * len(numbers))
            assert details == [None if number in (7, 9) else number for number in numbers]
            wanted = {number for number in numbers if number != 9} - known
            assert set(begun) == wanted
            known |= wanted - {7}
            begun.clear()


def test_units_that_cost_little_are_neither_kept_nor_looked_up(leaf, batch, measure, path, calls, monkeypatch):
    monkeypatch.setattr(cache, "COSTLY", 0.1)  # as slow as this machine may be
    note, noted = calls
    part = leaf(lambda number: note(number) or number, known_as="quick", name="quick")
    measure(part, batch(300))
    monkeypatch.setattr(cache.Cache, "get", lambda self, keys: pytest.fail("looked up"))
    measure(part, batch(300))
    assert len(noted()) == 600
    assert rows(path) == []
    ((_, name, units, seconds),) = rows(path, "cost")
    assert (name, units) == ("quick", 300)
    assert 0 < seconds < 30


def test_a_leaf_that_was_cheap_at_first_is_kept_once_it_is_not(leaf, batch, run, path, calls, monkeypatch):
    monkeypatch.setattr(cache, "COSTLY", 0.01)
    note, noted = calls
    part = leaf(lambda number: note(number) or time.sleep(0.02 if number >= 8 else 0) or number, known_as="late")
    with Engine(workers=2, cache=path) as engine:
        run(part, batch(8), engine)
        assert rows(path) == []
        run(part, batch(40), engine)
        run(part, batch(40), engine)
        noted()
        assert run(part, batch(40), engine).reasons == {}
    assert noted() == []


def test_what_was_not_measured_says_nothing_of_what_it_costs(leaf, batch, run, path):
    part = leaf(lambda number: time.sleep(60), known_as="slow", deadline=60.0)
    engine = Engine(workers=1, cache=path)
    thread = threading.Thread(target=run, args=(part, batch(2), engine))
    thread.start()
    time.sleep(0.6)
    engine.close()
    thread.join(5)
    with Engine(workers=1, cache=path) as other:
        run(leaf(lambda number: os._exit(1), known_as="slow"), batch(2), other)
        assert list(other._lanes["process"]._cache._costs.values()) == [cache.Cost()]


def test_abstentions_are_tried_again(leaf, batch, measure, tmp_path):
    def down_at_first(number):
        time.sleep(SLOW)
        if number % 2 == 0 and not (tmp_path / "up").exists():
            raise [ConnectionError("down"), Abstain("down"), ValueError("down")][number // 2 % 3]
        return number

    part = leaf(down_at_first, known_as="judge")
    assert set(measure(part, batch(12)).reasons) == set(range(0, 12, 2))
    (tmp_path / "up").touch()
    scores = measure(part, batch(12))
    assert scores.reasons == {}
    np.testing.assert_array_equal(scores.read(fill=-1), range(12))


def test_a_group_of_which_one_abstains_is_not_kept(leaf, batch, measure, path):
    part = leaf(lambda n: time.sleep(SLOW) or [None if i == 3 else 1.0 for i in n], unit="topic", known_as="group")
    measure(part, batch(6, topic=list("aabbcc")))
    assert entries(path) == [[1.0, None, 1.0, None]] * 2


@pytest.mark.usefixtures("every_unit_is_costly")
def test_no_two_values_that_differ_are_taken_for_one(leaf, batch, measure, path):
    values = [0, 0.0, -0.0, False, None, "", "0", b"0", [], (), {}, [0], (0,), [0.0], [False], [None], [[]], ["0"],
              1, 1.0, True, "1", math.nan, math.inf, 2**70, -(2**70), {"a": 1, "b": 2}, {"b": 2, "a": 1}, {1: "a"},
              {"1": "a"}, ["a", "b"], ["ab"], ["a", ["b"]], ["a", [], "b"], {"a": {"b": 0}}, {"a": {}, "b": 0},
              "\ud83d\ude00", "😀", np.float64(1), np.float32(1),
              np.int64(1), np.zeros(2), np.zeros((2, 1)), np.zeros(2, int), np.array(["0"]),
              np.array([1], "datetime64[s]")]  # fmt: skip

    def crc(value):
        return zlib.crc32(repr(value).encode("utf-8", "backslashreplace"))

    part = leaf(crc, reads=("value",), known_as="crc", range=(0, 2**32))
    rollouts = batch(len(values), value=values)
    expected = [crc(value) for value in values]
    assert len(set(expected)) == len(values)
    for _ in range(2):
        np.testing.assert_array_equal(measure(part, rollouts).read(fill=-1), expected)
    assert len(rows(path)) == len(values) + 1


SIMPLE = st.sampled_from([0, 0.0, -0.0, 1, 1.0, True, False, None, "", "0", "1:", b"", b"0", math.nan, 10**30])
VALUES = st.recursive(
    SIMPLE,
    lambda v: st.lists(v, max_size=3) | st.lists(v, max_size=3).map(tuple) | st.dictionaries(SIMPLE, v, max_size=3),
)


@given(VALUES, VALUES)
def test_the_canonical_form_is_equal_where_the_value_is_written_alike(first, second):
    assert (canonical(first) == canonical(second)) == (repr(first) == repr(second))
    assert canonical([first, second]) == canonical([copy.deepcopy(first), second])


@pytest.mark.usefixtures("every_unit_is_costly")
def test_what_has_no_canonical_form_is_measured_each_time(leaf, batch, measure, path):
    class Text(str):
        pass

    loop: list = []
    loop.append(loop)
    odd = [{1, 2}, object(), Text("a"), np.array([None]), np.ma.array([1]), loop, 1j, len]
    part = leaf(lambda value: 1.0, reads=("value",), known_as="any")
    assert measure(part, batch(len(odd) + 1, value=[*odd, "plain"])).mean() == 1.0
    assert len(rows(path)) == 1
    for value in odd:
        with pytest.raises((TypeError, RecursionError)):
            canonical(value)


@pytest.mark.parametrize(
    "evidence",
    [(1, 2), {1: "a"}, [(1,)], np.float64(1), np.zeros(1), {"a"}, b"a", 1j, "\ud83d\ude00"],
    ids=["tuple", "number as key", "nested tuple", "NumPy", "array", "set", "bytes", "complex", "surrogates"],
)
def test_details_that_json_would_change_are_not_kept(evidence):
    assert packed([(1.0, {"found": evidence})]) is None


NUMBERS = st.integers() | st.floats(allow_nan=False) | st.just(math.nan)  # not NaNs of other bits


@given(st.recursive(st.none() | st.booleans() | NUMBERS | st.text(), st.lists))
def test_details_that_are_kept_come_back_as_they_were(evidence):
    text = packed([(-0.0, {"found": evidence})])
    assert text is not None
    assert repr(json.loads(b"[%b]" % text)) == repr([-0.0, {"found": evidence}])


@pytest.mark.usefixtures("every_unit_is_costly")
def test_scores_stand_under_all_that_they_depend_on(leaf, batch, run, path):
    """A leaf of another identity, range, unit or columns is another leaf; its name and deadline do not matter."""
    rollouts = batch(4, other=[1, 2, 3, 4], topic=list("aabb"))
    leaves = [
        leaf(lambda number: 1.0, known_as="one"),
        leaf(lambda number: 2.0, known_as="one", name="renamed", deadline=3.0),
        leaf(lambda number: 3.0, known_as="two"),
        leaf(lambda number: 4.0, known_as="one", range=(0, 9)),
        leaf(lambda other: 5.0, known_as="one", reads=("other",)),
        leaf(lambda number: [6.0] * len(number), known_as="one", unit="topic"),
        leaf(lambda number, other: 7.0, known_as="one", reads=("number", "other")),
        leaf(lambda number: 8.0, known_as=None),
        leaf(lambda number: 9.0, known_as=None),
    ]
    with Engine(workers=1, cache=path) as engine:
        assert [run(part, rollouts, engine).mean() for part in leaves] == [1, 1, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.usefixtures("every_unit_is_costly")
def test_a_coroutine_that_changes_its_columns_is_known_by_what_it_was_given(leaf, measure, batch):
    async def pop(numbers):
        return numbers.pop()

    part = leaf(pop, lane="async", reads=("numbers",), known_as="pop")
    for _ in range(2):
        scores = measure(part, batch(3, numbers=[[1, 2, 3], [1, 2], [1]]))
        np.testing.assert_array_equal(scores.read(fill=-1), [3, 2, 1])


@pytest.mark.usefixtures("every_unit_is_costly")
def test_the_context_is_never_looked_up(leaf, batch, measure, path):
    measure(leaf(lambda number, context: 1.0, reads=("number", "context"), known_as="context"), batch(3))
    assert rows(path) == []


# Leaves that measure all rows at once


@pytest.mark.parametrize("deadline", [None, 60.0])
@pytest.mark.parametrize("tensor", [False, True])
def test_rows_that_were_measured_together_are_known_one_by_one(leaf, batch, measure, tensor, deadline):
    """Also those that were not asked for at first; in float32 a number is what it was, and not its double."""
    seen = []

    def encode(rollouts, context):
        numbers = rollouts.column("number")
        seen.append(list(numbers))
        time.sleep(SLOW * len(numbers))
        values = np.array(numbers, np.float32) / 3
        details = {"note": [f"of {number}" if number % 2 else None for number in numbers]}
        kept = [number % 7 != 6 for number in numbers]
        reasons = {i: "it is a 6" for i, there in enumerate(kept) if not there}
        return Scores(torch.as_tensor(values) if tensor else values, valid=kept, reasons=reasons, details=details)

    part = leaf(encode, lane="batch", known_as="encode", deadline=deadline)
    first = measure(part, batch(5, number=[3, 6, 9, 1, 4]))
    second = measure(part, batch(6, number=[4, 8, 6, 3, 1, 9]))
    assert seen == [[3, 6, 9, 1, 4], [8, 6]]  # what abstained is asked again
    assert second.read(fill=-1).tolist() == [float(np.float32(n) / 3) if n != 6 else -1 for n in (4, 8, 6, 3, 1, 9)]
    assert second.read(fill=-1)[[3, 5, 4, 0]].tolist() == first.read(fill=-1)[[0, 2, 3, 4]].tolist()
    assert second.details["note"] == [None, None, None, "of 3", "of 1", "of 9"]
    assert second.reasons == {2: "it is a 6"}
    assert type(first.read(0.0)) is type(second.read(0.0)) is np.ndarray


@pytest.mark.usefixtures("every_unit_is_costly")
@pytest.mark.parametrize(
    ("options", "give"),
    [
        ({"differentiable": True}, lambda n: Scores(torch.ones(n, requires_grad=True))),
        ({"level": "step"}, lambda n: Scores(np.ones((n, 2)))),
        ({"unit": "batch", "scope": "batch"}, lambda n: Scores(np.ones(n))),
        ({}, lambda n: Scores(np.ones(n), parts={"half": Scores(np.ones(n))})),
    ],
    ids=["gradients", "steps", "batch", "parts"],
)
def test_more_than_a_number_of_each_row_is_not_kept(leaf, batch, measure, path, options, give):
    part = leaf(lambda rollouts, context: give(len(rollouts)), lane="batch", known_as="more", **options)
    first, second = (measure(part, batch(3)) for _ in range(2))
    assert not path.exists() or rows(path) == []
    assert second.read(0.0).sum() == first.read(0.0).sum() > 0
    assert second.parts.keys() == first.parts.keys()


def test_rows_that_cost_little_each_are_not_kept_however_many(leaf, batch, measure, path):
    def quick(rollouts, context):
        time.sleep(10 * SLOW)
        return Scores(np.ones(len(rollouts)))

    measure(leaf(quick, lane="batch", known_as="quick"), batch(200))
    assert rows(path) == []


def test_a_batch_leaf_that_fails_says_nothing_of_what_it_costs(leaf, batch, measure, path):
    def fail(rollouts, context):
        time.sleep(SLOW * len(rollouts))
        raise ValueError("no such encoder")

    measure(leaf(fail, lane="batch", known_as="fails"), batch(3))
    assert rows(path) == rows(path, "cost") == []


def test_other_lanes_work_while_a_batch_leaf_does(leaf, batch, path):
    """The process lane has begun, and is waited for after what runs here."""
    begun = []

    def slow(number):
        time.sleep(0.2)
        return 1.0

    def here(rollouts, context):
        begun.append(time.monotonic())
        return Scores(np.ones(len(rollouts)))

    with Engine(workers=1, cache=path) as engine:
        leaves = [leaf(slow, known_as="slow"), leaf(here, lane="batch", known_as="here")]
        start = time.monotonic()
        engine.measure({part: np.ones(3, bool) for part in leaves}, batch(3))
    assert begun[0] - start < 0.5 * (time.monotonic() - start)


# Where it is kept


def test_the_cache_of_a_user_is_in_their_cache_folder(monkeypatch, tmp_path, leaf, reward, batch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Engine(cache=True).cache == default_path() == tmp_path / "guerdon" / "scores.sqlite"
    assert score(
        reward(leaf(lambda number: time.sleep(SLOW) or 1.0, known_as="a")), batch(3), workers=1, cache=True
    ).mean()
    assert sorted(map(len, entries(default_path()))) == [2, 2, 2, 6]
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(default_path()) == "/home/someone/.cache/guerdon/scores.sqlite"
    assert Engine().cache is Engine(cache=False).cache is None
    assert repr(Engine(workers=1, cache="a.sqlite")).endswith("concurrency=64, cache='a.sqlite')")


def test_threads_and_engines_share_a_file(leaf, batch, run, path):
    n, results = 120, {}

    def slow(number):
        time.sleep(SLOW)
        return number, {"number": number}

    def work(engine, at):
        part = leaf(slow, known_as="shared")
        asked = np.roll(np.arange(n) < 80, 10 * at)
        results[at] = engine.measure({part: asked}, batch(n))[part], asked

    with Engine(workers=1, cache=path) as one, Engine(workers=1, cache=path) as two:
        threads = [threading.Thread(target=work, args=((one, two)[at % 2], at)) for at in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for scores, asked in results.values():
        np.testing.assert_array_equal(scores.read(fill=-1), np.where(asked, np.arange(n), -1))
        assert scores.details["number"] == [i if asked[i] else None for i in range(n)]
    assert sorted(value for value, _, *others in entries(path) if not others) == list(range(n))


@pytest.mark.processes
def test_processes_share_files_that_all_of_them_make(tmp_path):
    program = textwrap.dedent("""
        import sys, time, warnings
        from pathlib import Path
        from guerdon.engine.cache import Cache
        warnings.simplefilter("error")
        me, folder, start = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
        for turn in range(40):
            time.sleep(max(0.0, start + 0.05 * turn - time.time()))  # all at once
            for _ in range(2):
                cache = Cache(folder / f"{turn}.sqlite")
                cache.learn(b"leaf", "mine", 10, 1.0)
                keys = [f"{me}{i}".encode().ljust(16) for i in range(10)]
                cache.put(b"leaf", "mine", dict.fromkeys(keys, b"1.0,null"))
                assert len(cache.get(keys)) == 10
                cache.close()
    """)
    start = str(time.time() + 2.0)
    processes = [subprocess.Popen([sys.executable, "-c", program, me, str(tmp_path), start]) for me in "abc"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    for turn in range(40):
        assert len(rows(tmp_path / f"{turn}.sqlite")) == 3 * 10
        ((_, _, units, seconds),) = rows(tmp_path / f"{turn}.sqlite", "cost")
        assert (units, seconds) == (3 * 2 * 10, pytest.approx(3 * 2))


def test_a_fork_looks_up_for_itself(leaf, batch, run, path):
    part = leaf(lambda number: time.sleep(SLOW) or os.getpid(), known_as="pid")
    with Engine(workers=1, cache=path) as engine:
        first = run(part, batch(3), engine).read(fill=-1)
        pid = os.fork()
        if pid == 0:
            there = run(part, batch(4), engine).read(fill=-1)
            engine.close()
            os._exit(0 if (there[:3] == first).all() and there[3] not in (-1, first[0]) else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert len(set(run(part, batch(4), engine).read(fill=-1))) == 2
    assert sorted(map(len, entries(path))) == [2, 2, 2, 2, 6, 8]


# What may be wrong with the file


def damaged(path):
    path.write_bytes(b"not a database, " * 1000)


def cut(path):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    path.write_bytes(path.read_bytes()[:5000])


def of_another(path):
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE score (key, outcomes, crc)")
    connection.close()


def of_another_version(path):
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {cache.FORMAT + 1}")
    connection.close()


def without_a_table(path):
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE score")
    connection.close()


@pytest.mark.parametrize("spoil", [damaged, cut, of_another, of_another_version, without_a_table])
def test_a_file_that_is_no_cache_is_reported_once_and_left_alone(spoil, leaf, batch, measure, run, path):
    part = leaf(lambda number: time.sleep(SLOW) or number, known_as="slow")
    measure(part, batch(100))
    spoil(path)
    before = path.read_bytes()
    with warnings.catch_warnings(record=True) as caught, Engine(workers=2, cache=path) as engine:
        warnings.simplefilter("always")
        for _ in range(2):
            np.testing.assert_array_equal(run(part, batch(20), engine).read(fill=-1), range(20))
    (warning,) = caught
    assert f"the score cache {path} cannot be used, and scoring goes on without it: " in str(warning.message)
    ours = 100 if spoil in (cut, without_a_table) else 0  # bytes of the header, where SQLite notes how it is opened
    assert path.read_bytes()[ours:] == before[ours:]


def test_a_folder_that_cannot_be_made_is_reported(leaf, batch, measure, tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(RuntimeWarning, match="cannot be used, and scoring goes on without it"):
        scores = measure(leaf(lambda number: number, known_as="a"), batch(3), tmp_path / "file" / "scores.sqlite")
    assert scores.reasons == {}


def test_a_file_that_another_holds_is_reported(leaf, batch, measure, path, monkeypatch):
    part = leaf(lambda number: time.sleep(SLOW) or number, known_as="slow")
    measure(part, batch(3))
    monkeypatch.setattr(cache, "PATIENCE", 0.05)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.warns(RuntimeWarning, match="locked"):
        np.testing.assert_array_equal(measure(part, batch(5)).read(fill=-1), range(5))
    holder.close()


def test_a_value_that_turned_is_measured_again_and_mended(leaf, batch, measure, path):
    part = leaf(lambda number: time.sleep(SLOW) or number, known_as="slow")
    measure(part, batch(5))
    before = sorted(rows(path))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE score SET outcomes = CAST(replace(outcomes, '4.0', '4000.0') AS BLOB)")
    connection.execute("UPDATE score SET outcomes = 7, seal = NULL WHERE outcomes = CAST('3.0,null' AS BLOB)")
    connection.commit()
    connection.close()
    np.testing.assert_array_equal(measure(part, batch(5)).read(fill=-1), range(5))
    assert sorted(rows(path)) == before


def test_an_entry_is_another_keys_only_with_all_of_its_key(path):
    """The first half finds the row, the second is in the seal."""
    file = cache.Cache(path)
    file.put(b"leaf", "mine", {b"the row the seal": b"1.0,null"})
    assert file.get([b"the row another_"]) == {}
    file.put(b"leaf", "mine", {b"the row another_": b"2.0,null"})
    assert file.get([b"the row the seal", b"the row another_"]) == {b"the row another_": b"2.0,null"}
    file.close()


WHOLE, HALF = struct.pack("<qq", -1, 0), struct.pack("<qq", 1, 2)


def test_what_is_half_written_when_a_process_ends_is_not_there(path):
    """An unfinished transaction, as a killed process leaves it, is undone by the next to come."""
    first = cache.Cache(path)
    first.learn(b"leaf", "mine", 1, 1.0)
    first.put(b"leaf", "mine", {WHOLE: b"1.0,null"})
    pid = os.fork()
    if pid == 0:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO score VALUES (1, 2, '2.0,null')")
        os._exit(1)
    os.waitpid(pid, 0)
    assert first.get([WHOLE, HALF]) == {WHOLE: b"1.0,null"}
    first.put(b"leaf", "mine", {HALF: b"3.0,null"})
    assert first.get([HALF]) == {HALF: b"3.0,null"}


def test_nothing_is_found_or_kept_by_a_cache_that_is_closed(path):
    closed = cache.Cache(path)
    closed.close()
    closed.put(b"leaf", "mine", {WHOLE: b"1.0,null"})
    assert (closed.get([WHOLE]), closed.pays(b"leaf")) == ({}, False)
    assert not path.exists()
