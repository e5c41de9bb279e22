"""`hdl.hierarchy`: compiling, passing, synthesis and cost, each counted only where the one before is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, shown
from guerdon.rewards.hdl.source import design_in
from guerdon.rewards.hdl.synthesis import Unsynthesised, cost
from guerdon.rewards.hdl.testing import FAILED, PASSED, details, longest, of_row, patterns, read, tested
from guerdon.rewards.hdl.tools import check

COMPILES, PASSES, SYNTHESISES = 0.2, 1.0, 0.4
LEAST, MOST, FROM_NOTHING = 0.01, 0.6, 0.1
COSTS = ("power", "delay", "area")

Measure = Callable[[str, str], Mapping[str, float]]


def improvement(own: Mapping[str, float], golden: Mapping[str, float]) -> float:
    """How much less a design costs than the golden one:

        clip(√³(P_ref/P · D_ref/D · A_ref/A) − 1, 0.01, 0.6)

    0.1 if the golden design's product is 0, else 0 if the design's own is.

    Args:
        own: power, delay and area, in any units.
        golden: the same of the golden design, in the same units.

    Raises:
        ValueError: if one is negative, not finite or missing.

    >>> golden = {"power": 2.0, "delay": 3.0, "area": 5.0}
    >>> round(improvement({**golden, "power": 1.0}, golden), 4), improvement(golden, golden)
    (0.2599, 0.01)

    Source: ChipSeek-R1 (arXiv 2507.04736).
    """
    values = [[float(costs.get(name, math.nan)) for name in COSTS] for costs in (own, golden)]
    for value in (*values[0], *values[1]):
        if not 0 <= value < math.inf:
            raise ValueError(f"power, delay and area are 0 or more, got {dict(own)} and {dict(golden)}")
    ours, theirs = map(math.prod, values)
    if theirs == 0:
        return FROM_NOTHING
    return min(MOST, max(LEAST, (theirs / ours) ** (1 / 3) - 1)) if ours else 0.0


def _check(**options: Any) -> None:
    check(synthesis=True)


@reward(range=(0, PASSES + SYNTHESISES + MOST), deadline=longest, check=_check, requires=patterns)
def hierarchy(
    completion: Completion,
    testbench: Any,
    reference: Any,
    *,
    measure: Measure | None = None,
    module: str | None = None,
    shared: tuple[str, ...] = (),
    passed: str = PASSED,
    failed: str = FAILED,
    seconds: float = 30.0,
    memory: int = 512,
) -> tuple[float, dict[str, Any]]:
    """What a design earns, each tier opened by the one before:

        0                         no design, or it does not compile
        0.2                       it compiles and does not pass its testbench
        1                         it passes
        1.4 + improvement         and is synthesised; see `hdl.improvement`

    A cheap design that is wrong earns 0.2, however cheap: an empty module costs nothing.

    Args:
        completion: the reply: text or chat messages.
        testbench: Verilog that instantiates the module under test.
        reference: the golden design, which passes, and whose cost is to be met.
        measure: a function of a design and the name of its module that gives its power, delay and area, as a flow with
            cells and wires of a real process does; it raises `ValueError` if there is no synthesis. It is called for
            both designs, in the process that scores. Default: Yosys, with cells, levels of gates and transistors.
        module: see `hdl.testbench`.
        shared: see `hdl.testbench`.
        passed: see `hdl.testbench`.
        failed: see `hdl.testbench`.
        seconds: for compiling and simulating together, and for synthesis.
        memory: MiB that each tool may allocate.

    Returns:
        The score, and as details how far the design came, why no further, and both costs.

    Raises:
        Abstain: if the testbench cannot be used, or the golden design does not pass it or is not synthesised.
        SandboxUnavailable: before any work, where tools cannot be isolated.
        ValueError: at once, if an option cannot be meant.

    Source: ChipSeek-R1 (arXiv 2507.04736). Its format reward is a part of its own: `format.template(answer="tag")`.
    """
    design = design_in(completion)
    against = of_row(testbench, reference, module, shared)
    test = tested(design, against, passed=passed, failed=failed, vectors=None, seconds=seconds, memory=memory)
    if test.stage != "passes":
        return (COMPILES if test.stage == "fails" else 0.0), details(test)
    try:
        theirs = _measured(measure, against.golden, against.module, seconds, memory)
    except (Unsynthesised, ValueError) as error:
        raise Abstain(f"the golden design is not synthesised: {error}") from None
    text, _ = read(design, against.kept, seconds=seconds, memory=memory)
    try:
        ours = _measured(measure, text, against.module, seconds, memory)
    except (Unsynthesised, ValueError) as error:
        return PASSES, {**details(test), "reason": f"not synthesised: {error}"}
    gain = improvement(ours, theirs)
    return PASSES + SYNTHESISES + gain, {**details(test), "stage": "synthesised", "cost": ours, "golden cost": theirs}


def _measured(measure: Measure | None, design: str, module: str, seconds: float, memory: int) -> dict[str, float]:
    if measure is None:
        return dict(cost(design, module, seconds, memory)._asdict())
    values = measure(design, module)
    if not isinstance(values, Mapping) or not all(0 <= float(values.get(name, math.nan)) < math.inf for name in COSTS):
        raise ValueError(f"measure gives power, delay and area, 0 or more; got {shown(values)}")
    return {name: float(values[name]) for name in COSTS}
