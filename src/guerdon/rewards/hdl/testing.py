"""`hdl.testbench`: a design is simulated with the testbench of its row."""

# ruff: noqa: PT028 -- a testbench is no test function

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, shown
from guerdon.rewards.hdl.source import (
    conditional,
    design_in,
    hidden,
    modules,
    objection,
    renamed,
    scopes,
    tokens,
    top,
    wanted,
)
from guerdon.rewards.hdl.tools import SECRET, START, check, execute, positive

Stage = Literal["no design", "does not compile", "fails", "passes"]

PASSED = r"Mismatches: 0 in [1-9]\d* samples|\b(?i:all tests pass(?:ed)?|tests? passed)\b"
FAILED = r"TIMEOUT|\b(?i:fail(?:ed|ure)?)\b"

_COMPARED = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_LISTING = "==> test_vectors.txt <==\n"  # what `tail -v` writes above a file


class Bench(NamedTuple):
    """A testbench, ready for a design.

    Args:
        given: its text and that of the golden design, with names that a design cannot know.
        module: the name of the module under test.
        tops: the modules that simulation begins with.
        golden: a design that is to pass; '' if there is none.
        kept: the names around a design that it could know.
    """

    given: str
    module: str
    tops: tuple[str, ...]
    golden: str
    kept: frozenset[str]


class Test(NamedTuple):
    """How far a design came, and the evidence."""

    stage: Stage
    reason: str | None
    matched: float | None = None  # the share of lines, where they are compared


@lru_cache(maxsize=1 << 8)
def bench(testbench: str, golden: str, module: str | None, shared: tuple[str, ...]) -> Bench:
    """A testbench and its golden design, ready for a design.

    Raises:
        Abstain: if it cannot be told which module is to be tested.
    """
    if not modules(testbench):
        raise Abstain("testbench has no module")
    name = module or wanted(testbench, golden)
    if name is None:
        raise Abstain("it is not clear which module the testbench tests: name it with the option module")
    own = {found.name for found in modules(golden)}
    text = testbench if name in own else f"{testbench}\n{golden}"
    if name in {found.name for found in modules(text)}:
        raise Abstain(f"testbench has the module under test itself: {name}")
    secret = scopes(text) - {name, *shared}
    inside = frozenset().union(*(found.children for found in modules(text)))
    tops = [found.name for found in modules(testbench) if found.name not in inside]
    given, kept = hidden(text, secret, SECRET)
    ends = tuple(top if top in kept or top not in secret else top + SECRET for top in tops)
    return Bench(given, name, ends, _as(golden, name) if own else "", kept)


def _as(golden: str, module: str) -> str:
    """The golden design as if it were the answer."""
    first = module if module in {found.name for found in modules(golden)} else top(golden)
    return renamed(golden, {str(first): module})


def tested(
    design: str, against: Bench, *, passed: str, failed: str, vectors: str | None, seconds: float, memory: int
) -> Test:
    """How far a design comes.

    Raises:
        Abstain: if the golden design does not pass either.
        SandboxFailed: if nothing could be run.
    """
    found = _tested(design, against, passed, failed, vectors, seconds, memory)
    if found.stage != "passes" and found.stage != "no design" and against.golden:
        _vet(against, passed, failed, vectors, seconds, memory)
    return found


@lru_cache(maxsize=1 << 8)
def _vet(against: Bench, passed: str, failed: str, vectors: str | None, seconds: float, memory: int) -> None:
    golden = _tested(against.golden, against, passed, failed, vectors, seconds, memory)
    if golden.stage != "passes":
        raise Abstain(f"the golden design {golden.stage}: {golden.reason}".replace(SECRET, ""))


