import asyncio
import contextlib
import re
import threading
import time

import numpy as np
import pytest

from guerdon.core import Abstain
from guerdon.engine import Engine, aio, retry


@pytest.fixture(scope="module")
def aleaf(leaf):
    return lambda function, **fields: leaf(function, lane="async", **fields)


async def echo(number):
    await asyncio.sleep(0.001 * (7 * number % 5))
    return number


def test_order_is_kept_whatever_is_awaited(aleaf, batch, run):
    np.testing.assert_array_equal(run(aleaf(echo), batch(300)).read(fill=-1), range(300))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("bad judge"), r"ValueError: bad judge \(test_async.py:\d+\)"),
        (Abstain("judge HTTP 503 ×5"), "judge HTTP 503 ×5"),
        (SystemExit(2), r"SystemExit: 2 \(test_async.py:\d+\)"),
        (asyncio.CancelledError(), r"CancelledError \(test_async.py:\d+\)"),
        (TimeoutError(), r"TimeoutError \(test_async.py:\d+\)"),
    ],
)
def test_a_unit_that_raises_abstains_alone(error, reason, aleaf, batch, run):
    async def judge(number):
        if number == 3:
            raise error
        return 1.0

    scores = run(aleaf(judge), batch(8))
    assert list(scores.reasons) == [3]
    assert re.fullmatch(reason, scores.reasons[3])
    assert scores.read(fill=0).sum() == 7


def test_a_function_that_is_no_coroutine_function_abstains(aleaf, batch, run):
    assert run(aleaf(lambda number: 1.0), batch(1)).reasons[0].startswith("TypeError: object float can't be used in")


def test_each_unit_has_its_deadline_and_may_clean_up(aleaf, batch, run):
    cleaned = []

    async def judge(number):
        try:
            await asyncio.sleep(60 if number % 4 == 0 else 0.01)
        except asyncio.CancelledError:
            cleaned.append(number)
            raise
        return 1.0

    scores = run(aleaf(judge, deadline=0.5), batch(20))
    assert scores.reasons == dict.fromkeys(range(0, 20, 4), "deadline 0.5 s")
    assert sorted(cleaned) == list(range(0, 20, 4))


def test_a_unit_that_will_not_be_cancelled_is_left_behind(aleaf, batch, run):
    async def stubborn(number):
        end = time.monotonic() + 4
        while number == 0 and time.monotonic() < end:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.5)
        return 1.0

    with Engine() as engine:
        start = time.monotonic()
        scores = run(aleaf(stubborn, deadline=0.2), batch(3), engine)
        assert time.monotonic() - start < 3
    assert scores.reasons == {0: "deadline 0.2 s"}


def test_a_unit_that_ends_past_its_deadline_has_no_score(aleaf, batch, run):
    async def judge(number):
        time.sleep(0.3 * number)
        return 1.0

    assert run(aleaf(judge, deadline=0.2), batch(2)).reasons[1] == "deadline 0.2 s"


def test_waiting_for_a_slot_does_not_count(aleaf, batch, run):
    async def judge(number):
        await asyncio.sleep(0.05)
        return 1.0

    with Engine(concurrency=1) as engine:
        assert run(aleaf(judge, deadline=0.5), batch(20), engine).reasons == {}


def test_no_more_units_are_awaited_than_the_engine_allows(aleaf, batch):
    now, most = 0, 0

    async def judge(number):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return 1.0

    with Engine(concurrency=5) as engine:
        two = [aleaf(judge, name="a"), aleaf(judge, name="b")]
        engine.measure({leaf: np.ones(30, bool) for leaf in two}, batch(30))
    assert most == 5


def test_groups_and_details(aleaf, batch, run):
    async def best(numbers):
        return [(1.0, {"of": len(numbers)}) if number == max(numbers) else 0.0 for number in numbers]

    scores = run(aleaf(best, unit="topic"), batch(5, topic=["a", "b", "a", "b", "a"]))
    np.testing.assert_array_equal(scores.read(fill=-1), [0, 0, 0, 1, 1])
    assert scores.details["of"] == [None, None, None, 2, 3]


