"""Scoring on Ray: a real cluster once, and a stand-in whose actors die, hang and vanish as each test decides."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon.core import Abstain, Context, GuerdonError, MissingExtra, Rollouts, Scores
from guerdon.engine import Engine, cluster, score
from guerdon.engine.child import search_path
from guerdon.engine.cluster import SILENCE
from guerdon.engine.connection import Connection
from guerdon.engine.relay import Answer, Order, Relay
from guerdon.engine.wire import Report

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this module


# What an actor makes of an order


@pytest.fixture(scope="module")
def carry_out(leaf):
    """Have a relay in this process carry out an order of units that read 'number'."""
    relay, path = Relay(), list(sys.path)

    def work(function, numbers, *, columns=None, deadline=5.0, pickled=None, where=(), relay=relay):
        pickled = pickled or cloudpickle.dumps(leaf(function))
        columns = columns or cloudpickle.dumps([numbers])
        order = Order(pickled, [*where, *search_path()], columns, len(numbers), None, deadline)
        return relay.work(pickled, order)

    yield work
    relay.close()
    sys.path[:] = path


def reported(answer):
    return [value for report in answer.reports for value in np.frombuffer(report.values)]


def test_an_order_is_carried_out(carry_out):
    answer = carry_out(lambda number: 2 * number, list(range(1000)))
    assert reported(answer) == [2 * number for number in range(1000)]
    assert answer[1:5] == (None, [], None, None)
    assert 0 < answer.seconds < 5


def test_a_unit_that_costs_the_worker_its_life_is_named_and_the_others_handed_back(carry_out):
    answer = carry_out(lambda number: time.sleep(60) if number == 3 else number, list(range(8)), deadline=0.3)
    assert answer.failed == (3, "deadline 0.3 s")
    assert reported(answer) == list(range(done := len(reported(answer))))
    assert answer.left == [ends for ends in [(done, 3), (4, 8)] if ends[0] < ends[1]]
    assert (answer.refused, answer.abandoned, answer.seconds) == (None, None, None)


def test_what_turns_slow_is_handed_back(carry_out):
    answer = carry_out(lambda number: time.sleep(0.05) or number, list(range(30)))
    done = len(reported(answer))
    assert 0 < done < 15
    assert answer.left == [(done, 30)]


def test_columns_and_leaves_that_no_worker_can_read_are_returned_with_the_reason(carry_out):
    answer = carry_out(float, [1, 2], columns=b"junk")
    assert answer.refused.startswith("columns cannot be read in a worker: UnpicklingError")
    assert answer.left == [(0, 2)]
    answer = carry_out(float, [1, 2], pickled=b"junk")
    assert answer.abandoned.startswith("cannot be loaded in a worker")
    assert answer.left == []


class Fatal:
    """Ends the process that unpickles it, as often as it is told."""

    def __init__(self, path, times):
        self.path, self.times = path, times

    def __reduce__(self):
        return die_or_count, (self.path, self.times)


def die_or_count(path, times):
    with open(path, "a") as log:
        log.write(".")
    if (tries := os.path.getsize(path)) <= times:
        os._exit(5)
    return tries


def test_a_worker_that_dies_outside_of_a_unit_is_replaced_three_times(carry_out, tmp_path):
    answer = carry_out(float, [1], columns=cloudpickle.dumps([[Fatal(str(tmp_path / "two"), 2)]]))
    assert reported(answer) == [3]
    answer = carry_out(float, [1], columns=cloudpickle.dumps([[Fatal(str(tmp_path / "many"), 99)]]))
    assert answer.abandoned == "worker died (exit code 5) outside of a unit, 3 times in a row"
    assert (tmp_path / "many").read_text() == "..."


def test_an_order_is_dropped_with_what_its_worker_started(carry_out, leaf, tmp_path, ends):
    relay = Relay()

    def wait(number):
        sleeper = subprocess.Popen(["sleep", "600"])
        (tmp_path / "new").write_text(str(sleeper.pid))
        os.rename(tmp_path / "new", tmp_path / "pid")
        sleeper.wait()

    pickled, answers = cloudpickle.dumps(leaf(wait)), []
    thread = threading.Thread(target=lambda: answers.append(carry_out(wait, [1], pickled=pickled, relay=relay)))
    thread.start()
    try:
        assert comes_true((tmp_path / "pid").exists)
        relay.drop(b"another leaf")
        assert not comes_true(lambda: answers, 0.3)
        relay.drop(pickled)
        thread.join(8)
        assert answers[0].abandoned == "cancelled"
        assert ends(int((tmp_path / "pid").read_text()))
    finally:
        relay.close()
    with pytest.raises(GuerdonError, match="closed"):
        carry_out(wait, [1], relay=relay)


def test_modules_are_found_where_the_sender_finds_them(carry_out, tmp_path, monkeypatch):
    (tmp_path / "only_there.py").write_text("ANSWER = 42")
    monkeypatch.setattr(sys, "path", ["/of/the/actor", *sys.path])

    def imported(number):
        import only_there

        return only_there.ANSWER

    relay = Relay()
    try:
        assert reported(carry_out(imported, [1], where=[str(tmp_path)], relay=relay)) == [42]
        assert sys.path[0] == str(tmp_path)
        assert "/of/the/actor" in sys.path
    finally:
        relay.close()


# The lane, on actors whose fate the test decides


class Gone(Exception):
    """What a call to a dead actor ends in."""


class Fault(Exception):
    """What an exception inside an actor's method ends in."""


