"""Tests that a model writes, judged by the wrong programs they catch."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, shown
from guerdon.rewards.code import options
from guerdon.rewards.code.comparing import same_tokens
from guerdon.rewards.code.matrix import turns_of_outcomes
from guerdon.rewards.code.program import Program, program_in
from guerdon.rewards.code.streams import SPARE
from guerdon.rewards.code.suites import suite_quality
from guerdon.rewards.code.trial import Trial, Unloadable, listed
from guerdon.sandbox import Late, Limits, Lost, Raised

Metric = Literal["detection", "accuracy", "diversity"]

MOST_CORRECT = 10  # solutions that an analysis is shown

_GENERATOR = re.compile(r"^def[ \t]+(gen_TC\w*)[ \t]*\(", re.MULTILINE)
_VALIDATOR = re.compile(r"^def[ \t]+validate_all_inputs[ \t]*\(", re.MULTILINE)


def _column(column: str, **settings: Any) -> tuple[str, ...]:
    return (column,)


def _first(first: int | None, **settings: Any) -> tuple[str, ...]:
    if first is not None and first < 1:
        raise ValueError(f"first is None or at least 1, got {first}")
    return ()


@reward(range=(0, 1), columns=_column, requires=_first)
def detection(
    kills: Any, *, column: str = "kills", metric: Metric = "detection", first: int | None = None
) -> tuple[float, dict[str, Any]]:
    """How good a suite of tests is, of which a column says what wrong programs it kills.

    Args:
        kills: for each wrong program a list: of each test, whether the program fails it; or its JSON text.
        column: its name.
        metric: 'detection', the share of wrong programs that some test kills; 'accuracy', 1 if all are killed; or
            'diversity', the different sets of programs that tests kill, per test.
        first: only the first so many tests.

    Returns:
        The score, and as details what `code.suite_quality` says.

    Raises:
        Abstain: if there is no such matrix, or a test did not run.
        ValueError: at once, if first is below 1.

    >>> from guerdon.rewards import code
    >>> code.detection().evaluate([[1, 0, 0], [1, 0, 1], [0, 0, 0]])[0].__round__(4)
    0.6667

    Source: SAGA / TCGBench (arXiv 2507.06920).
    """
    rows = turns_of_outcomes(kills)
    if any(entry is None for row in rows for entry in row):
        raise Abstain(f"{column}: not every test ran on every program")
    return _judged(np.array(rows, bool)[:, :first], metric)


def _limits(most: int, generating: float, **settings: Any) -> tuple[str, ...]:
    if most < 1 or not 0 < generating <= settings["total"]:
        raise ValueError(f"most is at least 1, and generating positive and within the total: {most} and {generating}")
    return options.valid(**settings)


def _longest(generating: float, seconds: float, total: float, **settings: Any) -> float:
    return options.longest(seconds=max(generating, seconds), total=total)


@reward(range=(0, 1), deadline=_longest, check=options.check, requires=_limits)
def written_tests(
    completion: Completion,
    solutions: Any,
    wrong: Any,
    *,
    metric: Metric = "detection",
    most: int = 32,
    generating: float = 8.0,
    tolerance: float | None = None,
    seconds: float = 4.0,
    total: float = 60.0,
    memory: int = 512,
    packages: tuple[str, ...] = (),
) -> tuple[float, dict[str, Any]]:
    """How many wrong programs the tests catch that a reply's code makes.

    The reply is Python with functions `gen_TC…()` that give inputs, a text or a list of texts each, and
    `validate_all_inputs(text)` that says whether an input keeps to the problem's constraints. Inputs that it does not
    call valid are left out, and so are those on which the task's solutions fail or differ: a validator that lets
    everything in does not turn what the problem leaves open into kills. The first solution's output is what is
    expected. A wrong program is killed by another output, an error, or lateness.

    Args:
        completion: the reply: text or chat messages.
        solutions: right programs, which read standard input and print: the reference, and others.
        wrong: wrong programs.
        metric: see `code.detection`.
        most: inputs that are run; the rest are left out. Inputs that are there twice count once.
        generating: seconds for each generator and validation.
        tolerance: see `code.stdin_tests`.
        seconds: for each run of a program.
        total: seconds for everything; a program that is not reached by then is not killed.
        memory: see `code.unit_tests`.
        packages: see `code.unit_tests`.

    Returns:
        The score, and as details the number of inputs and of those that are used, the kill matrix, and what
        `code.suite_quality` says of it, or the problem. A reply without an input that can be used earns 0.

    Raises:
        Abstain: if there are no solutions or no wrong programs, or a solution is not Python.
        SandboxUnavailable: before any work, where programs cannot be isolated.
        ValueError: at once, if a limit is not positive.

    >>> from guerdon.rewards import code
    >>> reply = "def gen_TC():\\n    return ['0', '2']\\ndef validate_all_inputs(s):\\n    return True"
    >>> right, wrong = "print(abs(int(input())))", ["print(0)", "print(int(input()))"]
    >>> code.written_tests().evaluate(reply, [right], wrong)[0]  # doctest: +SKIP
    0.5

    Source: SAGA / TCGBench (arXiv 2507.06920); that solutions must agree is ours.
    """
    right, bad = _programs(solutions, "solutions"), _programs(wrong, "wrong")
    for program in right:
        try:
            ast.parse(program)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise Abstain(f"a solution is not Python: {error}") from None
    trial = Trial(seconds=max(seconds, generating), total=total, memory=memory, packages=packages)
    try:
        inputs, given = _inputs(trial, program_in(completion), most, generating)
    except _Unusable as problem:
        return 0.0, {"problem": str(problem), "inputs": 0, "used": 0}
    trial.longest = seconds
    tests = []
    for text in inputs:
        expected = _agreed(trial, right, text, tolerance)
        if expected is not None:
            tests.append((text, expected))
    if not tests:
        return 0.0, {"problem": "no input on which the solutions agree", "inputs": given, "used": 0}
    kills = [[_kills(trial, program, text, expected, tolerance) for text, expected in tests] for program in bad]
    score, details = _judged(np.array(kills, bool), metric)
    return score, {"problem": None, "inputs": given, "used": len(tests), "kills": kills, **details}


def analysis_prompt(problem: str, solutions: Sequence[str]) -> str:
    """What a model is asked for tests that cover a problem: its constraints, kinds of input and their ends.

    Args:
        problem: its statement.
        solutions: right programs; the first ten are shown.

    Source: the multidimensional analysis of SAGA (arXiv 2507.06920), in our words.

    >>> "Solution 1" in analysis_prompt("Add two numbers.", ["print(sum(map(int, input().split())))"])
    True
    """
    shown_ones = "\n\n".join(
        f"Solution {i}:\n```python\n{code}\n```" for i, code in enumerate(solutions[:MOST_CORRECT], 1)
    )
    return (
        f"{problem}\n\n{shown_ones}\n\nFrom the problem and these right solutions, say which constraints inputs keep "
        f"to, which classes of inputs are treated alike, and where their boundaries are. {_CONTRACT}"
    )


def difference_prompt(problem: str, wrong: str, right: str) -> str:
    """What a model is asked for inputs that tell a user's last wrong submission from the right one that followed.

    Args:
        problem: its statement.
        wrong: the one; see `code.turnarounds`.
        right: the other.

    Source: the differential analysis of SAGA (arXiv 2507.06920), in our words.

    >>> difference_prompt("Add.", "print(1)", "print(2)").count("```python")
    2
    """
    return (
        f"{problem}\n\nA wrong program:\n```python\n{wrong}\n```\n\nThe same, corrected:\n```python\n{right}\n```\n\n"
        f"Say what was corrected, and which valid inputs the two answer differently. {_CONTRACT}"
    )


_CONTRACT = (
    "Then write one Python block with `validate_all_inputs(text)`, which says whether a text is a valid input, and "
    "functions `gen_TC1()`, `gen_TC2()`, …, which each return a list of such texts."
)


class _Unusable(Exception):
    """The reply gives no tests."""


def _judged(kills: Any, metric: Metric) -> tuple[float, dict[str, Any]]:
    found = suite_quality(kills)
    score = {"detection": found.detection, "accuracy": float(found.accurate), "diversity": found.diversity}[metric]
    return score, found._asdict()


def _programs(column: Any, name: str) -> list[str]:
    programs = listed(column, name)
    for program in programs:
        if not isinstance(program, str) or not program.strip():
            raise Abstain(f"{name} not programs: {shown(program)}")
    return programs


def _inputs(trial: Trial, code: str, most: int, generating: float) -> tuple[list[str], int]:
    """The different inputs that the reply makes and calls valid, at most so many; and how many it made."""
    names = list(dict.fromkeys(_GENERATOR.findall(code)))
    if not names or not _VALIDATOR.search(code):
        raise _Unusable("no gen_TC…() or no validate_all_inputs()")
    made: list[Any] = []
    valid: list[str] = []
    try:
        loaded = trial.load(Program(code))
    except (Unloadable, Late) as error:
        raise _Unusable(str(error)) from None
    try:
        for name in names:
            said = loaded.call(name, in_place=False, deadline=min(generating, trial.seconds()))
            made += said if isinstance(said, (list, tuple)) else [said]
        for text in dict.fromkeys(text for text in made if isinstance(text, str)):
            if len(valid) == most:
                break
            if (
                loaded.call("validate_all_inputs", text, in_place=False, deadline=min(generating, trial.seconds()))
                is True
            ):
                valid.append(text)
    except (Late, Lost, Raised) as error:
        if not valid:
            raise _Unusable(str(error)) from None
    finally:
        loaded.close()
    if not valid:
        raise _Unusable("no input that the reply itself calls valid")
    return valid, len(made)


def _agreed(trial: Trial, solutions: Sequence[str], text: str, tolerance: float | None) -> str | None:
    """What all solutions print; None if they do not agree."""
    expected: str | None = None
    for program in solutions:
        try:
            ran = trial.box.run(program, stdin=text, deadline=trial.seconds(), limits=Limits(memory=trial.memory))
        except Late:
            return None
        if not ran.fine:
            return None
        if expected is None:
            expected = ran.stdout.decode("utf-8", "replace")
        elif not same_tokens(ran.stdout, expected, tolerance):
            return None
    return expected


def _kills(trial: Trial, program: str, text: str, expected: str, tolerance: float | None) -> bool:
    try:
        seconds = trial.seconds()
    except Late:
        return False
    limits = Limits(memory=trial.memory, output=2 * len(expected.encode()) + SPARE)
    ran = trial.box.run(program, stdin=text, deadline=seconds, limits=limits)
    return not (ran.fine and same_tokens(ran.stdout, expected, tolerance))
