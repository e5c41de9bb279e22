"""The life of the worker processes: where they come from, what they know, when they end."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from guerdon.engine import Engine, default, engine as engine_module
from guerdon.engine.process import ProcessLane


def workers_of(engine, leaf, batch, run):
    """The process ids of the workers, found by units that take long enough for all workers to get some."""

    def whose(number):
        time.sleep(0.05)
        return os.getpid()

    return set(run(leaf(whose), batch(12), engine).read(fill=0).astype(int))


def ready_workers(engine, other_than, seconds=8.0):
    """The process ids of the workers that wait for work, once there are two."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        posts = list(engine._lanes["process"]._posts)
        pids = {post.child._process.pid for post in posts if post.ready} - other_than
        if len(pids) == 2:
            return pids
        time.sleep(0.02)
    return set()


def script(tmp_path, text):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(text))
    return [sys.executable, str(path)]


LEAF = """
    import os, sys, time
    from dataclasses import dataclass
    import numpy as np
    from guerdon.core import Rollouts
    from guerdon.engine import Engine

    @dataclass(frozen=True)
    class Mine:
        name: str = "mine"
        lane: str = "process"
        range: tuple = (0, 1e9)
        level: str = "rollout"
        reads: tuple = ("completion",)
        unit: str = "row"
        deadline: float | None = None
        differentiable: bool = False
        def check(self):
            pass
        def evaluate(self, completion):
            return work(completion)

    def measure(engine, completions):
        batch = Rollouts(["?"] * len(completions), completions)
        return engine.measure({Mine(): np.ones(len(batch), bool)}, batch)[Mine()]
"""


def test_workers_import_no_torch_even_if_this_process_has(leaf, batch, run):
    import torch

    assert torch is not None
    with Engine(workers=1) as engine:
        scores = run(leaf(lambda number: "torch" in sys.modules), batch(4), engine)
    np.testing.assert_array_equal(scores.read(fill=-1), 0)


