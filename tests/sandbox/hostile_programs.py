"""The hostile programs beside this file: how each is run, and what it came to.

A program says so itself, in the comment it begins with: a line or more of what it tries, then settings.

    # Forks until it may not.
    # run: program         program (the default): a script. calls: it is asked for solve([3, 1, 2]).
    #                      tests: a judge runs TESTS against it.
    # under: names         that a judge is told are under test; default: solve
    # limits: processes=8  in place of the sandbox's
    # deadline: 1.0        seconds, of the program or of each call and test; default: few where it is to be reached
    # machine: x86_64      where alone it can be run
    # times: 2             how often it is run, one after the other
    # must: exit signal    how it may end; of a program: exit signal deadline output,
    #                      of calls: late lost raised wrong, of tests: late lost failed
    # says: contained      all that it prints: that it got to its end and that nothing it tried came true

What gets out of the sandbox prints ESCAPED.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from guerdon.sandbox import Late, Limits, Lost, Raised, Sandbox

FOLDER = Path(__file__).with_name("hostile")
RIGHT = [1, 2, 3]  # of a program: its stdin, sorted
TESTS = (
    "assert solve([3, 1, 2]) == [1, 2, 3]",
    "assert all(map(lambda n: solve(list(range(n, 0, -1))) == list(range(1, n + 1)), range(1, 6)))",
    "assert sorted(solve([2, 1])) == [1, 2] and math.isclose(abs(solve([0.5, -4.5])[0]), 4.5)",
    "given = [9, 8]\ntry:\n    answer = solve(given)\nexcept ValueError:\n    answer = None\nassert answer == [8, 9]",
    "assert len(solve([5, 4])) == 2 and isinstance(solve([5, 4]), list) and min(solve([5, 4])) == solve([5, 4])[0]",
)
ORDINARY = """
def solve(numbers):
    return sorted(numbers)

if __name__ == "__main__":
    print(*solve(input().split()))
"""


@dataclass(frozen=True)
class Hostile:
    """A program that means harm."""

    name: str
    source: str
    run: str = "program"
    under: tuple[str, ...] = ("solve",)
    limits: dict[str, int] = field(default_factory=dict)
    deadline: float = 10.0
    machine: str = ""
    times: int = 1
    must: frozenset[str] = frozenset({"exit"})
    says: str | None = None

    @property
    def runs_here(self) -> bool:
        return self.machine in ("", platform.machine())


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Args:
        how: it ended, in the words of `must`.
        text: all it printed, or what was said of it.
        rewarded: whether it would have been given anything.
        over: seconds past its deadline after which it was over, if it came to that.
    """

    how: str
    text: str
    rewarded: bool
    over: float | None = None


_SETTINGS = {
    "run": str,
    "under": lambda text: tuple(text.split()),
    "limits": lambda text: {name: int(value) for name, value in (part.split("=") for part in text.split())},
    "deadline": float,
    "machine": str,
    "times": int,
    "must": lambda text: frozenset(text.split()),
    "says": str,
}
_ENDS = {
    "program": {"exit", "signal", "deadline", "output"},
    "calls": {"late", "lost", "raised", "wrong"},
    "tests": {"late", "lost", "failed"},
}


def programs() -> list[Hostile]:
    """All of them, by name."""
    return [read(path) for path in sorted(FOLDER.glob("*.py"))]


def read(path: Path) -> Hostile:
    """A program with its settings."""
    source = path.read_text()
    settings: dict[str, Any] = {}
    for line in source.splitlines():
        if not line.startswith("#"):
            break
        name, colon, value = line.removeprefix("# ").partition(":")
        if colon and name.isidentifier():
            settings[name] = _SETTINGS[name](value.strip())
    if {"deadline", "late"} & settings.get("must", frozenset()):
        settings = {"deadline": 0.3, **settings}
    hostile = Hostile(path.stem, source, **settings)
    if not hostile.must <= _ENDS[hostile.run]:
        raise ValueError(f"{path.name}: {hostile.run} do not end in {', '.join(hostile.must - _ENDS[hostile.run])}")
    return hostile


def attempt(box: Sandbox, hostile: Hostile) -> Outcome:
    """Run it once."""
    return _KINDS[hostile.run](box, hostile, Limits(**{**vars(box.limits), **hostile.limits}))


def ordinary_is_right(box: Sandbox, kind: str) -> bool:
    """Whether a program that does what it is asked for gets all there is."""
    outcome = attempt(box, Hostile("ordinary", ORDINARY, kind))
    return outcome.rewarded and outcome.how != "partly"


def _run(box: Sandbox, hostile: Hostile, limits: Limits) -> Outcome:
    began = time.monotonic()
    ran = box.run(hostile.source, stdin="3 1 2\n", deadline=hostile.deadline, limits=limits)
    over = time.monotonic() - began - hostile.deadline if ran.ended == "deadline" else None
    right = ran.fine and ran.stdout.decode(errors="replace").split() == [str(n) for n in RIGHT]
    return Outcome(ran.ended, (ran.stdout + ran.stderr).decode(errors="replace"), right, over)


def _call(box: Sandbox, hostile: Hostile, limits: Limits) -> Outcome:
    began = time.monotonic()
    try:
        with box.load(hostile.source, deadline=hostile.deadline, limits=limits) as program:
            began = time.monotonic()
            value = program.call("solve", [3, 1, 2], deadline=hostile.deadline)
            right = _careless(value)
            return Outcome("right" if right else "wrong", type(value).__name__, right)
    except (Late, Lost, Raised) as error:
        return _failed(error, began, hostile)


def _judge(box: Sandbox, hostile: Hostile, limits: Limits) -> Outcome:
    began, failures = time.monotonic(), []
    try:
        program = box.load(hostile.source, deadline=hostile.deadline, limits=limits)
        began = time.monotonic()
        with box.judge(program, TESTS, under_test=hostile.under, deadline=hostile.deadline) as judge:
            for test in range(len(TESTS)):
                began = time.monotonic()
                failures.append(judge.run(test, deadline=hostile.deadline))
    except (Late, Lost, Raised) as error:
        return replace(_failed(error, began, hostile), rewarded=None in failures)
    some, every = None in failures, set(failures) == {None}
    return Outcome("passed" if every else "partly" if some else "failed", "; ".join(map(str, failures)), some)


def _careless(value: object) -> bool:
    """Whether a check would take a value for right that does no more than compare it."""
    try:
        return bool(value == RIGHT)
    except Exception:  # an array of another length, a signalling NaN
        return False


def _failed(error: Exception, began: float, hostile: Hostile) -> Outcome:
    over = time.monotonic() - began - hostile.deadline if isinstance(error, Late) else None
    return Outcome(type(error).__name__.lower(), str(error), False, over)


_KINDS = {"program": _run, "calls": _call, "tests": _judge}