def test_a_coroutine_that_blocks_the_event_loop_does_not_block_the_engine(aleaf, batch, run):
    release = threading.Event()

    async def judge(number):
        if number == 2:
            release.wait(30)
        return number

    with Engine(concurrency=1) as engine:
        start = time.monotonic()
        scores = run(aleaf(judge, deadline=0.2), batch(6), engine)
        assert time.monotonic() - start < 10
        release.set()
    assert scores.reasons == {2: "deadline 0.2 s: a coroutine blocked the event loop instead of awaiting"}
    np.testing.assert_array_equal(scores.read(fill=-1), [0, 1, -1, 3, 4, 5])


def test_a_leaf_that_blocks_loop_after_loop_is_given_up(aleaf, batch, run):
    release = threading.Event()

    async def judge(number):
        release.wait(30)

    with Engine(concurrency=1) as engine:
        scores = run(aleaf(judge, deadline=0.1), batch(6), engine)
        release.set()
    assert scores.reasons[2].startswith("deadline 0.1 s: a coroutine blocked")
    assert scores.reasons[5] == "the event loop was blocked 3 times"


def test_a_blocked_loop_costs_other_leaves_nothing_but_time(aleaf, batch):
    release = threading.Event()

    async def blocks(number):
        release.wait(2.5 if number == 0 else 0)
        return 1.0

    async def waits(number):
        await asyncio.sleep(0.3)
        return number

    rollouts, every = batch(4), np.ones(4, bool)
    first, second = aleaf(blocks, name="blocks", deadline=0.2), aleaf(waits, name="waits", deadline=30.0)
    with Engine() as engine:
        measured = engine.measure({first: every, second: every}, rollouts)
    assert 0 in measured[first].reasons
    assert measured[second].reasons == {}
    np.testing.assert_array_equal(measured[second].read(fill=-1), range(4))


def test_closing_lets_what_is_awaited_abstain(aleaf, batch, run):
    async def judge(number):
        await asyncio.sleep(30)

    engine, results = Engine(), []
    thread = threading.Thread(target=lambda: results.append(run(aleaf(judge), batch(2), engine)))
    thread.start()
    time.sleep(0.3)
    engine.close()
    thread.join(5)
    assert results[0].reasons == {0: "the engine was closed", 1: "the engine was closed"}


def test_the_loop_is_shared_between_calls(aleaf, batch, run):
    async def loop(number):
        return id(asyncio.get_running_loop()) % 1_000_003

    assert len({run(aleaf(loop), batch(1)).read(fill=-1)[0] for _ in range(3)}) == 1


# Other attempts


@pytest.fixture
def soon(monkeypatch):
    """No back-off."""
    monkeypatch.setattr(retry, "BACKOFF", 0.0)


class Busy(Exception):
    """What a client raises for HTTP 503."""

    status_code = 503

    def __init__(self, retry_after=None):
        super().__init__("judge HTTP 503")
        self.retry_after = retry_after


@pytest.mark.usefixtures("soon")
def test_a_unit_is_tried_again_until_it_has_a_score(aleaf, batch, run):
    attempts = [0] * 6

    async def judge(number):
        attempts[number] += 1
        if attempts[number] <= number:
            raise Busy()
        return number

    scores = run(aleaf(judge, retries=3), batch(6))
    assert attempts == [1, 2, 3, 4, 4, 4]
    assert set(scores.reasons) == {4, 5}
    for row in (4, 5):
        assert re.fullmatch(r"Busy: judge HTTP 503 \(test_async.py:\d+\) ×4", scores.reasons[row])
    np.testing.assert_array_equal(scores.read(fill=-1), [0, 1, 2, 3, -1, -1])


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("outcome", "retry_on", "attempts"),
    [
        (ValueError("no number"), None, 1),
        (Abstain("the reply has no verdict"), None, 1),
        (asyncio.CancelledError(), None, 1),
        (None, None, 1),
        (2e9, None, 1),
        (ConnectionError("lost"), None, 3),
        (ConnectionError("lost"), (ValueError,), 1),
        (ValueError("no number"), (ValueError,), 3),
    ],
)
def test_what_is_tried_again(outcome, retry_on, attempts, aleaf, batch, run):
    calls = []

    async def judge(number):
        calls.append(number)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    scores = run(aleaf(judge, retries=2, retry_on=retry_on), batch(1))
    assert len(calls) == attempts
    assert scores.reasons[0].endswith("×3") == (attempts == 3)