class StandIn:
    """As much of Ray as the engine uses. Its actors evaluate in this process, at once, unless fate has it otherwise.

    `fate` is asked about each order, by the numbers in it, and `birth` about each actor, by how many came before:
    'die', 'hang', 'fault', or 'stop' after the first unit of two and more; anything else lets it live.
    """

    exceptions = SimpleNamespace(RayTaskError=Fault)

    def __init__(self):
        self.fate = self.birth = lambda _: None
        self.address, self.sessions, self.actors, self.orders, self.dropped = None, 0, [], [], []
        self.connected = True

    def is_initialized(self):
        return self.connected

    def init(self, address, **options):
        if address == "nowhere:6379":
            raise ConnectionError("nobody answers")
        self.address, self.options, self.connected = address, options, True
        self.sessions += 1

    def shutdown(self):
        self.connected = False

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: f"node {self.sessions}", get_job_id=lambda: "01")

    def cluster_resources(self):
        return {"CPU": 6.0, "memory": 1e9}

    def put(self, value):
        return value

    def wait(self, calls, num_returns, timeout):
        return calls, []

    def kill(self, actor):
        actor.alive = False

    def remote(self, **options):
        return lambda kind: SimpleNamespace(remote=self._hire)

    def _hire(self):
        assert self.connected, "calling Ray now would start another"
        self.actors.append(StandInActor(self, self.birth(len(self.actors))))
        return self.actors[-1]


class StandInActor:
    def __init__(self, ray, birth):
        self.alive, self.birth = True, birth
        for name in ("ready", "work", "drop", "close"):
            setattr(self, name, SimpleNamespace(remote=lambda *a, ray=ray, name=name: self._call(ray, name, *a)))

    def _call(self, ray, method, *arguments):
        assert ray.connected, "calling Ray now would start another"
        call = Future()
        fate, numbers = self.birth if method == "ready" else None, []
        if method == "work":
            numbers = pickle.loads(arguments[1].columns)[0]
            ray.orders.append(numbers)
            fate = ray.fate(numbers)
        if method == "drop":
            ray.dropped.append(arguments[0])
        self.alive = self.alive and fate != "die"
        if not self.alive:
            call.set_exception(Gone("The actor died.\n\tactor_id: 17\nits machine is gone"))
        elif fate == "fault":
            call.set_exception(Fault("our own"))
        elif fate != "hang":
            done = numbers[:1] if fate == "stop" else numbers
            call.set_result(evaluated(pickle.loads(arguments[0]), done, len(numbers)) if method == "work" else None)
        return SimpleNamespace(future=lambda: call)


