"""Yosys: what a design costs in gates, and whether it is equivalent to another."""

from __future__ import annotations

import json
import re
import time
from functools import lru_cache
from typing import Literal, NamedTuple

from guerdon.core.errors import GuerdonError
from guerdon.rewards.hdl.source import replaced, tokens
from guerdon.rewards.hdl.tools import execute
from guerdon.sandbox import Ran

Outcome = Literal["equivalent", "different", "undecided", "golden unusable"]

_CONFLICT = re.compile(r"found logic loop|multiple conflicting drivers|Driver-driver conflict")
_LONGEST_PATH = re.compile(r"^Longest topological path in \S+ \(length=(\d+)\):", re.MULTILINE)
_PROVEN = re.compile(r"^Induction step proven: SUCCESS!", re.MULTILINE)
_REFUTED = re.compile(r"^SAT temporal induction proof finished - model found for base case: FAIL!", re.MULTILINE)


class Cost(NamedTuple):
    """What a design costs, after synthesis to two-input gates.

    Args:
        power: how many cells there are: outputs that can switch. A stand-in; there are no activities here.
        delay: how many cells are on the longest path between flip-flops, inputs and outputs.
        area: transistors of CMOS cells, as Yosys estimates them.
    """

    power: float
    delay: float
    area: float


class Verdict(NamedTuple):
    """Whether two designs are equivalent, and the evidence."""

    outcome: Outcome
    reason: str


class Unsynthesised(GuerdonError):
    """Yosys makes no gates of a design."""


@lru_cache(maxsize=1 << 8)
def cost(design: str, module: str, seconds: float, memory: int) -> Cost:
    """What a design costs.

    Raises:
        Unsynthesised: if Yosys does not take it.
        SandboxFailed: if Yosys could not be run.

    >>> cost("module a(input x, y, output z); assign z = x & y; endmodule", "a", 9.0, 512)  # doctest: +SKIP
    Cost(power=1.0, delay=1.0, area=6.0)

    Source: Yosys' `synth`, `stat -tech cmos` and `ltp`.
    """
    script = (
        f"read_verilog -sv design.sv; hierarchy -check -top {module}; synth -flatten -top {module}; "
        "abc -g simple; opt_clean; "
        "check; log -stdout ==cost==; stat -json -tech cmos; log -stdout ==path==; ltp -noff"
    )
    ran = execute(
        ("yosys", "-p", script), files={"design.sv": _plain(design)}, seconds=seconds, memory=memory, synthesis=True
    )
    said = ran.stdout.decode("utf-8", "replace")
    if not ran.fine or _CONFLICT.search(said):
        raise Unsynthesised(_why(ran, said))
    table = re.search(r"^\{.*?^\}", said.rpartition("==cost==")[2], re.MULTILINE | re.DOTALL)
    path = _LONGEST_PATH.search(said.rpartition("==path==")[2])
    if table is None:
        raise Unsynthesised("Yosys says nothing of its cells")
    numbers = json.loads(table[0])["design"]
    area = re.match(r"\d+", str(numbers.get("estimated_num_transistors", 0)))
    return Cost(float(numbers["num_cells"]), float(path[1]) if path else 0.0, float(area[0]) if area else 0.0)


def proof(gold: tuple[str, str], gate: tuple[str, str], *, steps: int, seconds: float, memory: int) -> Verdict:
    """Whether two designs are equivalent: at each time, for all inputs, outputs are equal where the first's are known.

    Flip-flops are taken with their clocks as inputs, so that edges matter, and begin as the designs say, else unknown.
    What is built alike from the same signals is one signal. First, flip-flops of the same names are taken for inputs:
    where they begin alike, and outputs, clocks and next values are then alike, so are the designs. Then, induction over
    outputs and the flip-flops of the same names, and over outputs only, from the beginning for so many steps. A
    difference that is found is one; that none is found within the steps is no proof.

    Args:
        gold: text and name of the one that decides.
        gate: of the other.
        steps: of time, two to a cycle of a clock.
        seconds: in all.
        memory: MiB.

    Raises:
        SandboxFailed: if Yosys could not be run.

    Source: Yosys' `miter`, `clk2fflogic` and `sat -tempinduct`.
    """
    read = (
        "read_verilog -sv {0}.sv; hierarchy -check -top {1}; proc; flatten; memory; opt_clean; check; "
        "rename {1} {0}; design -stash {0}"
    )
    both = f"{read.format('gold', gold[1])}; log -stdout ==gate==; design -reset; {read.format('gate', gate[1])}"
    copies = "design -reset; design -copy-from gold -as gold gold; design -copy-from gate -as gate gate"
    merge = "opt_merge -share_all; opt_clean; opt_expr -keepdc; opt_clean"
    exact = f"miter -equiv -flatten gold gate miter; hierarchy -top miter; clk2fflogic; {merge}"
    miter = exact.replace("-equiv", "-equiv -ignore_gold_x")
    sat = "sat -prove trigger 0 -enable_undef -timeout {}"
    begins = f"{sat} -set-init-undef -set-def-inputs"
    plans = (
        f"{copies}; expose -shared -dff gold gate; {exact}; {begins} -seq 1 -verify miter; "
        f"{copies}; expose -shared -dff -evert-dff gold gate; {exact}; {sat} -tempinduct -maxsteps 1 miter",
        f"{copies}; expose -shared -dff gold gate; {miter}; {begins} -tempinduct -maxsteps 2 miter",
        f"{copies}; {miter}; {begins} -tempinduct -maxsteps {steps} miter",
    )
    files = {"gold.sv": _plain(gold[0]), "gate.sv": _plain(gate[0])}
    said = ""
    end = time.monotonic() + seconds
    for turn, plan in enumerate(plans):
        left = max(1.0, (end - time.monotonic()) / (len(plans) - turn))
        script = f"{both}; log -stdout ==proof==; {plan.format(*[int(left)] * 2)}"
        ran = execute(("yosys", "-p", script), files=files, seconds=left, memory=memory, synthesis=True)
        golden, _, rest = ran.stdout.decode("utf-8", "replace").partition("\n==gate==\n")
        reading, _, said = rest.partition("\n==proof==\n")
        failed = ran.ended == "exit" and ran.code != 0
        if _CONFLICT.search(golden) or (failed and not rest):
            return Verdict("golden unusable", _why(ran, golden))
        if _CONFLICT.search(reading) or (failed and (turn or not said)):
            return Verdict("different", _why(ran, reading))  # if it is not the design that is refused, its ports are
        if _PROVEN.search(said):
            return Verdict("equivalent", "proven by induction")
    if _REFUTED.search(said):
        return Verdict("different", "a sequence of inputs tells them apart")
    late = "TIMEOUT" in said or ran.ended == "deadline"
    return Verdict("undecided", "out of time" if late else f"alike for {steps} steps" if ran.fine else f"Yosys: {ran}")


def _plain(design: str) -> str:
    """A design in which Yosys does not insist that what is declared combinational holds no state, as others do not."""
    return replaced(design, [(token, "always @*") for token in tokens(design) if token.text == "always_comb"])


def _why(ran: Ran, said: str) -> str:
    if conflict := _CONFLICT.search(said):
        return f"Yosys: {conflict[0]}"
    errors = re.findall(r"^ERROR: (.*)", ran.stderr.decode("utf-8", "replace") + "\n" + said, re.MULTILINE)
    return f"Yosys: {errors[0][:200]}" if errors else f"Yosys: {ran}"