@pytest.mark.usefixtures("soon")
def test_a_group_is_tried_again_as_a_group(aleaf, batch, run):
    tries = []

    async def rank(numbers):
        tries.append(list(numbers))
        if len(tries) == 1:
            raise Busy()
        return numbers

    assert run(aleaf(rank, unit="topic", retries=1), batch(3, topic=["a"] * 3)).reasons == {}
    assert tries == [[0, 1, 2]] * 2


def test_all_attempts_are_under_one_deadline(aleaf, batch, run, monkeypatch):
    monkeypatch.setattr(retry, "BACKOFF", 0.1)
    begun = []

    async def judge(number):
        begun.append(time.monotonic())
        raise Busy()

    scores = run(aleaf(judge, retries=1000, deadline=0.6), batch(1))
    assert re.fullmatch(r"deadline 0.6 s, after Busy: judge HTTP 503 \(test_async.py:\d+\) ×\d+", scores.reasons[0])
    assert 1 < len(begun) == int(scores.reasons[0].rpartition("×")[2])
    assert begun[-1] - begun[0] <= 0.6


@pytest.mark.usefixtures("soon")
def test_a_late_attempt_says_what_came_before_it(aleaf, batch, run):
    async def judge(number):
        if not tried:
            tried.append(number)
            raise Busy()
        await asyncio.sleep(60)

    tried = []
    scores = run(aleaf(judge, retries=3, deadline=0.3), batch(1))
    assert re.fullmatch(r"deadline 0.3 s, after Busy: judge HTTP 503 \(test_async.py:\d+\) ×1", scores.reasons[0])


@pytest.mark.usefixtures("soon")
def test_an_attempt_has_what_the_others_have_left_of_the_deadline(aleaf, batch, run):
    attempts, ended = [], []

    async def judge(number):
        attempts.append(number)
        await asyncio.sleep(0.4)
        if len(attempts) == 1:
            raise Busy()
        ended.append(number)
        return 1.0

    assert run(aleaf(judge, retries=1, deadline=0.6), batch(1)).reasons[0].startswith("deadline 0.6 s, after Busy")
    assert (len(attempts), ended) == (2, [])


@pytest.mark.parametrize("asked", [5000, float("inf")])
def test_nobody_waits_for_an_attempt_that_would_be_late(asked, aleaf, batch, run):
    async def judge(number):
        raise Busy(retry_after=asked)

    scores = run(aleaf(judge, retries=3, deadline=4000.0), batch(2))
    assert scores.reasons[1].startswith("deadline 4000.0 s, after Busy")


@pytest.mark.usefixtures("soon")
def test_the_server_says_when_to_come_back(aleaf, batch, run):
    begun = []

    async def judge(number):
        begun.append(time.monotonic())
        if len(begun) == 1:
            raise Busy(retry_after=0.4)
        return 1.0

    assert run(aleaf(judge, retries=1), batch(1)).reasons == {}
    assert begun[1] - begun[0] >= 0.39


def test_a_unit_that_backs_off_holds_no_slot(aleaf, batch, run, monkeypatch):
    monkeypatch.setattr(retry, "BACKOFF", 0.0)
    order = []

    async def judge(number):
        order.append(number)
        if number == 0 and order.count(0) == 1:
            raise Busy(retry_after=0.5)
        return number

    with Engine(concurrency=1) as engine:
        assert run(aleaf(judge, retries=1), batch(6), engine).reasons == {}
    assert order == [0, 1, 2, 3, 4, 5, 0]


