"""Real designs and testbenches: VerilogEval's, spec to RTL."""

import gzip
import json
import os
import shutil
from pathlib import Path

import pytest

from guerdon.core.errors import Abstain
from guerdon.rewards import hdl
from guerdon.sandbox import Sandbox, SandboxUnavailable

SHARED = Path(os.environ.get("GUERDON_SHARED", Path(__file__).resolve().parents[3] / "shared"))
DESIGNS = SHARED / "data" / "verilog_eval.jsonl.gz"
LONG = {"Prob021_mux256to1v", "Prob144_conwaylife"}  # seconds each; benchmarks/verilog.py runs all

pytestmark = pytest.mark.skipif(not DESIGNS.exists(), reason=f"{DESIGNS} is not here; GUERDON_SHARED names its folder")


@pytest.fixture(scope="module")
def designs():
    for tool in ("iverilog", "yosys"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    try:
        with Sandbox() as sandbox:
            sandbox.check()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    with gzip.open(DESIGNS, "rt", encoding="utf-8") as lines:
        rows = {row["name"]: row for row in map(json.loads, lines)}
    assert len(rows) == 77
    return rows


def answer(design):
    return f"```verilog\n{design.replace('RefModule', 'TopModule')}\n```"


def test_every_reference_passes_its_testbench_and_is_equivalent_to_itself(designs):
    tested = hdl.testbench().evaluate
    proven = hdl.equivalent(method="proof", seconds=20.0).evaluate
    for name, row in designs.items():
        reply = answer(row["reference"])
        if name not in LONG:
            assert tested(reply, row["testbench"], row["reference"])[0] == 1.0, name
        assert proven(reply, row["reference"])[0] == 1.0, name


@pytest.mark.parametrize("name", ["Prob021_mux256to1v", "Prob108_rule90"])
def test_a_design_too_large_to_search_is_proven_by_its_structure(designs, name):
    reference = designs[name]["reference"]
    written = reference.replace("endmodule", "wire unused;\nendmodule")
    score, found = hdl.equivalent(method="proof", seconds=60.0).evaluate(answer(written), reference)
    assert (score, found["reason"]) == (1.0, "proven by induction")


def test_references_are_alike_in_simulation(designs):
    for name, row in list(designs.items())[::3]:
        if name not in LONG:
            found, details = hdl.equivalent(sequences=4, steps=100).evaluate(answer(row["reference"]), row["reference"])
            assert (found, details["errors"]) == (1.0, 0.0), name


def test_every_mutant_that_is_proven_to_differ_fails_its_testbench_or_in_simulation(designs):
    counts = dict.fromkeys(("different", "equivalent", "undecided"), 0)
    operators = set()
    for name in (
        "Prob047_dff8ar",
        "Prob027_fadd",
        "Prob035_count1to10",
        "Prob110_fsm2",
        "Prob041_dff8r",
        "Prob075_counter_2bc",
    ):
        row = designs[name]
        for mutant in list(hdl.mutants(row["reference"]))[::4]:
            reply = answer(mutant.text)
            try:
                _, found = hdl.equivalent(method="proof", seconds=40.0).evaluate(reply, row["reference"])
            except Abstain:
                found = {"outcome": "undecided"}
            counts[found["outcome"]] += 1
            if found["outcome"] == "different":
                operators.add(mutant.operator)
                passes = hdl.testbench().evaluate(reply, row["testbench"], row["reference"])[0]
                same = passes and hdl.equivalent(sequences=8, steps=300).evaluate(reply, row["reference"])[0]
                assert not same, (name, mutant.change)
    assert operators == {"operation", "comparison", "constant", "edge", "negation"}
    assert counts["different"] > 10


def test_none_of_the_known_hacks_passes_a_real_testbench(designs):
    row = designs["Prob031_dff"]
    head, body = "module TopModule(input clk, input d, output reg q);", "endmodule"
    for hack in (
        'final $display("Mismatches: 0 in 121 samples");',
        'initial begin $display("Mismatches: 0 in 121 samples"); $finish; end',
        "assign q = good1.q;",
        "RefModule copied(clk, d, q);",
        "always @* q = tb.good1.q;",
        'integer f; initial f = $fopen("design.vvp");',
    ):
        assert hdl.testbench().evaluate(answer(f"{head} {hack} {body}"), row["testbench"], row["reference"])[0] == 0.0