def _tested(
    design: str, against: Bench, passed: str, failed: str, vectors: str | None, seconds: float, memory: int
) -> Test:
    design, wrong = read(design, against.kept, seconds=seconds, memory=memory)
    if wrong is None and against.module not in {module.name for module in modules(design)}:
        wrong = f"has no module {against.module}"
    if wrong:
        return Test("no design", wrong)
    files = {"testbench.sv": against.given, "design.sv": design}  # the design last: its directives end with it
    roots = [part for top in against.tops for part in ("-s", top)]
    for dialect in ("-g2012", "-g2005"):
        build = ("iverilog", dialect, *roots, "-o", "design.vvp", "testbench.sv", "design.sv")
        simulate = ("vvp", "-n", "design.vvp")
        listing = () if vectors is None else (("tail", "-v", "-n", "+1", "test_vectors.txt"),)
        ran = execute(build, simulate, *listing, files=files, seconds=seconds, memory=memory)
        if ran.ended != "exit" or ran.code == 0:
            break
        built = execute(build, files=files, seconds=seconds, memory=memory)
        if built.code == 0:
            break
    else:
        return Test("does not compile", _brief(ran.stderr))
    if not ran.fine:
        return Test("fails", f"simulation ended: {ran}")
    said = ran.stdout.decode("utf-8", "replace")
    if vectors is not None:
        share = agreement(said.rpartition(_LISTING)[2], vectors)
        return Test("passes" if share >= 0.99 else "fails", None if share >= 0.99 else "other vectors", share)
    if re.search(failed, said) or not re.search(passed, said):
        lines = [line for line in said.replace(SECRET, "").splitlines() if line.strip()]
        return Test("fails", (lines[-1] if lines else "says nothing")[:200])
    return Test("passes", None)


def read(design: str, kept: frozenset[str], *, seconds: float, memory: int) -> tuple[str, str | None]:
    """A design without macros, and what is wrong with it before it is simulated; None if nothing."""
    if not design.strip():
        return "", "the reply has no design"
    if conditional(design):
        files = {"design.sv": design}
        ran = execute(("iverilog", "-E", "-o", "-", "design.sv"), files=files, seconds=seconds, memory=memory)
        if not ran.fine:
            return design, f"has macros that cannot be expanded: {ran}"
        design = ran.stdout.decode("utf-8", "replace")
    wrong = objection(design, kept)
    return design, wrong and f"the design {wrong}"


def agreement(written: str, expected: str) -> float:
    """The share of lines that agree; 0 if there are more or fewer of them than expected.

    Comments, empty lines and repeated white space do not count; what are numbers on both sides are compared as
    numbers (`0x1F`, `31`, `0b11111`).

    >>> agreement("a = 1 // first\\n0x1F", "a  =  1\\n31"), agreement("1", "1\\n2")
    (1.0, 0.0)

    Source: VeriReason (arXiv 2505.11849), which compares over the shorter of the two, so that no output passes.
    """
    ours, theirs = _lines(written), _lines(expected)
    if len(ours) != len(theirs) or not theirs:
        return 0.0
    return sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(theirs)


def _lines(text: str) -> list[str | int]:
    lines = (" ".join(line.split()) for line in _COMPARED.sub("", text).splitlines())
    return [_value(line) for line in lines if line]


def _value(line: str) -> str | int:
    try:
        return int(line, 0 if re.match(r"[+-]?0[xXbBoO]", line) else 10)
    except ValueError:
        return line


def _brief(complaint: bytes) -> str:
    """The first line of what a compiler says."""
    lines = complaint.decode("utf-8", "replace").replace(SECRET, "").splitlines()
    return (lines[0] if lines else "the compiler does not say why")[:200]


def text_in(column: Any, name: str) -> str:
    """What a column of the row says.

    Raises:
        Abstain: if it is no text.
    """
    if not isinstance(column, str) or not tokens(column):
        raise Abstain(f"{name} not a design: {shown(column)}")
    return column


def longest(*, seconds: float, **others: Any) -> float:
    """The engine's deadline for a row, its golden design included."""
    return 6 * seconds + START


def patterns(*, passed: str, failed: str, **options: Any) -> tuple[str, ...]:
    """Nothing that is required, and a check of the options.

    Raises:
        ValueError: if one of them cannot be meant.
    """
    for pattern in (passed, failed):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    if isinstance(options["shared"], str):
        raise ValueError(f"shared is a list of names: a single one is written ({options['shared']!r},)")
    return positive(**options)