def test_workers_compute_on_one_thread_and_keep_the_users_environment(leaf, batch, run, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with Engine(workers=1) as engine:
        threads = run(leaf(lambda number: int(os.environ["OMP_NUM_THREADS"])), batch(1), engine)
        path = run(leaf(lambda number: os.environ["PYTHONPATH"] == "/somewhere"), batch(1), engine)
    assert (threads.read(fill=-1)[0], path.read(fill=-1)[0]) == (1, 1)


def test_workers_are_reused_between_calls_and_end_with_the_engine(leaf, batch, run, ends):
    with Engine(workers=2) as engine:
        first = workers_of(engine, leaf, batch, run)
        assert len(first) == 2
        assert workers_of(engine, leaf, batch, run) == first
    assert all(ends(pid) for pid in first)


def test_no_more_workers_start_than_there_are_units(leaf, batch, run):
    with Engine(workers=4) as engine:
        assert len(set(run(leaf(lambda number: os.getpid()), batch(1), engine).read(fill=0))) == 1
        assert len(engine._lanes["process"]._posts) == 1


def test_the_pool_does_not_shrink_when_workers_are_killed(leaf, batch, run, ends):
    with Engine(workers=2) as engine:
        before = workers_of(engine, leaf, batch, run)
        run(leaf(lambda number: time.sleep(60) if number < 3 else 1.0, deadline=0.1), batch(20), engine)
        run(leaf(lambda number: os._exit(1) if number < 3 else 1.0), batch(20), engine)
        after = workers_of(engine, leaf, batch, run)
        for pid in after:
            os.kill(pid, signal.SIGKILL)
        assert all(ends(pid) for pid in after)
        assert len(ready_workers(engine, other_than=after)) == 2
    assert len(before) == len(after) == 2
    assert not before & after


def test_a_worker_killed_while_idle_is_replaced(leaf, batch, run):
    with Engine(workers=2) as engine:
        before = workers_of(engine, leaf, batch, run)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        scores = run(leaf(lambda number: number), batch(50), engine)
        np.testing.assert_array_equal(scores.read(fill=-1), range(50))
        assert len(workers_of(engine, leaf, batch, run)) == 2


def test_workers_that_cannot_start_are_not_started_again_and_again(leaf, batch, run, monkeypatch):
    starts = []
    popen = subprocess.Popen

    def broken(command, **options):
        starts.append(command)
        return popen([sys.executable, "-c", "raise SystemExit(5)"], **options)

    with Engine(workers=2) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", broken)
            scores = run(leaf(lambda number: 1.0), batch(3), engine)
        assert set(scores.reasons) == {0, 1, 2}
        assert scores.reasons[0].startswith("no worker process can start: it died (exit code 5);")
        assert len(starts) <= 4
        assert run(leaf(lambda number: 1.0), batch(3), engine).reasons == {}


def test_workers_that_are_there_go_on_where_no_more_can_start(leaf, batch, run, monkeypatch):
    def refuse(command, **options):
        raise OSError("Cannot allocate memory")

    with Engine(workers=2) as engine:
        run(leaf(lambda number: 1.0), batch(1), engine)
        monkeypatch.setattr(subprocess, "Popen", refuse)
        np.testing.assert_array_equal(run(leaf(lambda number: number), batch(40), engine).read(fill=-1), range(40))
        scores = run(leaf(lambda number: os._exit(1) if number == 30 else number), batch(40), engine)
    assert scores.reasons[30] == "worker died (exit code 1)"
    assert scores.reasons[39].startswith("no worker process can start: OSError: Cannot allocate memory;")
    np.testing.assert_array_equal(scores.read(fill=-1)[:20], range(20))


def test_an_engine_that_is_forgotten_takes_its_workers_with_it(leaf, batch, run, ends):
    engine = Engine(workers=1)
    pids = workers_of(engine, leaf, batch, run)
    del engine
    gc.collect()
    assert all(ends(pid) for pid in pids)


def test_two_threads_share_the_pool(leaf, batch, run):
    n, results = 400, {}

    def score(offset):
        results[offset] = run(leaf(lambda number: number + offset), batch(n))

    threads = [threading.Thread(target=score, args=(offset,)) for offset in (0, 1000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for offset in (0, 1000, 2000):
        np.testing.assert_array_equal(results[offset].read(fill=-1), np.arange(n) + offset)


def test_leaves_take_turns(engine, leaf, batch):
    slow = leaf(lambda number: time.sleep(0.1) or time.monotonic(), name="slow")
    quick = leaf(lambda number: time.monotonic(), name="quick")
    measured = engine.measure({slow: np.ones(16, bool), quick: np.arange(16) < 2}, batch(16))
    assert measured[quick].read(fill=0).max() < measured[slow].read(fill=0).max() - 0.2


def test_closing_lets_what_is_running_abstain(leaf, batch, run):
    engine, results = Engine(workers=1), []
    thread = threading.Thread(target=lambda: results.append(run(leaf(lambda number: time.sleep(30)), batch(3), engine)))
    thread.start()
    time.sleep(0.6)
    engine.close()
    thread.join(5)
    assert results[0].reasons == dict.fromkeys(range(3), "the engine was closed")


def test_a_script_needs_no_main_guard(tmp_path):
    command = script(
        tmp_path,
        LEAF
        + """
    FACTOR = 2

    def work(completion):
        print("printed by a worker")
        return FACTOR * float(completion)

    print(measure(Engine(workers=2), ["1", "2", "3"]).read(fill=-1).tolist())
    """,
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[2.0, 4.0, 6.0]\n"
    assert done.stderr.count("printed by a worker") == 3


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_whatever_ends_it(tmp_path, end, ends):
    command = script(
        tmp_path,
        LEAF
        + """
    import signal
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored where the tests run

    def work(completion):
        os.write(2, f"pid {os.getpid()}\\n".encode())
        time.sleep(600)

    measure(Engine(workers=2, deadline=600), ["1", "2"])
    """,
    )
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        pids = [int(process.stderr.readline().split()[1]) for _ in range(2)]
        process.send_signal(end)
        _, err = process.communicate(timeout=20)
    assert all(ends(pid) for pid in pids)
    if end == signal.SIGINT:
        assert err.rstrip().endswith("KeyboardInterrupt")
        assert err.count("Traceback") == 1


def test_the_shared_engine_is_made_anew_in_a_fork(leaf, batch, run, monkeypatch):
    monkeypatch.setattr(engine_module, "_shared", {})
    parent = default()
    assert default() is parent
    run(leaf(lambda number: 1.0), batch(2), parent)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            same = default() is parent
            for engine in (default(), parent):
                mine = run(leaf(lambda number: os.getppid() == me), batch(2), engine) if (me := os.getpid()) else None
                os.write(writer, b"%d%d" % (same, mine.read(fill=-1).sum()))
            engine.close()
            default().close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 10) == b"0202"
    np.testing.assert_array_equal(run(leaf(lambda number: number), batch(4), parent).read(fill=-1), range(4))
    parent.close()
    assert default() is not parent


def test_cores_are_shared_among_the_training_processes_of_a_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert Engine().workers == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert Engine().workers == 1
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert Engine().workers == 16


def test_a_fault_of_the_lane_itself_reaches_the_caller_and_is_not_forever(leaf, batch, run, monkeypatch):
    def fault(self, post, message):
        raise RuntimeError("our own")

    with Engine(workers=1) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(ProcessLane, "_heed", fault)
            with pytest.raises(RuntimeError, match="our own"):
                run(leaf(lambda number: 1.0), batch(3), engine)
        assert run(leaf(lambda number: 1.0), batch(3), engine).reasons == {}