def evaluated(leaf, numbers, asked):
    """The answer of an actor that did these units, gives up the next, if any, and hands back the rest."""
    values, done = np.array([float(leaf.evaluate(number)) for number in numbers]), len(numbers)
    failed = (done, "given up") if done < asked else None
    reports = [Report(done, values.tobytes(), {}, {}, True)]
    return Answer(reports, failed, [(done + 1, asked)] if done < asked else [], None, None, 1e-3 * done)


@pytest.fixture
def ray(monkeypatch):
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    monkeypatch.setattr(cluster, "CONNECTION", Connection())
    monkeypatch.setattr(cluster, "GLANCE", 0.02)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return stand_in


@pytest.fixture
def on_ray(ray):
    with Engine(workers=3, backend="ray", deadline=0.1) as engine:
        yield engine


def doubled(scores):
    """Whether each row has twice its number or an abstention."""
    values = scores.read(fill=np.nan)
    return ((values == 2 * np.arange(len(values))) | np.isnan(values)).all()


@pytest.fixture(scope="module")
def double(leaf):
    return leaf(lambda number: 2 * number)


def test_actors_share_the_units_and_their_order_is_kept(on_ray, ray, double, batch, run):
    scores = run(double, batch(500), on_ray)
    np.testing.assert_array_equal(scores.read(fill=-1), 2 * np.arange(500))
    assert sorted(number for numbers in ray.orders for number in numbers) == list(range(500))
    assert len(ray.actors) == 3
    run(double, batch(500), on_ray)
    assert len(ray.actors) == 3


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 200), data=st.data())
def test_a_unit_that_takes_its_actor_with_it_costs_only_itself(double, batch, run, n, data):
    poisonous = data.draw(st.sets(st.integers(0, n - 1), max_size=4))
    with pytest.MonkeyPatch.context() as patch:
        ray = StandIn()
        patch.setitem(sys.modules, "ray", ray)
        ray.fate = lambda numbers: "die" if poisonous & set(numbers) else None
        with Engine(workers=1, backend="ray") as engine:
            scores = run(double, batch(n), engine)
    assert scores.reasons == dict.fromkeys(poisonous, "its Ray actor was lost 3 times: its machine is gone")
    assert doubled(scores)
    alone = Counter(numbers[0] for numbers in ray.orders if len(numbers) == 1 and poisonous & set(numbers))
    assert alone == dict.fromkeys(poisonous, 3)
    assert len(ray.actors) <= 1 + len(poisonous) * (3 + 8)  # halving finds one among 200 in 8


def test_an_actor_lost_twice_at_each_unit_loses_nothing(on_ray, ray, double, batch, run):
    deaths = Counter()

    def fate(numbers):
        deaths[tuple(numbers)] += 1
        return "die" if len(numbers) > 1 or deaths[tuple(numbers)] < 3 else None

    ray.fate = fate
    scores = run(double, batch(12), on_ray)
    assert scores.reasons == {}
    assert doubled(scores)


def test_what_an_actor_hands_back_is_shared_out_again(on_ray, ray, double, batch, run):
    ray.fate = lambda numbers: "stop" if len(numbers) > 1 else None
    scores = run(double, batch(100), on_ray)
    given_up = [numbers[1] for numbers in ray.orders if len(numbers) > 1]
    assert scores.reasons == dict.fromkeys(given_up, "given up")
    assert len(given_up) > 10
    assert doubled(scores)


def test_groups_stay_whole_when_their_actor_is_lost(ray, leaf, run):
    rollouts = Rollouts(list("aabbbccd"), list("12345678"))
    lost = []

    def fate(groups):
        lost.append(groups)
        return "die" if len(lost) < 3 else "fault"

    ray.fate = fate
    part = leaf(len, unit="group", reads=("completion",))
    with Engine(workers=1, backend="ray") as engine, pytest.raises(Fault):
        run(part, rollouts, engine)
    assert all("".join(group) in ("12", "345", "67", "8") for groups in lost for group in groups)


def test_actors_that_die_while_idle_cost_no_unit_a_try(on_ray, ray, double, batch, run):
    run(double, batch(100), on_ray)
    for actor in ray.actors:
        actor.alive = False
    ray.orders.clear()
    assert run(double, batch(1), on_ray).reasons == {}
    assert ray.orders == [[0]]


