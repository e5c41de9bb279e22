"""What hostile leaves can do in a worker: nothing that reaches another row."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon.core import Abstain, GuerdonError
from guerdon.engine import Engine
from guerdon.engine.process import ProcessLane
from guerdon.engine.worker import FLUSH

GOOD = 1.0
ODD = 3  # the row at which the leaf misbehaves


def others(scores, row=ODD):
    """The scores of all rows but one, NaN where they abstain."""
    return np.delete(scores.read(fill=np.nan), row)


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        (lambda: 1 / 0, r"ZeroDivisionError: division by zero \(test_process.py:\d+\)"),
        (lambda: sys.exit(3), r"SystemExit: 3 \(test_process.py:\d+\)"),
        (lambda: (_ for _ in ()).throw(KeyboardInterrupt), r"KeyboardInterrupt \(test_process.py:\d+\)"),
        (lambda: (_ for _ in ()).throw(Abstain("no reference")), "no reference"),
        (lambda: None, "no score was returned"),
        (lambda: float("nan"), "the score was nan, not a finite number"),
        (lambda: float("-inf"), "the score was -inf, not a finite number"),
        (lambda: "good", "returned str, expected a number"),
        (lambda: -2, r"score -2.0 outside the declared range \(0, 1e\+09\)"),
        (threading.Lock, "returned lock, expected a number"),
        (lambda: (1.0, {"lock": threading.Lock()}), "details cannot leave the worker: TypeError: cannot pickle.*"),
        (lambda: os._exit(7), r"worker died \(exit code 7\)"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), r"worker died \(signal 9\)"),
        (lambda: ctypes.string_at(0), r"worker died \(signal 11\)"),
    ],
)
def test_what_goes_wrong_in_one_row_is_said_of_that_row_alone(misbehave, reason, leaf, batch, run):
    scores = run(leaf(lambda number: misbehave() if number == ODD else GOOD), batch(12))
    assert list(scores.reasons) == [ODD]
    assert re.fullmatch(reason, scores.reasons[ODD])
    np.testing.assert_array_equal(others(scores), GOOD)


@pytest.mark.parametrize(
    "hang",
    [lambda: time.sleep(60), lambda: any(_ for _ in iter(int, 1)), lambda: re.match(r"(a+)+$", "a" * 40 + "b")],
    ids=["sleep", "loop", "C"],
)
def test_a_unit_that_hangs_abstains_at_its_deadline(hang, leaf, batch, run):
    start = time.monotonic()
    scores = run(leaf(lambda number: hang() if number == ODD else GOOD, deadline=0.3), batch(12))
    assert scores.reasons == {ODD: "deadline 0.3 s"}
    np.testing.assert_array_equal(others(scores), GOOD)
    assert time.monotonic() - start < 8


def test_a_unit_that_ends_past_its_deadline_has_no_score(leaf, batch, run):
    scores = run(leaf(lambda number: time.sleep(0.35 if number == ODD else 0) or GOOD, deadline=0.3), batch(6))
    assert scores.reasons == {ODD: "deadline 0.3 s"}


def test_one_percent_of_hung_rows_costs_only_those_rows(leaf, batch, run):
    n = 600
    hung = set(range(50, n, 100))
    start = time.monotonic()
    scores = run(leaf(lambda number: time.sleep(60) if number in hung else number, deadline=0.2), batch(n))
    assert set(scores.reasons) == hung
    assert set(scores.reasons.values()) == {"deadline 0.2 s"}
    expected = [np.nan if i in hung else i for i in range(n)]
    np.testing.assert_array_equal(scores.read(fill=np.nan), expected)
    assert time.monotonic() - start < 9


def test_a_hung_unit_takes_the_processes_it_started_with_it(leaf, batch, run, tmp_path, ends):
    def start_and_wait(number):
        child = subprocess.Popen(["sleep", "600"])
        (tmp_path / "pid").write_text(str(child.pid))
        child.wait()

    assert run(leaf(start_and_wait, deadline=0.5), batch(1)).reasons == {0: "deadline 0.5 s"}
    assert ends(int((tmp_path / "pid").read_text()))


def test_no_row_is_lost_or_doubled_when_workers_die_all_the_time(leaf, batch, run):
    n = 120
    scores = run(leaf(lambda number: os._exit(1) if number % 20 == 7 else number), batch(n))
    assert set(scores.reasons) == set(range(7, n, 20))
    np.testing.assert_array_equal(scores.read(fill=-1), [-1 if i % 20 == 7 else i for i in range(n)])


def test_a_unit_that_is_late_unseen_is_late_all_the_same(leaf, batch, run, monkeypatch):
    with Engine(workers=1) as engine:
        assert run(leaf(lambda number: GOOD), batch(1), engine).reasons == {}
        monkeypatch.setattr(ProcessLane, "_watch", lambda self: None)
        scores = run(leaf(lambda number: time.sleep(0.2 * number) or GOOD, deadline=0.3), batch(4), engine)
    assert scores.reasons == {2: "deadline 0.3 s", 3: "deadline 0.3 s"}


def test_a_kill_costs_little_of_the_work_before_it(leaf, batch, run, tmp_path):
    n, hung = 400, {150, 200, 250, 300}

    def noted(number):
        with open(tmp_path / "log", "a") as log:
            log.write(f"{number}\n")
        time.sleep(60 if number in hung else 0.002)
        return GOOD

    scores = run(leaf(noted, deadline=0.3), batch(n))
    assert set(scores.reasons) == hung
    log = [int(line) for line in (tmp_path / "log").read_text().split()]
    assert set(log) == set(range(n))
    assert len(log) - n <= len(hung) * (FLUSH / 0.002 + 2)


def test_units_that_turn_slow_are_shared_out(leaf, batch, run):
    def whose(number):
        time.sleep(0.05 if 1000 <= number < 1060 else 0)
        return os.getpid()

    pids = run(leaf(whose), batch(3000)).read(fill=0)[1000:1060]
    assert np.unique(pids, return_counts=True)[1].tolist() == pytest.approx([30, 30], abs=15)


def test_the_time_a_unit_waits_for_its_turn_does_not_count(leaf, batch, run):
    with Engine(workers=1) as engine:
        scores = run(leaf(lambda number: time.sleep(0.05) or GOOD, deadline=0.4), batch(40), engine)
    assert scores.reasons == {}


def test_importing_what_a_leaf_needs_does_not_count(leaf, batch, run, tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.8)\ndef one(number): return 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import slow_to_import

    assert run(leaf(slow_to_import.one, deadline=0.3), batch(4)).reasons == {}


@settings(max_examples=8, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.0, 0.0005, 0.004, 0.03]), min_size=1, max_size=60))
def test_order_is_kept_whatever_units_cost(leaf, batch, run, costs):
    def echo(number, cost):
        time.sleep(cost)
        return number

    scores = run(leaf(echo, reads=("number", "cost")), batch(len(costs), cost=costs))
    np.testing.assert_array_equal(scores.read(fill=-1), range(len(costs)))


def test_a_leaf_that_workers_cannot_load_abstains_and_says_why(leaf, batch, run, tmp_path, monkeypatch):
    module = tmp_path / "only_here.py"
    module.write_text("def one(number): return 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    module.unlink()
    part, told = (
        leaf(only_here.one),
        "cannot be loaded in a worker, whose sys.path is this process's: ModuleNotFoundError",
    )
    for _ in range(2):
        scores = run(part, batch(5))
        assert set(scores.reasons) == set(range(5))
        assert scores.reasons[0].startswith(told)
    assert run(leaf(lambda number: GOOD), batch(5)).reasons == {}


def test_a_leaf_whose_import_kills_the_worker_is_given_up(leaf, batch, run, tmp_path, monkeypatch):
    (tmp_path / "deadly.py").write_text(
        f"import os\nif os.getpid() != {os.getpid()}: os._exit(4)\ndef one(number): return 1.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import deadly

    scores = run(leaf(deadly.one), batch(5))
    assert scores.reasons[4] == "worker died (exit code 4) outside of a unit, 3 times in a row"


def test_a_leaf_whose_import_never_ends_is_given_up(leaf, batch, run, tmp_path, monkeypatch):
    (tmp_path / "endless.py").write_text(
        f"import os, time\nif os.getpid() != {os.getpid()}: time.sleep(600)\ndef one(number): return 1.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import endless

    with Engine(workers=1) as engine:
        run(leaf(lambda number: GOOD), batch(1), engine)
        monkeypatch.setattr("guerdon.engine.process.PATIENCE", 1.0)
        monkeypatch.setattr("guerdon.engine.job.TRIES", 1)
        scores = run(leaf(endless.one), batch(2), engine)
    assert scores.reasons[1].startswith("worker stopped answering and was killed outside of a unit")


def test_a_worker_is_not_taken_for_stuck_because_its_unit_is_long(leaf, batch, run, monkeypatch):
    with Engine(workers=1) as engine:
        run(leaf(lambda number: GOOD), batch(1), engine)
        monkeypatch.setattr("guerdon.engine.process.PATIENCE", 0.3)
        assert run(leaf(lambda number: time.sleep(1.3) or GOOD), batch(1), engine).reasons == {}


def test_a_leaf_that_cannot_be_pickled_is_an_error_before_any_work(leaf, batch, run):
    lock = threading.Lock()
    with pytest.raises(GuerdonError, match="leaf cannot be sent to a worker process: TypeError: cannot pickle"):
        run(leaf(lambda number: lock), batch(2))


def test_a_row_that_cannot_be_sent_abstains_alone(leaf, batch, run):
    column = [threading.Lock() if i == ODD else i for i in range(40)]
    scores = run(leaf(lambda item: item, reads=("item",)), batch(40, item=column))
    assert list(scores.reasons) == [ODD]
    assert scores.reasons[ODD].startswith("columns cannot be sent to a worker: TypeError: cannot pickle")
    np.testing.assert_array_equal(others(scores), np.delete(np.arange(40), ODD))


class Unreadable:
    def __reduce__(self):
        return int, ("no number",)


def test_a_row_that_cannot_be_read_in_a_worker_abstains_alone(leaf, batch, run):
    column = [Unreadable() if i == ODD else i for i in range(40)]
    scores = run(leaf(lambda item: item, reads=("item",)), batch(40, item=column))
    assert list(scores.reasons) == [ODD]
    assert scores.reasons[ODD].startswith("columns cannot be read in a worker: ValueError: invalid literal")
    np.testing.assert_array_equal(others(scores), np.delete(np.arange(40), ODD))


def test_evidence_that_cannot_be_read_back_spoils_its_own_row_only(leaf, batch, run):
    def evidence(number):
        class Liar:
            def __reduce__(self):
                return int, ("no number",)

        return GOOD, {"proof": Liar() if number == ODD else number}

    scores = run(leaf(evidence), batch(8))
    assert list(scores.reasons) == [ODD]
    assert scores.reasons[ODD].startswith("details cannot be read from the worker: ValueError")
    assert [scores.details["proof"][i] for i in (0, 7)] == [0, 7]


def test_details_become_columns(leaf, batch, run):
    scores = run(leaf(lambda number: (number, {"even": True}) if number % 2 == 0 else number), batch(4))
    assert scores.details == {"even": [True, None, True, None]}


def test_what_a_leaf_prints_goes_to_stderr(leaf, batch, run, capfd, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)

    def chatty(number):
        print("to stdout", number)
        os.write(1, b"to file 1\n")
        subprocess.run(["echo", "from a program"], check=True)
        return GOOD if number < 2 else os._exit(1)  # what was printed before a crash matters most

    with Engine(workers=1) as engine:
        assert list(run(leaf(chatty), batch(3), engine).reasons) == [2]
    out, err = capfd.readouterr()
    assert out == ""
    for text in ("to stdout 2", "to file 1", "from a program"):
        assert text in err
