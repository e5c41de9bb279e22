import asyncio
import os
import resource
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from guerdon.core import Context, GuerdonError, MissingInput, Rollouts, Scores, Tokens
from guerdon.engine import Engine, default, process, require, score


def test_all_lanes_run_at_the_same_time(engine, leaf, batch):
    async def wait(number):
        await asyncio.sleep(1.0)
        return 2.0

    def sleep(rollouts, context):
        time.sleep(1.0)
        return Scores(np.full(len(rollouts), 3.0))

    leaves = [
        leaf(lambda number: time.sleep(1.0) or 1.0, name="process"),
        leaf(wait, name="async", lane="async"),
        leaf(sleep, name="batch", lane="batch"),
        leaf(sleep, name="timed", lane="batch", deadline=5.0),
    ]
    rollouts, demand = batch(2), {leaf: np.ones(2, bool) for leaf in leaves}
    engine.measure({leaf(lambda number: 0.0): np.ones(2, bool)}, rollouts)
    start = time.monotonic()
    measured = engine.measure(demand, rollouts)
    assert time.monotonic() - start < 1.8
    assert [measured[leaf].mean() for leaf in leaves] == [1.0, 2.0, 3.0, 3.0]
    assert list(measured) == leaves


@pytest.mark.parametrize("lane", ["process", "async", "batch"])
def test_rows_that_are_not_asked_for_are_not_sent_and_masked(lane, leaf, batch, engine):
    async def awaited(number):
        return number * (1 if number % 3 == 0 else float("nan"))

    function = {
        "process": lambda number: number * (1 if number % 3 == 0 else float("nan")),
        "async": awaited,
        "batch": lambda rollouts, context: Scores(np.array(rollouts.column("number"), float)),
    }[lane]
    asked = np.arange(10) % 3 == 0
    part = leaf(function, lane=lane)
    scores = engine.measure({part: asked}, batch(10))[part]
    assert scores.mask.tolist() == asked.tolist()
    assert scores.reasons == {}
    np.testing.assert_array_equal(scores.read(fill=-1), [0, -1, -1, 3, -1, -1, 6, -1, -1, 9])


@pytest.mark.parametrize("level", ["rollout", "step"])
def test_a_leaf_that_nobody_asks_is_not_called(level, leaf, batch, engine):
    part = leaf(lambda rollouts, context: pytest.fail("called"), lane="batch", level=level)
    scores = engine.measure({part: np.zeros(3, bool)}, batch(3))[part]
    assert (len(scores), scores.level, scores.mask.any(), scores.reasons) == (3, level, False, {})


def test_an_empty_batch_has_no_scores(leaf, batch, engine):
    part = leaf(lambda number: 1.0)
    assert len(engine.measure({part: np.ones(0, bool)}, batch(0))[part]) == 0


def test_a_demand_of_the_wrong_length_is_an_error(leaf, batch, engine):
    with pytest.raises(ValueError, match="mine is asked for 2 rows of a batch of 3"):
        engine.measure({leaf(None, name="mine"): np.ones(2, bool)}, batch(3))


@pytest.mark.parametrize("lane", ["process", "async"])
def test_a_unit_is_the_rows_that_share_a_value(lane, leaf, engine):
    groups = np.array([7, 3, 7, 3, 7, 5])
    rollouts = Rollouts(list("pqpqpr"), list("abcdef"), {"kind": [["x"], "y", ["x"], "x", "y", "y"]}, groups=groups)

    def joined(completions, context):
        return [len(completions) * 10 + place for place in range(len(completions))]

    async def awaited(completions, context):
        return joined(completions, context)

    function = joined if lane == "process" else awaited
    by_group = leaf(function, name="group", lane=lane, unit="group", reads=("completion", "context"))
    by_kind = leaf(function, name="kind", lane=lane, unit="kind", reads=("completion", "context"))
    asked = np.array([True, True, True, True, True, False])
    measured = engine.measure({by_group: np.ones(6, bool), by_kind: asked}, rollouts)
    np.testing.assert_array_equal(measured[by_group].read(fill=-1), [30, 20, 31, 21, 32, 10])
    np.testing.assert_array_equal(measured[by_kind].read(fill=-1), [20, 20, 21, 10, 21, -1])


def test_a_group_with_the_wrong_count_abstains_and_the_others_do_not(leaf, engine):
    rollouts = Rollouts(list("aabbbc"), list("123456"))
    part = leaf(lambda c: [1.0] * (2 if len(c) == 3 else len(c)), unit="group", reads=("completion",))
    scores = engine.measure({part: np.ones(6, bool)}, rollouts)[part]
    assert scores.reasons == dict.fromkeys([2, 3, 4], "returned 2 scores for 3 rows")
    assert scores.read(fill=0).tolist() == [1, 1, 0, 0, 0, 1]