def test_an_actor_that_does_not_answer_is_lost(on_ray, ray, double, batch, run, monkeypatch):
    monkeypatch.setattr(cluster, "SILENCE", 0.1)
    silent = []

    def fate(numbers):
        silent.append(numbers)
        return "hang" if len(silent) == 2 else None

    ray.fate = fate
    scores = run(double, batch(60), on_ray)
    assert scores.reasons == {}
    assert doubled(scores)
    assert [actor.alive for actor in ray.actors].count(False) == 1


def test_a_unit_over_which_no_actor_answers_abstains(on_ray, ray, double, batch, run, monkeypatch):
    monkeypatch.setattr(cluster, "SILENCE", 0.1)
    ray.fate = lambda numbers: "hang" if 5 in numbers else None
    scores = run(double, batch(9), on_ray)
    assert scores.reasons == {5: "its Ray actor was lost 3 times: it did not answer for 0.2 s"}
    assert doubled(scores)


def test_work_for_which_no_actor_starts_abstains(on_ray, ray, double, batch, run, monkeypatch):
    monkeypatch.setattr(cluster, "STARTING", 0.2)
    ray.birth = lambda number: "hang"
    reason = "no Ray actor started within 0.2 s: the cluster has no free CPU, or no machine"
    assert run(double, batch(3), on_ray).reasons == dict.fromkeys(range(3), reason)


def test_one_actor_that_starts_is_enough(on_ray, ray, double, batch, run, monkeypatch):
    monkeypatch.setattr(cluster, "STARTING", 0.1)
    ray.birth = lambda number: "hang" if number else None
    ray.fate = lambda numbers: time.sleep(0.05)
    assert run(double, batch(50), on_ray).reasons == {}


def test_actors_that_cannot_start_are_not_started_again_and_again(on_ray, ray, double, batch, run):
    ray.birth = lambda number: "die"
    reason = "no Ray actor can start: its machine is gone"
    assert run(double, batch(5), on_ray).reasons == dict.fromkeys(range(5), reason)
    assert len(ray.actors) <= 6
    ray.birth = lambda number: None
    assert run(double, batch(5), on_ray).reasons == {}


def test_a_cluster_on_which_all_actors_die_is_given_up(on_ray, ray, double, batch, run):
    ray.fate = lambda numbers: "die"
    scores = run(double, batch(5000), on_ray)
    assert len(scores.reasons) == 5000
    assert scores.reasons[4999].endswith("Ray actors were lost in a row: its machine is gone")
    assert len(ray.actors) <= 3 * cluster.LOSSES + 6
    ray.fate = lambda numbers: None
    assert run(double, batch(5), on_ray).reasons == {}


def test_a_fault_of_the_engine_reaches_the_caller_and_is_not_forever(on_ray, ray, double, batch, run):
    ray.fate = lambda numbers: "fault"
    with pytest.raises(Fault, match="our own"):
        run(double, batch(5), on_ray)
    ray.fate = lambda numbers: None
    assert run(double, batch(5), on_ray).reasons == {}


