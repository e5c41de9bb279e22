"""`code.unit_tests` and `code.humaneval`: asserts that call a program, run where it cannot reach them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, shown
from guerdon.rewards.code import options
from guerdon.rewards.code.asserts import Suite, checked, suite
from guerdon.rewards.code.calls import called
from guerdon.rewards.code.program import Program, program_in
from guerdon.rewards.code.trial import Credit, Outcomes, Trial, Unloadable, failing, listed, tally
from guerdon.sandbox import BrokenTests, Judge, Late, Lost


def _unit_columns(*, setup: str | None, **others: Any) -> tuple[str, ...]:
    return ("completion", "tests", *([setup] if setup else []))


def _humaneval_columns(*, setup: str | None, **others: Any) -> tuple[str, ...]:
    return ("completion", "test", "entry_point", *([setup] if setup else []))


@reward(range=(0, 1), columns=_unit_columns, deadline=options.longest, check=options.check, requires=options.valid)
def unit_tests(
    completion: Completion,
    tests: Any,
    given: Any = "",
    *,
    setup: str | None = None,
    credit: Credit = "all",
    seconds: float = 4.0,
    total: float = 30.0,
    memory: int = 512,
    packages: tuple[str, ...] = (),
) -> tuple[float, dict[str, Any]]:
    """Whether a program passes unit tests: assert statements that call it.

    Where every test calls one name with literals and compares the value with one (`assert f([1, 2]) == 3`, with `is`
    for True, False and None, or `assert f(…)`, `assert not f(…)`), the program is called test by test and the values
    are compared outside. Other tests run in a process of their own that calls the program. There, what a
    built-in name or a module stands for is not the program's to say, nor is what the setup defines; its own are
    the functions under test, which are those that tests call with literals.

    Args:
        completion: the reply: text or chat messages.
        tests: Python statements, each a test that fails by raising: a list, or its JSON text.
        given: the column that `setup` names.
        setup: the column with code that the task gives, such as MBPP's 'test_setup_code': it runs before the
            program, and again beside the tests, so that a program that redefines a helper does not pass by it.
        credit: 'all' stops at the first test that fails; 'each' pays the share of the tests that pass.
        seconds: for a test, and for the program to define its names. A program that is late is loaded again
            for the tests that are left.
        total: seconds for all tests of a program; those that are not reached by then have failed.
        memory: MiB that a program may allocate.
        packages: what programs and tests may import besides the standard library.

    Returns:
        The score, and as details how many tests passed, and what became of each.

    Raises:
        Abstain: if the tests are missing or not Python, or the setup fails by itself.
        SandboxUnavailable: before any work, where programs cannot be isolated.
        ValueError: at once, if a limit is not positive.

    >>> from guerdon.rewards import code
    >>> tests = ["assert double(2) == 4", "assert double(3) == 6"]
    >>> code.unit_tests(credit="each").evaluate("def double(x): return x + 2", tests)  # doctest: +SKIP
    (0.5, {'passed': 1, 'tests': 2, 'outcomes': ['passed', 'gave 5']})

    Source: MBPP (arXiv 2108.07732); the verdict outside of the program's process is ours.
    """
    statements = listed(tests, "tests")
    for number, test in enumerate(statements, 1):
        if not isinstance(test, str):
            raise Abstain(f"test {number} not text: {shown(test)}")
    task = _text(given, setup)
    suited = suite(tuple(statements), task)
    trial = Trial(seconds=seconds, total=total, memory=memory, packages=packages)
    return _score(trial, Program(program_in(completion), task), suited, credit)


@reward(range=(0, 1), columns=_humaneval_columns, deadline=options.longest, check=options.check, requires=options.valid)
def humaneval(
    completion: Completion,
    test: Any,
    entry_point: Any,
    given: Any = "",
    *,
    setup: str | None = "prompt",
    credit: Credit = "all",
    seconds: float = 4.0,
    total: float = 30.0,
    memory: int = 512,
    packages: tuple[str, ...] = (),
) -> tuple[float, dict[str, Any]]:
    """Whether a program passes tests in HumanEval's form: a function `check(candidate)`.

    As `code.unit_tests`. The asserts of `check` are a test each, if it has nothing else; otherwise all of it is one.

    Args:
        completion: the reply: text or chat messages. Code that does not define the entry point continues the
            setup's: HumanEval's own solutions are function bodies.
        test: Python that defines `check`.
        entry_point: the name of the function under test.
        given: the column that `setup` names.
        setup: the column with the code that the model was to continue, whose imports and helpers programs and
            tests use: see `code.unit_tests`. Name another where `prompt` has more than code in it. None for no setup.
        credit: see `code.unit_tests`.
        seconds: see `code.unit_tests`.
        total: see `code.unit_tests`.
        memory: see `code.unit_tests`.
        packages: see `code.unit_tests`.

    Returns:
        The score, and as details how many tests passed, and what became of each.

    Raises:
        Abstain: if the test or the setup is not Python, or fails by itself.
        SandboxUnavailable: before any work, where programs cannot be isolated.
        ValueError: at once, if a limit is not positive.

    >>> from guerdon.rewards import code
    >>> prompt, test = "def double(x):\\n    '''Twice x.'''\\n", "def check(candidate):\\n    assert candidate(2) == 4"
    >>> code.humaneval().evaluate("    return 2 * x", test, "double", prompt)  # doctest: +SKIP
    (1.0, {'passed': 1, 'tests': 1, 'outcomes': ['passed']})

    Source: HumanEval (Chen et al., arXiv 2107.03374).
    """
    if not isinstance(entry_point, str) or not entry_point.isidentifier():
        raise Abstain(f"entry_point not a name: {shown(entry_point)}")
    if not isinstance(test, str):
        raise Abstain(f"test not text: {shown(test)}")
    task = _text(given, setup)
    suited = checked(test, task, entry_point)
    trial = Trial(seconds=seconds, total=total, memory=memory, packages=packages)
    return _score(trial, Program(program_in(completion), task, entry_point), suited, credit)


def _score(trial: Trial, program: Program, tests: Suite, credit: Credit) -> tuple[float, dict[str, Any]]:
    count = len(tests.tests)
    if not program.code:
        outcomes = failing("no program", count)
    elif tests.cases is None:
        outcomes = _judged(trial, program, tests)
    else:
        outcomes = called(trial, program, tests.cases)
    return tally(outcomes, count, credit)


def _judged(trial: Trial, program: Program, tests: Suite) -> Outcomes:
    """The outcomes of tests that run in a process of their own."""
    judge: Judge | None = None
    try:
        for number in range(len(tests.tests)):
            try:
                judge = judge or _judge(trial, program, tests)
                yield judge.run(number, deadline=trial.seconds())
            except Unloadable as error:
                yield from failing(str(error), len(tests.tests) - number)
                return
            except Late as error:
                if judge is not None:
                    judge.close()
                judge = None
                yield str(error)
    finally:
        if judge is not None:
            judge.close()


def _judge(trial: Trial, program: Program, tests: Suite) -> Judge:
    with ExitStack() as opened:
        loaded = opened.enter_context(trial.load(program))
        try:
            # Setup has all its time, however little the program has left.
            judge = trial.box.judge(
                loaded, tests.tests, setup=tests.setup, under_test=tests.under_test, deadline=trial.longest
            )
        except BrokenTests as error:
            raise Abstain(f"tests not usable: {error}") from None
        except (Late, Lost) as error:
            raise Unloadable(f"does not say what it defines: {error}") from None
        opened.pop_all()  # it is the judge's now
        return judge


def _text(given: Any, column: str | None) -> str:
    """The text of the setup's column."""
    if given is None or isinstance(given, str):
        return given or ""
    raise Abstain(f"{column} not text: {shown(given)}; setup names the column that holds the task's code")
