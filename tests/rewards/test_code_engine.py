"""Rewards of code in the engine, and what they ask of it: a check before any work, and settings that follow options."""

import pickle
import socket
import threading

import pytest

from guerdon import reward
from guerdon.algebra import Leaf, spec
from guerdon.core import Rollouts
from guerdon.engine import Engine
from guerdon.rewards import code
from guerdon.rewards.code import options, trial
from guerdon.sandbox import Sandbox, SandboxFailed, SandboxUnavailable


@pytest.fixture
def no_bubblewrap(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    options._startable.cache_clear()
    yield
    options._startable.cache_clear()


@pytest.fixture(scope="module")
def engine():
    with Engine(workers=2) as engine:
        yield engine


def refuse(*, ready, **_):
    if not ready:
        raise SandboxUnavailable("no bubblewrap here: apt install bubblewrap")


@reward(
    range=(0, 1),
    columns=lambda second, **_: ("completion", *([second] if second else [])),
    deadline=lambda seconds, **_: 2 * seconds,
    check=refuse,
)
def checked(completion, more="none", *, second: str | None = None, seconds: float = 1.0, ready: bool = True):
    return float(completion == more)


BATCH = Rollouts(["?"] * 2, ["a", "b"], {"other": ["a", "c"]})


def test_the_columns_follow_the_options(engine):
    assert checked(second="other").reads == ("completion", "other")
    assert checked(second="other").requires == {"completion", "other"}
    assert checked().reads == ("completion",)
    assert engine.score(checked(second="other"), BATCH).read(-1).tolist() == [1, 0]
    assert engine.score(checked(), BATCH).read(-1).tolist() == [0, 0]


def test_the_deadline_follows_the_options():
    assert (checked().deadline, checked(seconds=4.0).deadline) == (2.0, 8.0)
    assert code.unit_tests(total=10.0).deadline > 10.0
    assert code.stdin_tests(total=100.0).deadline > 100.0


def test_these_settings_travel():
    leaf = pickle.loads(pickle.dumps(code.unit_tests(setup="test_setup_code", total=9.0, packages=("numpy",))))
    assert leaf == code.unit_tests(setup="test_setup_code", total=9.0, packages=("numpy",))
    assert (leaf.reads[2], leaf.deadline) == ("test_setup_code", code.unit_tests(total=9.0).deadline)
    assert spec.load(spec.dump(leaf)) == leaf


def test_a_leaf_that_cannot_work_is_an_error_before_any_work(engine):
    measured = []

    @reward(range=(0, 1), lane="batch")
    def notes(completion):
        measured.append(completion)
        return [0.0] * len(completion)

    with pytest.raises(SandboxUnavailable, match="apt install bubblewrap"):
        engine.score(notes() + checked(ready=False), BATCH)
    assert measured == []
    engine.score(notes() + checked(), BATCH)
    assert len(measured) == 1


def test_a_leaf_has_nothing_to_check_unless_it_says_so():
    assert Leaf().check() is None


@pytest.mark.parametrize("leaf", [code.unit_tests(), code.humaneval(), code.stdin_tests(), code.call_tests()])
def test_without_isolation_nothing_is_run_and_nothing_scored(no_bubblewrap, engine, leaf):
    columns = {name: ["x"] for name in sorted(leaf.requires - {"prompt", "completion"})}
    with pytest.raises(SandboxUnavailable, match="apt install bubblewrap"):
        engine.score(leaf, Rollouts(["?"], ["x"], columns))
    with pytest.raises(SandboxUnavailable, match="apt install bubblewrap"):
        leaf(prompts=["?"], completions=["x"], **columns)


@pytest.fixture
def isolated():
    try:
        options.check(packages=())
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("test", ["assert f(1) == 2", "assert f(1) + 0 == 2"])
def test_a_program_is_not_to_blame_where_the_sandbox_ends(isolated, test):
    box = trial._sandbox(())
    box.check()
    end = threading.Timer(0.3, lambda: box._zygote._control.shutdown(socket.SHUT_RDWR))
    end.start()
    with pytest.raises(SandboxFailed, match="lost"):
        code.unit_tests().evaluate("import time\ndef f(x):\n    time.sleep(9)", [test])
    end.join()
    assert code.unit_tests().evaluate("def f(x): return 2", [test])[0] == 1


@pytest.mark.parametrize("leaf", [code.unit_tests(), code.stdin_tests(), code.call_tests()])
def test_a_sandbox_that_does_not_start_a_run_is_no_score(isolated, monkeypatch, leaf):
    def fail(*arguments, **settings):
        raise SandboxFailed("a run could not be started")

    monkeypatch.setattr(Sandbox, "_start", fail)
    columns = {"tests": ["assert f(1) == 1"], "inputs": [[1]], "outputs": [1], "fn_name": "f"}
    if leaf.name == "code.stdin_tests":
        columns |= {"inputs": ["1"], "outputs": ["1"]}
    with pytest.raises(SandboxFailed):
        leaf.evaluate("print(1)", *(columns[name] for name in leaf.reads[1:]))


def test_rows_are_scored_by_workers(isolated, engine):
    rows = [
        ("def f(x): return 2 * x", ["assert f(1) == 2", "assert f(f(1)) == 4"], 1.0),
        ("def f(x): return x + 1", ["assert f(1) == 2", "assert f(f(1)) == 4"], 0.5),
        ("import os; os._exit(0)", ["assert f(1) == 2"], 0.0),
        ("while True: pass", ["assert f(1) == 2"], 0.0),
        ("def f(x): return 2 * x", ["assert f(1) =="], None),
        ("def f(x): return 2 * x", ["assert f(1) == 2"], 1.0),
    ] * 4
    completions, tests, expected = map(list, zip(*rows, strict=True))
    leaf = code.unit_tests(credit="each", seconds=0.3)
    scores = engine.score(leaf, Rollouts(["?"] * len(rows), completions, {"tests": tests}))
    assert [None if not ok else value for ok, value in zip(scores.valid, scores.read(-1.0), strict=True)] == expected
    assert scores.reasons[4].startswith("test 1 not Python")
    assert scores.details["outcomes"][1] == ["passed", "line 1: AssertionError"]
