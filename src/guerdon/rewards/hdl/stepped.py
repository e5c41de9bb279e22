"""`hdl.stepped`: a design that does not pass is paid for its structure, if it compiles."""

from __future__ import annotations

from typing import Any

from guerdon.algebra import reward
from guerdon.core.parsing import Completion
from guerdon.rewards.hdl.likeness import alike
from guerdon.rewards.hdl.source import design_in
from guerdon.rewards.hdl.testing import FAILED, PASSED, details, listed, longest, of_row, patterns, tested
from guerdon.rewards.hdl.tools import check

FULL, COMPILES = 2.1, 0.1
SHORTEST = 20  # characters


def _columns(*, vectors: str | None, **others: Any) -> tuple[str, ...]:
    return ("completion", "testbench", "reference", *filter(None, (vectors,)))


def _check(**options: Any) -> None:
    check(synthesis=False)


@reward(range=(0, FULL), columns=_columns, deadline=longest, check=_check, requires=patterns)
def stepped(
    completion: Completion,
    testbench: Any,
    reference: Any,
    expected: Any = None,
    *,
    vectors: str | None = None,
    module: str | None = None,
    shared: tuple[str, ...] = (),
    passed: str = PASSED,
    failed: str = FAILED,
    seconds: float = 30.0,
    memory: int = 512,
) -> tuple[float, dict[str, Any]]:
    """What a design earns, step by step:

        0                  no design, or it does not compile
        0.1 + likeness     it compiles and does not pass its testbench; see `hdl.likeness`
        2.1                it passes

    Args:
        completion: the reply: text or chat messages.
        testbench: Verilog that instantiates the module under test.
        reference: the golden design, of the name that the testbench instantiates or of its own.
        expected: the column that `vectors` names.
        vectors: see `hdl.testbench`.
        module: see `hdl.testbench`.
        shared: see `hdl.testbench`.
        passed: see `hdl.testbench`.
        failed: see `hdl.testbench`.
        seconds: see `hdl.testbench`.
        memory: see `hdl.testbench`.

    Returns:
        The score, and as details how far the design came, and the terms of its likeness.

    Raises:
        Abstain: if the testbench cannot be used, or the golden design does not pass it.
        SandboxUnavailable: before any work, where tools cannot be isolated.
        ValueError: at once, if an option cannot be meant.

    Source: VeriReason (arXiv 2505.11849). Its format reward, 0.1, is a part of its own: `format.tags`.
    """
    design = design_in(completion)
    against = of_row(testbench, reference, module, shared)
    test = tested(
        design if len(design) >= SHORTEST else "", against,
        passed=passed, failed=failed, vectors=listed(expected, vectors), seconds=seconds, memory=memory,
    )  # fmt: skip
    if test.stage == "passes":
        return FULL, details(test)
    if test.stage != "fails":
        return 0.0, details(test)
    terms = alike(design, against.golden)
    return COMPILES + terms["likeness"], {**details(test), **terms}