def test_a_group_that_hangs_or_dies_abstains_as_a_group(leaf, engine):
    rollouts = Rollouts(list("aabbcc"), list("123456"))

    def misbehave(completions):
        if "1" in completions:
            time.sleep(60)
        if "4" in completions:
            os._exit(3)
        return [1.0, 1.0]

    part = leaf(misbehave, unit="group", reads=("completion",), deadline=0.3)
    scores = engine.measure({part: np.ones(6, bool)}, rollouts)[part]
    late, died = "deadline 0.3 s", "worker died (exit code 3)"
    assert scores.reasons == {0: late, 1: late, 2: died, 3: died}


def test_leaves_read_the_context_without_rollouts_and_models(leaf, batch, engine):
    part = leaf(
        lambda number, context: context.step + (context.rollouts is None) + (len(context.models) == 0),
        reads=("number", "context"),
    )
    context = Context(step=40, models={"policy": object()})
    assert engine.measure({part: np.ones(2, bool)}, batch(2), context)[part].read(fill=0).tolist() == [42, 42]


def test_columns_of_arrays_arrive_as_plain_numbers(leaf, engine):
    rollouts = Rollouts(["?"] * 2, ["a", "b"], {"weight": np.array([0.5, 2.0])})
    part = leaf(lambda done, weight: type(done) is bool and type(weight) is float, reads=("finished", "weight"))
    assert engine.measure({part: np.ones(2, bool)}, rollouts)[part].read(fill=0).tolist() == [1, 1]


def test_a_leaf_that_reads_nothing_is_asked_once_per_row(leaf, batch, run):
    assert run(leaf(lambda: 0.5, reads=()), batch(3)).read(fill=0).tolist() == [0.5, 0.5, 0.5]


def test_score_measures_and_combines(leaf, reward, batch, engine):
    part = leaf(lambda number: number)
    whole = reward(part)
    context = Context(step=3)
    scores = engine.score(whole, rollouts := batch(4), context)
    np.testing.assert_array_equal(scores.read(fill=-1), range(4))
    ((measured, given),) = whole.seen
    assert (list(measured), given.step, given.rollouts) == ([part], 3, rollouts)
    assert context.rollouts is None


def test_what_is_missing_is_an_error_before_any_work(leaf, reward, engine):
    part = leaf(lambda *_: pytest.fail("called"), name="math.answer", lane="batch", requires=frozenset({"answer"}))
    whole = reward(part, leaf(None, name="other"), requires=frozenset({"answer", "completion"}))
    rollouts = Rollouts(["?"], ["!"], {"solution": ["4"]})
    with pytest.raises(MissingInput) as raised:
        engine.score(whole, rollouts)
    assert str(raised.value) == (
        "column 'answer' is missing: math.answer reads it; the batch has: prompt, completion, solution"
    )


def test_missing_tokens_trees_and_models_are_named_with_who_reads_them(leaf, reward, batch, engine):
    needs = frozenset({"tokens", "model:policy"})
    whole = reward(leaf(None, name="likelihood", requires=needs), requires=needs | {"tree"}, name="total")
    with pytest.raises(MissingInput) as raised:
        engine.score(whole, batch(1), Context(models={"reference": object()}))
    assert str(raised.value).splitlines() == [
        "model 'policy' is missing: likelihood reads it; the context has: reference",
        "'tokens' is missing: likelihood reads it; pass Rollouts(..., tokens=...)",
        "'tree' is missing: a part of total reads it; pass Rollouts(..., tree=...)",
    ]


def test_a_column_may_be_called_model(leaf, reward, engine):
    part = leaf(lambda *_: 1.0, name="math.answer", lane="batch", requires=frozenset({"model"}))
    with pytest.raises(MissingInput, match="column 'model' is missing"):
        engine.score(reward(part, requires=part.requires), Rollouts(["?"], ["!"]))
    require(reward(part, requires=part.requires), Rollouts(["?"], ["!"], {"model": ["m"]}), Context())


def test_what_is_there_is_not_missing(leaf, reward, batch, engine):
    ids = np.zeros((2, 1), int)
    rollouts = batch(2).with_(tokens=Tokens(ids, ids == 0, ids == 0))
    whole = reward(leaf(lambda number: 1.0), requires=frozenset({"tokens", "model:policy", "number", "prompt"}))
    assert engine.score(whole, rollouts, Context(models={"policy": object()})).mean() == 1.0


