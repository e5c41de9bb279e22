import asyncio
import contextlib
import re
import threading
import time

import numpy as np
import pytest

from guerdon.core import Abstain
from guerdon.engine import Engine


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