@pytest.mark.usefixtures("soon")
def test_retries_keep_to_the_concurrency_and_return_what_they_took(aleaf, batch, run):
    now, most, tries = 0, 0, [0] * 40

    async def judge(number):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1
        tries[number] += 1
        if tries[number] < 3:
            raise Busy()
        return number

    with Engine(concurrency=3) as engine:
        for _ in range(2):
            assert run(aleaf(judge, retries=2), batch(40), engine).reasons == {}
        gate = engine._lanes["async"].loop().gate(aleaf(judge))
        assert gate._slots._value == 3
    assert most == 3


def test_closing_ends_what_backs_off(aleaf, batch, run):
    failed = threading.Event()

    async def judge(number):
        failed.set()
        raise Busy(retry_after=60)

    engine, results = Engine(deadline=600), []
    thread = threading.Thread(target=lambda: results.append(run(aleaf(judge, retries=1), batch(2), engine)))
    thread.start()
    assert failed.wait(5)
    engine.close()
    thread.join(8)
    assert results[0].reasons == {0: "the engine was closed", 1: "the engine was closed"}


# Rates


@pytest.fixture
def limiters(monkeypatch):
    """Limiters that limit nothing and are counted: each is [rate, how often it was asked]."""
    made = []

    class Limiter:
        def __init__(self, most, seconds):
            self.asked = [most / seconds, 0]
            made.append(self.asked)

        async def acquire(self):
            self.asked[1] += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(aio, "AsyncLimiter", Limiter)
    return made


def test_each_attempt_is_counted_once_over_all_calls_and_leaves_of_a_name(aleaf, batch, limiters, monkeypatch):
    monkeypatch.setattr(retry, "BACKOFF", 0.0)
    tries = {}

    async def judge(number):
        tries[number] = tries.get(number, 0) + 1
        if number == 0 and tries[0] < 3:
            raise Busy()
        return 1.0

    async def other(number):
        return 1.0

    strict, lenient = (aleaf(judge, name="judge", rate=8.0, retries=5, range=(0, top)) for top in (1, 2))
    rollouts, every = batch(10), np.ones(10, bool)
    with Engine() as engine:
        engine.measure({strict: every, lenient: every, aleaf(other, name="other"): every}, rollouts)
        engine.measure({strict: every, aleaf(other, name="other", rate=0.5): every}, rollouts)
    assert limiters == [[8.0, 2 * 10 + 2 + 10], [0.5, 10]]


def test_units_begin_at_the_rate(aleaf, batch, run):
    begun = []

    async def judge(number):
        begun.append(time.monotonic())
        return number

    with Engine() as engine:
        scores = run(aleaf(judge, rate=40.0), batch(20), engine)
    np.testing.assert_array_equal(scores.read(fill=-1), range(20))
    assert begun[-1] - begun[0] > 0.5 * 19 / 40


def test_waiting_for_the_rate_does_not_count(aleaf, batch, run):
    async def judge(number):
        await asyncio.sleep(0.01)
        return 1.0

    with Engine() as engine:
        assert run(aleaf(judge, rate=20.0, deadline=0.3), batch(20), engine).reasons == {}


def test_a_leaf_that_waits_for_its_rate_holds_up_no_other(aleaf, batch):
    order = []

    async def rated(number):
        order.append("rated")
        return 1.0

    async def free(number):
        order.append("free")
        await asyncio.sleep(0.001)
        return 1.0

    every = np.ones(3, bool)
    with Engine(concurrency=1) as engine:
        engine.measure({aleaf(rated, name="rated", rate=4.0): every, aleaf(free, name="free"): every}, batch(3))
    assert order[-1] == "rated"
    assert order.index("free") < 2
    assert order[:4].count("free") == 3
