"""`code.call_tests`: a function is called, and what comes back is compared here."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from guerdon import sandbox
from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, read_json, shown
from guerdon.rewards.code import options
from guerdon.rewards.code.comparing import same_data
from guerdon.rewards.code.program import Program, program_in
from guerdon.rewards.code.trial import Credit, Outcomes, Trial, Unloadable, failing, listed, tally
from guerdon.sandbox import Late, Lost, NotPlain, Raised


class Case(NamedTuple):
    """A call, and what its value has to be.

    Args:
        name: what is called: a function, or a method of a class `Solution`.
        arguments: plain data.
        passes: whether a value, plain data, is right.
        keywords: plain data.
    """

    name: str
    arguments: Sequence[Any]
    passes: Callable[[Any], bool]
    keywords: Mapping[str, Any] = types.MappingProxyType({})


@reward(range=(0, 1), deadline=options.longest, check=options.check, requires=options.valid)
def call_tests(
    completion: Completion,
    fn_name: Any,
    inputs: Any,
    outputs: Any,
    *,
    tolerance: float | None = None,
    credit: Credit = "all",
    seconds: float = 4.0,
    total: float = 30.0,
    memory: int = 512,
    packages: tuple[str, ...] = (),
) -> tuple[float, dict[str, Any]]:
    """Whether a function, or a method of `class Solution`, gives the expected value for each list of arguments.

    The program is loaded once and called test by test; values come back as plain data and are compared outside.
    Lists and tuples are equal (JSON has no tuple), numbers as in Python (1 == 1.0 == True), objects of classes of
    the program's own never are.

    Args:
        completion: the reply: text or chat messages.
        fn_name: the function's name.
        inputs: for each test a list of arguments, or a text with one JSON value to a line, as LiveCodeBench has it;
            or all of it as JSON text.
        outputs: for each test the value; JSON text where the input is text.
        tolerance: how far two numbers may differ, |a − b| ≤ tolerance · max(1, |b|), unless both are whole; None
            for not at all.
        credit: see `code.unit_tests`.
        seconds: see `code.unit_tests`.
        total: see `code.unit_tests`.
        memory: see `code.unit_tests`.
        packages: see `code.unit_tests`.

    Returns:
        The score, and as details how many tests passed, and what became of each.

    Raises:
        Abstain: if the tests are missing or not readable.
        SandboxUnavailable: before any work, where programs cannot be isolated.
        ValueError: at once, if a limit is not positive.

    >>> from guerdon.rewards import code
    >>> completion = "class Solution:\\n    def add(self, a, b):\\n        return a + b"
    >>> code.call_tests().evaluate(completion, "add", [[1, 2], [3, 4]], [3, 7])  # doctest: +SKIP
    (1.0, {'passed': 2, 'tests': 2, 'outcomes': ['passed', 'passed']})

    Source: the call-based problems of APPS (arXiv 2105.09938) and LiveCodeBench (arXiv 2403.07974).
    """
    cases = _cases(fn_name, listed(inputs, "inputs"), listed(outputs, "outputs"), tolerance)
    code = program_in(completion)
    if not code:
        return tally(failing("no program", len(cases)), len(cases), credit)
    trial = Trial(seconds=seconds, total=total, memory=memory, packages=packages)
    return tally(called(trial, Program(code), cases), len(cases), credit)


def called(trial: Trial, program: Program, cases: Sequence[Case]) -> Outcomes:
    """The outcomes of calls; a program that has ended is loaded again for those that are left."""
    loaded: sandbox.Program | None = None
    try:
        for number, case in enumerate(cases):
            try:
                loaded = loaded or trial.load(program)
                value = loaded.call(
                    case.name, *case.arguments, keywords=case.keywords, in_place=False, deadline=trial.seconds()
                )
            except Unloadable as error:
                yield from failing(str(error), len(cases) - number)
                return
            except NotPlain as error:
                raise Abstain(f"test {number + 1} not usable: {error}") from None
            except Raised as error:
                yield f"raised {error}"
            except (Late, Lost) as error:
                if loaded is not None:
                    loaded.close()
                loaded = None
                yield str(error)
            else:
                yield None if case.passes(value) else f"gave {_brief(value)}"
    finally:
        if loaded is not None:
            loaded.close()


def _brief(value: Any) -> str:
    try:
        return shown(value)
    except ValueError:  # Python does not write long numbers out
        return f"{type(value).__name__} too long to be shown"


def _cases(name: Any, inputs: list[Any], outputs: list[Any], tolerance: float | None) -> list[Case]:
    if not isinstance(name, str) or not name.isidentifier():
        raise Abstain(f"fn_name not a name: {shown(name)}")
    if len(inputs) != len(outputs):
        raise Abstain(f"{len(inputs)} inputs and {len(outputs)} outputs")
    cases = []
    for number, (given, expected) in enumerate(zip(inputs, outputs, strict=True), 1):
        try:
            if isinstance(given, str):
                arguments: Any = [read_json(line, nan="accept") for line in given.splitlines() if line.strip()]
                expected = read_json(expected, nan="accept") if isinstance(expected, str) else expected
            else:
                arguments = given
        except ValueError as error:
            raise Abstain(f"test {number} not readable as JSON: {error}") from None
        if not isinstance(arguments, (list, tuple)):
            raise Abstain(f"test {number} has no list of arguments: {shown(arguments)}")
        cases.append(Case(name, arguments, _same(expected, tolerance)))
    return cases


def _same(expected: Any, tolerance: float | None) -> Callable[[Any], bool]:
    return lambda value: same_data(value, expected, tolerance)