def test_scoring_in_one_call(leaf, reward, batch):
    part = leaf(lambda number: time.sleep(60) if number == 1 else 1.0)
    assert score(reward(part), batch(3), workers=1, deadline=0.3).reasons == {1: "deadline 0.3 s"}
    assert score(reward(leaf(lambda number: number)), batch(3)).mean() == 1.0
    assert default() is default()


def test_an_engine_that_is_closed_says_so(leaf, batch, run):
    engine = Engine()
    engine.close()
    engine.close()
    with pytest.raises(GuerdonError, match="this engine is closed"):
        run(leaf(lambda number: 1.0), batch(1), engine)


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"deadline": 0.0}, {"deadline": float("nan")}, {"concurrency": -1}])
def test_an_engine_of_nothing_is_an_error(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        Engine(**wrong)


# What would cost more than its own unit


def test_a_power_tower_costs_one_deadline(leaf, batch, run):
    five = 5

    def tower(number):
        return float(five ** (five ** (five ** (five**number))) % 7 if number == 5 else number)

    scores = run(leaf(tower, deadline=0.5), batch(9))
    assert scores.reasons == {5: "deadline 0.5 s"}
    np.testing.assert_array_equal(scores.read(fill=-1), [0, 1, 2, 3, 4, -1, 6, 7, 8])


def test_memory_that_there_is_not_is_an_abstention(leaf, batch, run):
    def hungry(number):
        if number == 3:
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.RLIM_INFINITY))
            return len(bytes(8 << 30))
        return number

    with Engine(workers=1) as engine:
        scores = run(leaf(hungry), batch(6), engine)
    assert list(scores.reasons) == [3]
    assert scores.reasons[3].startswith("MemoryError")
    np.testing.assert_array_equal(scores.read(fill=-1), [0, 1, 2, -1, 4, 5])


def test_a_deadline_holds_on_any_thread(leaf, batch, run):
    found = []
    part = leaf(lambda number: time.sleep(60) if number == 1 else number, deadline=0.3)
    thread = threading.Thread(target=lambda: found.append(run(part, batch(3))))
    thread.start()
    thread.join(8)
    assert found[0].reasons == {1: "deadline 0.3 s"}


@pytest.fixture
def lives(monkeypatch):
    """What became of worker processes, in order, and when."""
    events = []

    class Child(process.Child):
        def __init__(self):
            events.append(("start", time.monotonic()))
            super().__init__()

        def end(self, **options):
            events.append(("end", time.monotonic()))
            return super().end(**options)

    monkeypatch.setattr(process, "Child", Child)
    return events


def test_the_successor_of_a_hung_worker_starts_before_the_kill_and_works_after_it(leaf, batch, run, lives, tmp_path):
    def noted(number):
        with open(tmp_path / "begun", "a") as log:
            log.write(f"{time.monotonic()}\n")
        time.sleep(60 if number == 0 else 0)
        return number

    with Engine(workers=1) as engine:
        assert list(run(leaf(noted, deadline=2.0), batch(4), engine).reasons) == [0]
        events = [*lives]
    hung, *others = (float(line) for line in (tmp_path / "begun").read_text().split())
    assert [what for what, _ in events] == ["start", "start", "end"]
    assert events[1][1] > hung + 1.4
    assert min(others) > events[2][1]


def test_who_worked_last_goes_on(monkeypatch):
    """A successor that was not needed stays out of the way: who works has the leaf, and its modules, at hand."""
    lane, sent = process.ProcessLane(workers=2), []
    monkeypatch.setattr(lane, "_send", lambda post, *chunk: sent.append(post.since))
    busy, *idle = (process.Post(child=None, ready=True, since=since) for since in (9.0, 0.0, 5.0))
    busy.job = object()
    lane._posts.extend([busy, *idle])
    lane._jobs.append(SimpleNamespace(queued=8, take=lambda workers: (0, 1, b"")))
    lane._assign()
    assert sent == [5.0]


def test_units_that_are_almost_late_leave_one_worker_over_at_most(leaf, batch, run, lives):
    with Engine(workers=1) as engine:
        assert run(leaf(lambda number: time.sleep(0.5) or 1.0, deadline=0.8), batch(5), engine).reasons == {}
        assert [what for what, _ in lives] == ["start", "start"]
        pids = run(leaf(lambda number: time.sleep(0.02) or os.getpid()), batch(20), engine).read(fill=0)
    assert len(set(pids)) == 1
