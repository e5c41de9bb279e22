"""One program against its tests: where and how long they run, and what they come to."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import cache
from typing import Any, Literal

import numpy as np

from guerdon import sandbox
from guerdon.core.errors import Abstain
from guerdon.core.parsing import read_json, shown
from guerdon.rewards.code.program import Program
from guerdon.sandbox import Late, Limits, Lost, Raised, Sandbox

Credit = Literal["all", "each"]
Outcomes = Generator[str | None, None, None]  # of each test, why it failed; None if it passed


class Unloadable(Exception):
    """The program does not get as far as to define its names."""


class Trial:
    """The time and the place in which one program is tested."""

    def __init__(self, *, seconds: float, total: float, memory: int, packages: Sequence[str]) -> None:
        self.box = _sandbox(tuple(packages))
        self.box.check()  # its start is no time of the program's
        self.memory = memory << 20
        self.longest, self._total = seconds, total
        self._end = time.monotonic() + total

    def seconds(self) -> float:
        """How long the next test may take.

        Raises:
            Late: if there is no time left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise Late(f"not reached within {self._total:g} s")
        return min(self.longest, left)

    def load(self, program: Program) -> sandbox.Program:
        """A program, ready to be called.

        Raises:
            Unloadable: if it does not define its names.
            Abstain: if it cannot, since the task's setup fails by itself.
            Late: if there is no time left.
        """
        seconds = self.seconds()
        try:
            return self.box.load(program.source, deadline=seconds, limits=Limits(memory=self.memory))
        except (Late, Lost, Raised) as error:
            self.vet(program.setup)
            raise Unloadable(f"does not load: {error}") from None

    def vet(self, setup: str) -> None:
        """See whether the task's setup is to blame.

        Raises:
            Abstain: if it fails without any program.
        """
        if setup:
            try:
                self.box.load(setup, deadline=self.longest, limits=Limits(memory=self.memory)).close()
            except (Late, Lost, Raised) as error:
                raise Abstain(f"setup not usable: {error}") from None


def tally(outcomes: Outcomes, tests: int, credit: Credit) -> tuple[float, dict[str, Any]]:
    """A score from the outcomes of tests, and as details what became of each.

    Args:
        outcomes: one for each test, in order; no more are asked for than the score needs.
        tests: how many there are.
        credit: 'all' stops at the first that fails, 'each' is the share that pass.

    >>> tally((outcome for outcome in [None, "gave 3", None]), 3, "all")
    (0.0, {'passed': 1, 'tests': 3, 'outcomes': ['passed', 'gave 3', 'not run']})
    """
    said = []
    with closing(outcomes):
        for outcome in outcomes:
            said.append("passed" if outcome is None else outcome)
            if outcome is not None and credit == "all":
                break
    passed = said.count("passed")
    score = passed / tests if credit == "each" else float(passed == tests)
    return score, {"passed": passed, "tests": tests, "outcomes": said + ["not run"] * (tests - len(said))}


def failing(reason: str, tests: int) -> Outcomes:
    """All tests fail, and for one reason."""
    yield from [reason] * tests


def listed(column: Any, name: str) -> list[Any]:
    """What a column of the task's lists; JSON text is read.

    Raises:
        Abstain: if it is no list, or lists nothing.

    >>> listed('["assert f(1) == 2"]', "tests")
    ['assert f(1) == 2']
    """
    if isinstance(column, str):
        try:
            column = read_json(column, nan="accept")
        except ValueError as error:
            raise Abstain(f"{name} not readable as JSON: {error}") from None
    values = column.tolist() if isinstance(column, np.ndarray) else column
    if not isinstance(values, (list, tuple)) or not values:
        raise Abstain(f"{name} not a list of at least one: {shown(column)}")
    return list(values)


@cache
def _sandbox(packages: tuple[str, ...]) -> Sandbox:
    """This process's own; it ends with the process."""
    return Sandbox(packages=packages)
