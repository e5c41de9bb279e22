"""`hdl.equivalent`: a design does what a golden one does, shown by simulation or proven."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, read_json, shown
from guerdon.rewards.hdl.ports import comparison, interface
from guerdon.rewards.hdl.source import design_in, hidden, modules, renamed, scopes, tokens, top
from guerdon.rewards.hdl.synthesis import Outcome, proof
from guerdon.rewards.hdl.testing import read, text_in
from guerdon.rewards.hdl.tools import SECRET, START, check, execute, positive

Method = Literal["simulation", "proof"]
Unknown = Literal["differs", "free"]

MOST_STEPS = 10_000_000


class Found(NamedTuple):
    """Whether a design is equivalent to a golden one, and the evidence."""

    outcome: Outcome
    reason: str
    errors: float | None = None  # the share of comparisons that failed


def _valid(*, sequences: int, steps: int, depth: int, **options: Any) -> tuple[str, ...]:
    if min(sequences, steps, depth) < 1 or sequences * steps > MOST_STEPS:
        raise ValueError(f"sequences, steps and depth are positive, and no more than {MOST_STEPS} steps in all")
    return positive(seconds=options["seconds"], memory=options["memory"])


def _check(*, method: Method, **options: Any) -> None:
    check(synthesis=method == "proof")


def _longest(*, seconds: float, **others: Any) -> float:
    return 10 * seconds + START


@reward(range=(0, 1), deadline=_longest, check=_check, requires=_valid)
def equivalent(
    completion: Completion,
    reference: Any,
    *,
    method: Method = "simulation",
    unknown: Unknown = "differs",
    undecided: Literal["abstain", "floor"] = "abstain",
    sequences: int = 100,
    steps: int = 1000,
    seed: int = 0,
    depth: int = 20,
    module: str | None = None,
    seconds: float = 30.0,
    memory: int = 1024,
) -> tuple[float, dict[str, Any]]:
    r"""1 if a design does what a golden one does, or one of several, else 0.

    By 'simulation', both get the same random inputs, clock and resets, and one output that differs once is enough. A
    rare difference may not be met: what is lacking is a proof. By 'proof', Yosys looks for a difference for so many
    steps, and for an induction that there is none; where it finds neither, the outcome is 'undecided'. A design with
    a combinational loop or a signal with two drivers, of which anything can be proven, is different.

    The top module of each is the one that no other instantiates; their names need not agree, their ports have to.

    Args:
        completion: the reply: text or chat messages.
        reference: the golden design, or a list of them, or its JSON text.
        method: 'simulation' (Icarus Verilog) or 'proof' (Yosys).
        unknown: in simulation, whether an output that is unknown (x, z) in the golden design 'differs' from one that is
            not, or is 'free'. A proof takes it for free; one that is unknown in the design only always differs.
        undecided: what is scored where there is neither a difference nor a proof.
        sequences: of simulation, each with resets first.
        steps: of each sequence.
        seed: of the inputs.
        depth: steps of time in which a proof looks for a difference; two to a cycle.
        module: the name of both top modules. Default: see above.
        seconds: for compiling and simulating, or for the proof, with each golden design.
        memory: MiB that each tool may allocate.

    Returns:
        The score, and as details the outcome, its reason, and of a simulation the share of comparisons that failed.

    Raises:
        Abstain: if a golden design cannot be used or has several clocks, or nothing is decided.
        SandboxUnavailable: before any work, where tools cannot be isolated.
        ValueError: at once, if an option cannot be meant.

    >>> from guerdon.rewards import hdl
    >>> golden = "module add(input [7:0] a, b, output [7:0] s); assign s = a + b; endmodule"
    >>> answer = "```verilog\nmodule sum(input [7:0] a, b, output [7:0] s); assign s = a - ~b - 1'b1; endmodule\n```"
    >>> hdl.equivalent(method="proof").evaluate(answer, golden)  # doctest: +SKIP
    (1.0, {'outcome': 'equivalent', 'reason': 'proven by induction'})

    Source: CodeV-R1 (arXiv 2505.24183), by simulation; Yosys' `miter` and `sat`.
    """
    design, wrong = read(design_in(completion), frozenset(), seconds=seconds, memory=memory)
    goldens = _goldens(reference)
    options = (method, unknown, sequences, steps, seed, depth, seconds, memory)
    if wrong is not None:
        _usable(goldens[0], module, *options)
        return 0.0, {"outcome": "different", "reason": wrong}
    found = Found("different", "")
    for golden in goldens:
        found = _compared(design, golden, module, *options)
        if found.outcome == "golden unusable":
            raise Abstain(f"the golden design is not usable: {found.reason}".replace(SECRET, ""))
        if found.outcome in ("equivalent", "undecided"):
            break
    if found.outcome != "equivalent":
        _usable(goldens[0], module, *options)
    if found.outcome == "undecided" and undecided == "abstain":
        raise Abstain(f"undecided: {found.reason}")
    evidence: dict[str, Any] = {"outcome": found.outcome, "reason": found.reason.replace(SECRET, "")}
    if found.errors is not None:
        evidence["errors"] = found.errors
    return float(found.outcome == "equivalent"), evidence


@lru_cache(maxsize=1 << 8)
def _usable(golden: str, module: str | None, *options: Any) -> None:
    """See that a golden design is equivalent to itself, or at least not different.

    Raises:
        Abstain: if it is not.
    """
    found = _compared(golden, golden, module, *options)
    if found.outcome not in ("equivalent", "undecided"):
        raise Abstain(f"the golden design is not usable: {found.reason}".replace(SECRET, ""))


def _compared(
    design: str, golden: str, module: str | None, method: Method, unknown: Unknown,
    sequences: int, steps: int, seed: int, depth: int, seconds: float, memory: int,
) -> Found:  # fmt: skip
    theirs, ours = module or top(golden), module or top(design)
    if theirs is None or theirs not in {found.name for found in modules(golden)}:
        return Found("golden unusable", f"it has no module {theirs or ''}")
    if ours is None or ours not in {found.name for found in modules(design)}:
        return Found("different", f"the design has no module {ours or ''}")
    if method == "proof":
        if _words(design, ours) == _words(golden, theirs):
            return Found("equivalent", "the same text")
        verdict = proof((golden, theirs), (design, ours), steps=depth, seconds=seconds, memory=memory)
        return Found(*verdict)
    known = interface(golden, theirs)
    if len(known.clocks) > 1:
        raise Abstain(f"the golden design has several clocks: {', '.join(known.clocks)}")
    names = {found.name for found in modules(golden)}
    secret, _ = hidden(golden, scopes(golden) - names - {port.name for port in known.ports}, SECRET)
    gold = renamed(secret, {name: f"{name}_gold{SECRET}" for name in names})
    gate = renamed(design, {found.name: f"{found.name}_gate{SECRET}" for found in modules(design)})
    bench = comparison(
        known, f"{theirs}_gold{SECRET}", f"{ours}_gate{SECRET}",
        name=SECRET, sequences=sequences, steps=steps, seed=seed, unknown=unknown,
    )  # fmt: skip
    ran = execute(
        ("iverilog", "-g2012", "-s", SECRET, "-o", "design.vvp", "testbench.sv", "design.sv"),
        ("vvp", "-n", "design.vvp"),
        files={"testbench.sv": f"{gold}\n{bench}", "design.sv": gate}, seconds=seconds, memory=memory,
    )  # fmt: skip
    counted = re.search(rf"^{SECRET} (\d+) (\d+)$", ran.stdout.decode("utf-8", "replace"), re.MULTILINE)
    if not ran.fine or counted is None:
        said = ran.stderr.decode("utf-8", "replace").splitlines()
        return Found("different", f"not simulated: {said[0][:200] if said else ran}")
    errors, checks = map(int, counted.groups())
    rate = errors / checks if checks else math.nan
    if not errors:
        return Found("equivalent", f"alike {checks} times", 0.0)
    return Found("different", f"differs {errors} of {checks} times", rate)


def _words(text: str, top: str) -> list[str]:
    """The tokens of a text, whatever the name of the top module."""
    return [token.text for token in tokens(renamed(text, {top: "top"}))]


def _goldens(column: Any) -> Sequence[str]:
    """The golden designs of a row.

    Raises:
        Abstain: if there is none.
    """
    if isinstance(column, str) and column.lstrip().startswith("["):
        try:
            column = read_json(column)
        except ValueError as error:
            raise Abstain(f"reference not readable as JSON: {error}") from None
    designs = [column] if isinstance(column, str) else column
    try:
        found = [text_in(design, "reference") for design in designs]
    except TypeError:
        raise Abstain(f"reference not a design: {shown(column)}") from None
    if not found:
        raise Abstain("reference is empty")
    return found