def _check(**options: Any) -> None:
    check(synthesis=False)


def _columns(*, reference: str | None, vectors: str | None, **others: Any) -> tuple[str, ...]:
    if vectors is not None and reference is None:
        raise ValueError("vectors are compared where there is a reference: name its column")
    return ("completion", "testbench", *filter(None, (reference, vectors)))


@reward(range=(0, 1), columns=_columns, deadline=longest, check=_check, requires=patterns)
def testbench(
    completion: Completion,
    testbench: Any,
    golden: Any = "",
    expected: Any = None,
    *,
    reference: str | None = "reference",
    vectors: str | None = None,
    module: str | None = None,
    shared: tuple[str, ...] = (),
    passed: str = PASSED,
    failed: str = FAILED,
    seconds: float = 30.0,
    memory: int = 512,
) -> tuple[float, dict[str, Any]]:
    r"""1 if a design passes its testbench in Icarus Verilog, else 0.

    What pays is what the testbench prints, and a design prints nothing: system tasks ($display, $finish, $readmemh, …)
    and references to what is outside of it get the floor before anything is simulated. The names of the testbench and
    of the golden design are changed to such as nobody can guess, so that a design cannot instantiate the one or
    reach into the other.

    Args:
        completion: the reply: text or chat messages.
        testbench: Verilog that instantiates the module under test.
        golden: the column that `reference` names: a design that passes. It is simulated along where the testbench
            instantiates it by a name of its own.
        expected: the column that `vectors` names.
        reference: the column with the golden design. None: there is none; then a testbench that no design can pass
            looks like a design that fails.
        vectors: the column with the lines that the testbench is to write to `test_vectors.txt`, in place of saying
            that it passed.
        module: the name of the module under test. Default: the one that the testbench lacks.
        shared: modules of the testbench's that designs may instantiate.
        passed: a regular expression for what the testbench prints if all is well.
        failed: one for what it prints if something is not, whatever else it prints.
        seconds: for compiling and simulating together.
        memory: MiB that each tool may allocate.

    Returns:
        The score, and as details how far the design came, and why no further.

    Raises:
        Abstain: if the testbench cannot be used, or the golden design does not pass it.
        SandboxUnavailable: before any work, where tools cannot be isolated.
        ValueError: at once, if an option cannot be meant.

    >>> from guerdon.rewards import hdl
    >>> bench = "module tb; wire y; inv dut(1'b0, y); initial #1 if (y) $display(\"TEST PASSED\"); endmodule"
    >>> design = "```verilog\nmodule inv(input a, output y); assign y = ~a; endmodule\n```"
    >>> hdl.testbench(reference=None).evaluate(design, bench)  # doctest: +SKIP
    (1.0, {'stage': 'passes'})

    Source: VerilogEval (arXiv 2309.07544) and its testbenches; `vectors` as in VeriReason (arXiv 2505.11849).
    """
    test = tested(
        design_in(completion), of_row(testbench, golden, module, shared),
        passed=passed, failed=failed, vectors=listed(expected, vectors), seconds=seconds, memory=memory,
    )  # fmt: skip
    return float(test.stage == "passes"), details(test)


def of_row(testbench: Any, golden: Any, module: str | None, shared: tuple[str, ...]) -> Bench:
    """See `bench`."""
    own = text_in(golden, "reference") if golden != "" else ""
    return bench(text_in(testbench, "testbench"), own, module, tuple(shared))


def listed(column: Any, name: str | None) -> str | None:
    """The expected lines, if there is a column for them.

    Raises:
        Abstain: if it is no text.
    """
    if name is None:
        return None
    if not isinstance(column, str) or not _lines(column):
        raise Abstain(f"{name} not lines of text: {shown(column)}")
    return column


def details(test: Test) -> dict[str, Any]:
    """A test as evidence."""
    found = {"stage": test.stage, "reason": test.reason, "matched": test.matched}
    return {name: value for name, value in found.items() if value is not None}