def comes_true(condition, seconds=8.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_work_that_nobody_waits_for_is_dropped(on_ray, ray, double, batch, run):
    ray.fate = lambda numbers: "hang" if len(ray.orders) == 1 else None
    pending = on_ray.begin({double: np.ones(1, bool)}, batch(1))
    assert comes_true(lambda: ray.orders == [[0]])
    pending.cancel()
    assert comes_true(lambda: len(ray.dropped) == 1)
    assert run(double, batch(40), on_ray).reasons == {}


def test_an_actor_that_is_lost_over_dropped_work_harms_no_other(on_ray, ray, double, batch, run, monkeypatch):
    monkeypatch.setattr(cluster, "SILENCE", 0.1)
    ray.fate = lambda numbers: {1: "die", 2: "die", 3: "hang"}.get(len(ray.orders))
    pending = on_ray.begin({double: np.ones(1, bool)}, batch(1))
    assert comes_true(lambda: len(ray.orders) == 3)
    pending.cancel()
    time.sleep(0.25)
    assert run(double, batch(40), on_ray).reasons == {}
    assert [actor.alive for actor in ray.actors].count(False) == 3


def test_closing_lets_what_is_running_abstain(ray, double, batch):
    ray.fate = lambda numbers: "hang"
    engine = Engine(workers=1, backend="ray")
    pending = engine.begin({double: np.ones(3, bool)}, batch(3))
    engine.close()
    assert pending.scores()[double].reasons == dict.fromkeys(range(3), "the engine was closed")
    with pytest.raises(GuerdonError, match="this engine is closed"):
        engine.measure({double: np.ones(3, bool)}, batch(3))


def test_a_ray_that_is_shut_down_amid_the_work_ends_it_and_the_next_connects_again(ray, double, batch, run, on_ray):
    ray.fate = lambda numbers: ray.shutdown() or "hang"
    assert run(double, batch(3), on_ray).reasons == dict.fromkeys(range(3), "Ray was shut down")
    ray.fate = lambda numbers: None
    assert run(double, batch(3), on_ray).reasons == {}
    assert ray.address == "local"


def test_a_ray_of_the_user_is_used_and_left_as_it_is(ray, double, batch, run):
    with Engine(backend="ray") as engine:
        assert repr(engine) == "Engine(workers=6, deadline=10.0, concurrency=64, backend='ray')"
        run(double, batch(30), engine)
    assert (ray.sessions, ray.connected) == (0, True)
    assert not any(actor.alive for actor in ray.actors)


def test_a_ray_that_an_engine_started_ends_with_the_last_engine(ray):
    ray.connected = False
    first, second = Engine(workers=2, backend="ray"), Engine(workers=5, backend="ray")
    assert (ray.address, ray.options) == ("local", {"num_cpus": 2, "include_dashboard": False})
    first.close()
    first.close()
    assert ray.connected
    second.close()
    assert not ray.connected


def test_a_ray_that_the_user_started_in_its_place_is_left_as_it_is(ray):
    ray.connected = False
    with Engine(workers=2, backend="ray"):
        ray.shutdown()
        ray.init(address="local")
    assert (ray.sessions, ray.connected) == (2, True)


def test_the_cluster_is_the_one_at_ray_address(ray, monkeypatch):
    ray.connected = False
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with Engine(backend="ray"):
        assert (ray.address, ray.options) == ("head:6379", {})
    assert not ray.connected
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:6379")
    with pytest.raises(GuerdonError, match=r"cannot connect to Ray at nowhere:6379 \(RAY_ADDRESS\): nobody answers"):
        Engine(backend="ray")


def test_the_cpus_of_the_cluster_are_shared_among_the_training_processes(ray, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with Engine(backend="ray") as engine:
        assert engine.workers == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with Engine(backend="ray") as engine:
        assert engine.workers == 3
    with Engine(backend="ray", workers=9) as engine:
        assert engine.workers == 9


def test_a_fork_is_told_that_it_cannot_use_the_connection_of_its_parent(on_ray, ray, double, batch, run):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for _ in range(2):
                with pytest.raises(GuerdonError, match="Ray does not work in a fork"):
                    run(double, batch(2), on_ray)
                os.write(writer, b"told ")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 99) == b"told told "
    assert run(double, batch(2), on_ray).reasons == {}


def test_scoring_in_one_call_on_ray(ray, double, reward, batch):
    assert score(reward(double), batch(5), backend="ray").mean() == 4.0
    assert len(ray.actors) > 0
    assert not any(actor.alive for actor in ray.actors)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'guerdon\[ray\]'"):
        Engine(backend="ray")


def test_a_backend_that_there_is_not_is_an_error():
    with pytest.raises(ValueError, match=r"no backend 'rey': did you mean 'ray'\?"):
        Engine(backend="rey")


# A real cluster


def family():
    """The process ids below this process, at any depth, zombies aside."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rsplit(")", 1)[1].split()[:2]
            if state != "Z":
                parents[int(path.parent.name)] = int(parent)
    below = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return below - {os.getpid()}


@pytest.fixture
def two_cpus(monkeypatch, ends):
    """A Ray cluster of two CPUs on this machine, which leaves no process behind."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    before = family()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    started = family() - before
    try:
        yield ray
        started |= family() - before
    finally:
        ray.shutdown()
    assert len(started) >= 3
    assert all(ends(pid) for pid in started)
    assert comes_true(lambda: not family() - before)


def misbehave(number):
    """Ten ways to be scored."""
    return [
        lambda: number,
        lambda: (number, {"twice": 2 * number}),
        lambda: (number, {"lock": threading.Lock()}),
        lambda: 1 / 0,
        lambda: Abstain("no reference"),
        lambda: None,
        lambda: -2,
        lambda: float("nan"),
        lambda: time.sleep(60) if number == 8 else number,
        lambda: os._exit(7) if number == 19 else number,
    ][number % 10]()


@pytest.mark.processes
def test_a_cluster_scores_as_this_machine_does_and_its_dead_cost_nothing(
    two_cpus, leaf, reward, batch, run, ends, tmp_path, monkeypatch
):
    offset = 3
    rows = leaf(misbehave, name="rows", deadline=1.0)
    closure = leaf(lambda number, context: number + offset + context.step, name="closure", reads=("number", "context"))
    groups = leaf(lambda c: [len(c)] * len(c) if "7" not in c else [0.0], "groups", unit="group", reads=("completion",))
    unloadable = leaf(Unloadable(), name="unloadable")
    whole = leaf(lambda rollouts, context: Scores(np.ones(len(rollouts))), name="whole", lane="batch")
    leaves = [rows, closure, groups, unloadable, whole]
    demand = {part: np.arange(60) != 30 for part in leaves}
    rollouts = Rollouts([str(i // 4) for i in range(60)], [str(i) for i in range(60)], {"number": list(range(60))})
    with Engine(workers=2) as engine:
        here = engine.measure(demand, rollouts, Context(step=100))

    with Engine(backend="ray") as engine:
        assert engine.workers == 2
        there = engine.measure(demand, rollouts, Context(step=100))
        for part in leaves:
            a, b = here[part], there[part]
            np.testing.assert_array_equal(a.read(fill=np.nan), b.read(fill=np.nan))
            assert (a.mask.tolist(), a.reasons, a.details) == (b.mask.tolist(), b.reasons, b.details)
        assert here[rows].reasons[8] == "deadline 1.0 s"
        assert here[rows].reasons[19] == "worker died (exit code 7)"
        assert "cannot be loaded in a worker" in here[unloadable].reasons[0]
        assert run(leaf(lambda number: "torch" in sys.modules), batch(4), engine).read(fill=-1).tolist() == [0] * 4

        def whose(number):
            (tmp_path / f"{os.getppid()}").touch()
            time.sleep(0.02)
            return number

        def actors():
            return {int(path.name) for path in tmp_path.iterdir()}

        for deadly, seconds in ((signal.SIGKILL, SILENCE), (signal.SIGSTOP, 0.5)):
            monkeypatch.setattr(cluster, "SILENCE", seconds)
            pending = engine.begin({leaf(whose, deadline=3.0): np.ones(200, bool)}, batch(200))
            assert comes_true(lambda: len(actors()) == 2)
            victim = min(actors())
            os.kill(victim, deadly)
            (scores,) = pending.scores().values()
            np.testing.assert_array_equal(scores.read(fill=-1), range(200))
            assert ends(victim)
            for path in tmp_path.iterdir():
                path.unlink()

        scores = run(leaf(lambda number: os.kill(os.getppid(), 9) if number == 7 else number), batch(40), engine)
        assert list(scores.reasons) == [7]
        assert scores.reasons[7].startswith("its Ray actor was lost 3 times: ")
        workers = run(leaf(lambda number: time.sleep(0.02) or os.getpid()), batch(20), engine).read(fill=0)

    assert all(ends(int(pid)) for pid in set(workers))
    assert two_cpus.is_initialized()
    two_cpus.shutdown()
    assert score(reward(leaf(lambda number: number)), batch(9), workers=1, backend="ray").mean() == 4.0
    assert not two_cpus.is_initialized()


class Unloadable:
    """Cannot be unpickled but in this process."""

    def __reduce__(self):
        return load_here, (os.getpid(),)


def load_here(pid):
    if os.getpid() != pid:
        raise ImportError("no such module there")
    return float
