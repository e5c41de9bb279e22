"""`code.stdin_tests`: a whole program reads and prints, and what it prints is compared here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, shown
from guerdon.rewards.code import options
from guerdon.rewards.code.comparing import same_tokens
from guerdon.rewards.code.program import program_in
from guerdon.rewards.code.trial import Credit, Outcomes, Trial, failing, listed, tally
from guerdon.sandbox import Late, Limits, Ran

Checker = Callable[[str, str, str], bool]

SPARE = 1 << 16  # bytes that a program may print beyond twice what is expected


@reward(range=(0, 1), deadline=options.longest, check=options.check, requires=options.valid)
def stdin_tests(
    completion: Completion,
    inputs: Any,
    outputs: Any,
    *,
    tolerance: float | None = None,
    checker: Callable[[str, str, str], bool] | None = None,
    credit: Credit = "all",
    seconds: float = 4.0,
    total: float = 30.0,
    memory: int = 512,
    packages: tuple[str, ...] = (),
) -> tuple[float, dict[str, Any]]:
    """Whether a program that reads its standard input prints the expected output, test by test.

    Each test is a run of its own. What is printed is compared token by token, white space being what lies between
    them; a run that ends with an error, by a signal or at its deadline has failed, whatever it printed.

    Args:
        completion: the reply: text or chat messages.
        inputs: for each test what is read: text, or a list of lines; or all of it as JSON text.
        outputs: for each test what is to be printed, likewise.
        tolerance: how far two numbers may differ, |a − b| ≤ tolerance · max(1, |b|), unless both are whole; None
            wants the same tokens.
        checker: called with input, what was printed and the expected output where several answers are right; True
            if this one is. It is trusted code that runs in this library's process, on a text that may be
            anything: False is for the printed text that it cannot read, and raising is an abstention. It replaces the
            comparison of tokens; a spec cannot hold it.
        credit: see `code.unit_tests`.
        seconds: see `code.unit_tests`.
        total: see `code.unit_tests`.
        memory: see `code.unit_tests`.
        packages: see `code.unit_tests`.

    Returns:
        The score, and as details how many tests passed, and what became of each.

    Raises:
        Abstain: if the tests are missing or not readable, or the checker does not say True or False.
        SandboxUnavailable: before any work, where programs cannot be isolated.
        ValueError: at once, if a limit is not positive.

    >>> from guerdon.rewards import code
    >>> code.stdin_tests().evaluate("print(sum(map(int, input().split())))", ["1 2\\n"], ["3\\n"])  # doctest: +SKIP
    (1.0, {'passed': 1, 'tests': 1, 'outcomes': ['passed']})

    Source: APPS (arXiv 2105.09938), CodeContests (arXiv 2203.07814), TACO (arXiv 2312.14852).
    """
    given, expected = _texts(inputs, "inputs"), _texts(outputs, "outputs")
    if len(given) != len(expected):
        raise Abstain(f"{len(given)} inputs and {len(expected)} outputs")
    code = program_in(completion)
    if not code:
        return tally(failing("no program", len(given)), len(given), credit)
    trial = Trial(seconds=seconds, total=total, memory=memory, packages=packages)
    return tally(_runs(trial, code, given, expected, tolerance, checker), len(given), credit)


def _runs(
    trial: Trial,
    code: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    tolerance: float | None,
    checker: Checker | None,
) -> Outcomes:
    for given, expected in zip(inputs, outputs, strict=True):
        try:
            seconds = trial.seconds()
        except Late as error:
            yield str(error)
            continue
        limits = Limits(memory=trial.memory, output=2 * len(expected.encode()) + SPARE)
        ran = trial.box.run(code, stdin=given, deadline=seconds, limits=limits)
        if not ran.fine:
            yield _complaint(ran)
        elif same_tokens(ran.stdout, expected, tolerance) if checker is None else _right(checker, given, ran, expected):
            yield None
        else:
            yield f"printed {shown(ran.stdout[:100].decode('utf-8', 'replace'))}"


def _complaint(ran: Ran) -> str:
    last = ran.stderr[-1000:].decode("utf-8", "replace").strip().rpartition("\n")[2]
    return f"{ran}: {last[:200]}" if last else str(ran)


def _right(checker: Checker, given: str, ran: Ran, expected: str) -> bool:
    said = checker(given, ran.stdout.decode("utf-8", "replace"), expected)
    if not isinstance(said, (bool, np.bool_)):
        raise Abstain(f"the checker gave {shown(said)}, not True or False")
    return bool(said)


def _texts(column: Any, name: str) -> list[str]:
    texts = ["\n".join(entry) if _lines(entry) else entry for entry in listed(column, name)]
    for text in texts:
        if not isinstance(text, str):
            raise Abstain(f"{name} not text or lists of lines: {shown(text)}")
    return texts


def _lines(entry: Any) -> bool:
    return isinstance(entry, (list, tuple)) and all(isinstance(line, str) for line in entry)
