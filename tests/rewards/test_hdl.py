"""Generated hardware designs: read, simulated, compared and synthesised; what does not pay."""

import json
import math
import shutil

import numpy as np
import pytest

from guerdon.algebra import spec
from guerdon.core import Context, Rollouts
from guerdon.core.errors import Abstain
from guerdon.data import Pace, Shuffled, fill, varied
from guerdon.engine import Engine
from guerdon.rewards import format, hdl
from guerdon.rewards.hdl import source
from guerdon.rewards.hdl.likeness import alike
from guerdon.rewards.hdl.ports import interface
from guerdon.rewards.hdl.synthesis import cost
from guerdon.rewards.hdl.testing import agreement
from guerdon.sandbox import Limits, Sandbox, SandboxUnavailable

ADDER = "module adder(input [3:0] a, b, output [4:0] s); assign s = a + b; endmodule"
BROKEN = ADDER.replace("+", "-")
MISTYPED = ADDER.replace("a + b", "a +")
BENCH = """
module tb;
  reg [3:0] a = 0, b = 0; wire [4:0] want, got; integer i, wrong = 0;
  task look; begin #1 if (want !== got) wrong = wrong + 1; end endtask
  golden good(.a(a), .b(b), .s(want));
  adder dut(.a(a), .b(b), .s(got));
  initial begin
    for (i = 0; i < 256; i = i + 1) begin {a, b} = i; look; end
    $display("Mismatches: %0d in %0d samples", wrong, i);
  end
endmodule
"""
GOLDEN = ADDER.replace("module adder", "module golden")
INVERTER = "module inv(input a, output y); assign y = ~a; endmodule"


def fenced(design):
    return f"<think>hm</think>\n```verilog\n{design}\n```"


@pytest.fixture(scope="module", autouse=True)
def tools():
    if shutil.which("iverilog") is None:
        pytest.skip("Icarus Verilog is not installed")
    try:
        with Sandbox() as sandbox:
            sandbox.check()
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def yosys():
    if shutil.which("yosys") is None:
        pytest.skip("Yosys is not installed")


def score(design, bench=BENCH, golden=GOLDEN, **options):
    return hdl.testbench(seconds=40.0, **options).evaluate(fenced(design), bench, golden)


@pytest.mark.parametrize(
    ("design", "expected", "stage"),
    [
        (ADDER, 1.0, "passes"),
        (ADDER.replace("a + b", "{1'b0, a + b}"), 0.0, "fails"),  # right in four bits, not in five
        (ADDER.replace("endmodule", ""), 0.0, "no design"),
        (BROKEN, 0.0, "fails"),
        (MISTYPED, 0.0, "does not compile"),
        (ADDER.replace("adder", "summer"), 0.0, "no design"),
        ("", 0.0, "no design"),
        ("assign s = a + b;", 0.0, "no design"),
    ],
)
def test_a_design_pays_if_its_testbench_says_so(design, expected, stage):
    found, details = score(design)
    assert (found, details["stage"]) == (expected, stage)


SAYS = 'initial $display("Mismatches: 0 in 256 samples");'
BODY = "module adder(input [3:0] a, b, output [4:0] s); {} endmodule"


@pytest.mark.parametrize(
    ("hack", "reason"),
    [
        (BODY.format(SAYS), r"\$display"),
        (BODY.format('initial begin $write("Mismatches: 0 in 9 samples"); $finish; end'), r"\$write"),
        (BODY.format("initial $finish;"), r"\$finish"),
        (BODY.format("final $stop;"), r"\$stop"),
        (BODY.format('reg [7:0] m [0:9]; initial $readmemh("design.sv", m);'), r"\$readmemh"),
        (BODY.format('integer f; initial f = $fopen("testbench.sv", "r");'), r"\$fopen"),
        (BODY.format('initial $system("true");'), r"\$system"),
        (BODY.format("initial $root.tb.wrong = 0;"), r"\$root"),
        (BODY.format("always @* $deposit(s, 1);"), r"\$deposit"),
        ("`define say $display\n" + BODY.format('initial `say("Mismatches: 0 in 9 samples");'), r"\$display"),
        ("`define F(x) $x\n" + BODY.format('initial `F(display)("x");'), r"\$"),
        ("`define F(x) $``x\n" + BODY.format('initial `F(display)("x");'), r"\$|`"),
        ('`include "testbench.sv"\n' + ADDER, "`include"),
        (BODY.format('/* " */ ' + SAYS + ' /* " */'), r"\$display"),
        (BODY.format('assign s = "//"; ' + SAYS), r"\$display"),
        (BODY.format("assign s = good.s;"), "good"),
        (BODY.format("assign s = tb.good.s;"), "tb"),
        (BODY.format("assign s = tb . \\good .s;"), "tb"),
        (BODY.format("assign s = want;"), "want"),
        (BODY.format("initial force tb.wrong = 0;"), "tb"),
        (BODY.format("initial look;"), "look"),
        (BODY.format("initial disable look;"), "look"),
        (BODY.format("defparam tb.x = 1;"), "tb|Mismatches"),
        (BODY.format("golden copied(.a(a), .b(b), .s(s));"), "golden"),
        (ADDER + " bind tb evil e(); module evil; " + SAYS + " endmodule", r"bind|\$display"),
        (ADDER + " module golden(input [3:0] a, b, output [4:0] s); endmodule " + BROKEN, "already|adder"),
        (ADDER + f" module other; {SAYS} endmodule", r"\$display"),
        ("`timescale 1ns/1ps\n`default_nettype none\n" + ADDER, ""),
    ],
)
def test_a_design_that_prints_ends_reads_or_reaches_out_does_not_pay(hack, reason):
    found, details = score(hack.replace("endmodule", "// wrong\nendmodule", 1) if "+" not in hack else hack)
    if reason:
        assert found == 0.0
        import re

        assert re.search(reason, details["reason"]), details
    else:
        assert found == 1.0


@pytest.mark.parametrize(
    "forever", ["always #0 ;", "initial forever ;", "assign s = ~s; always @* ;", "reg c = 0; always c = #0 ~c;"]
)
def test_a_design_that_never_ends_does_not_pay(forever):
    found, _ = hdl.testbench(seconds=1.0).evaluate(fenced(BODY.format(forever)), BENCH, GOLDEN)
    assert found == 0.0


def test_the_golden_design_cannot_be_reached_however_the_simulator_resolves_names():
    reaching = BODY.format("assign s = good.s;")
    text = f"{BENCH}\n{GOLDEN}\n{reaching}"
    with Sandbox(tools=("iverilog", "vvp", "sh")) as box:  # where names are not changed, it passes
        build = ("iverilog", "-g2012", "-o", "x", "all.sv")
        ran = box.command(build, ("vvp", "-n", "x"), files={"all.sv": text}, deadline=10.0, limits=Limits(processes=8))
    assert b"Mismatches: 0 in 256" in ran.stdout
    assert score(reaching)[0] == 0.0


def test_what_the_task_gives_may_be_used_if_it_is_named():
    helped = BODY.format("golden given(.a(a), .b(b), .s(s));")
    assert score(helped, shared=("golden",))[0] == 1.0
    assert score(helped)[0] == 0.0


def test_macros_structures_and_generated_instances_are_no_objection():
    design = """
    `define WIDTH 4
    module half #(parameter W = 1) (input [W-1:0] x, y, output [W-1:0] z); assign z = x ^ y; endmodule
    module adder(input [`WIDTH-1:0] a, b, output [`WIDTH:0] s);
      typedef struct packed { logic [3:0] low; } pair; pair p; wire [`WIDTH:0] c;
      wire [3:0] x; assign p.low = a; assign x = p.low; assign c[0] = 1'b0;
      genvar i;
      generate for (i = 0; i < `WIDTH; i = i + 1) begin : bits
        wire t; half u(.x(x[i]), .y(b[i]), .z(t)); assign s[i] = t ^ c[i];
        assign c[i+1] = (a[i] & b[i]) | (c[i] & t);
      end endgenerate
      assign s[4] = c[4];
    endmodule"""
    assert score(design) == (1.0, {"stage": "passes"})


@pytest.mark.parametrize(
    ("bench", "golden", "reason"),
    [
        (BENCH.replace("endmodule", ""), GOLDEN, "testbench"),
        (BENCH, BROKEN.replace("adder", "golden") + " module", "golden design"),
        (BENCH.replace("i < 256", "i < 0"), GOLDEN, "golden design fails"),
        ("", GOLDEN, "testbench"),
        (None, GOLDEN, "testbench"),
        (BENCH, None, "reference"),
        ("module tb; endmodule", GOLDEN, "not clear"),
    ],
)
def test_a_testbench_that_no_design_can_pass_is_an_abstention(bench, golden, reason):
    with pytest.raises(Abstain, match=reason):
        score(BROKEN, bench, golden)


def test_a_testbench_that_has_the_module_under_test_itself_is_an_abstention():
    with pytest.raises(Abstain, match="under test itself"):
        score(BROKEN, BENCH + ADDER, module="adder")


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ('$display("case 3 FAILED"); $display("TEST PASSED")', "TEST PASSED"),
        ('$display("TEST PASSED"); $fatal(1)', "simulation ended"),
    ],
)
def test_what_passes_and_fails_or_ends_in_an_error_does_not_pass(check, reason):
    bench = f"module tb; wire y; inv dut(1'b0, y); initial #1 begin {check}; end endmodule"
    score, found = hdl.testbench(reference=None, seconds=40.0).evaluate(fenced(INVERTER), bench)
    assert (score, found["stage"]) == (0.0, "fails")
    assert reason in found["reason"]


def test_a_testbench_without_a_golden_design_judges_alone():
    bench = 'module tb; wire y; inv dut(1\'b0, y); initial #1 if (y) $display("TEST PASSED"); endmodule'
    judge = hdl.testbench(reference=None, seconds=40.0).evaluate
    assert judge(fenced(INVERTER), bench)[0] == 1.0
    assert judge(fenced(INVERTER.replace("~", "")), bench)[0] == 0.0


def test_a_row_in_the_engine_says_why():
    rows = Rollouts(
        ["?"] * 4,
        [fenced(ADDER), fenced(BODY.format(SAYS)), "no", fenced(BROKEN)],
        {"testbench": [BENCH] * 3 + ["module tb; endmodule"], "reference": [GOLDEN] * 4},
    )
    with Engine(workers=1) as engine:
        scores = engine.score(hdl.testbench(seconds=40.0), rows)
    assert scores.read(-1).tolist() == [1.0, 0.0, 0.0, -1.0]
    assert "not clear" in scores.reasons[3]
    assert "$display" in scores.details["reason"][1]


def test_a_missing_tool_is_an_error_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Exception, match="apt install iverilog"):
        hdl.testbench().check()


# Names and tokens


def test_the_top_is_the_uninstantiated_module_with_most_below_it():
    text = "module a; endmodule module b; c u(); endmodule module c; d #(1) v(); endmodule module d; endmodule"
    assert source.top(text) == "b"
    assert source.top("") is None


def test_modules_are_renamed_where_they_are_declared_and_instantiated_only():
    text = "module a(output b); b #(2) b(.b(b)); endmodule : a\nmodule b(output b); assign b = a; endmodule"
    assert source.renamed(text, {"a": "x", "b": "y"}) == (
        "module x(output b); y #(2) b(.b(b)); endmodule : x\nmodule y(output b); assign b = a; endmodule"
    )


def test_ports_are_read_from_both_kinds_of_header():
    modern = "module m #(parameter W = 4, D = 2) (input clk, rst_n, input signed [W-1:0] x, output reg [D:0] y, z);"
    older = "module m(clk, rst_n, x, y, z); parameter W = 4; parameter D = 2; input clk, rst_n; input signed [W-1:0] x;"
    older += " output [D:0] y, z; reg [D:0] y;"
    body = " always @(posedge clk or negedge rst_n) if (!rst_n) y <= 0; else y <= x; endmodule"
    first, second = (interface(head + body, "m") for head in (modern, older))
    assert [tuple(port) for port in first.ports] == [
        ("clk", "input", "", False), ("rst_n", "input", "", False), ("x", "input", "[W-1:0]", True),
        ("y", "output", "[D:0]", False), ("z", "output", "[D:0]", False),
    ]  # fmt: skip
    assert first.ports == second.ports
    assert (first.clocks, first.resets, first.low) == (("clk",), ("rst_n",), {"rst_n"})
    assert first.parameters == ("localparam W = 4;", "localparam D = 2;") == second.parameters


# Steps and tiers


def test_verireason_worked_numbers():
    grade = hdl.stepped(seconds=40.0).evaluate
    assert grade(fenced(ADDER), BENCH, GOLDEN)[0] == 2.1
    assert grade(fenced(MISTYPED), BENCH, GOLDEN)[0] == 0.0
    assert grade("module x;", BENCH, GOLDEN)[0] == 0.0
    near, details = grade(fenced(BROKEN), BENCH, GOLDEN)
    # of six statements (header, three ports, an assignment, the end) five are the golden design's, two of a pair alike
    assert details["coverage"] == pytest.approx(5 / 6)
    assert near == pytest.approx(0.1 + 0.7 * (2 * 5 / 12) + 0.3 * 5 / 6 - 0.2 * 1 / 6)
    far = grade(fenced("module adder(input p, output q); reg r; always @(posedge p) r <= ~r; endmodule"), BENCH, GOLDEN)
    assert far[0] == 0.0 or 0.1 <= far[0] < near


def test_verireason_likeness_is_1_of_itself_and_0_of_what_shares_nothing():
    assert alike(ADDER, ADDER)["likeness"] == 1.0
    assert alike("assign x = y;", "reg q;")["likeness"] == 0.0
    assert alike(ADDER.replace(";", " ; // sum\n"), ADDER)["likeness"] == 1.0


def test_verireason_vectors_are_compared_as_numbers_in_equal_count():
    assert agreement("0x1F\n 5 // five\nq = 1", "31\n0b101\nq  =  1") == 1.0
    assert agreement("1\n2\n3\n4", "1\n2\n3\n5") == 0.75
    assert agreement("1", "1\n2\n3") == 0.0  # over the shorter of the two it would be 1
    assert agreement("", "1") == agreement("1\n2", "1") == 0.0


def test_verireason_by_vectors_end_to_end():
    bench = """
    module tb; reg [3:0] a, b; wire [4:0] s; integer f, i; adder dut(.a(a), .b(b), .s(s));
    initial begin f = $fopen("test_vectors.txt", "w");
    for (i = 0; i < 4; i = i + 1) begin a = i; b = 9; #1 $fdisplay(f, "%0d", s); end $fclose(f); end endmodule"""
    vectors = "9\n10 // ten\n0xB\n12\n"
    grade = hdl.stepped(vectors="vectors", seconds=40.0)
    assert grade.reads == ("completion", "testbench", "reference", "vectors")
    assert grade.evaluate(fenced(ADDER), bench, ADDER, vectors)[0] == 2.1
    found, details = grade.evaluate(fenced(BROKEN), bench, ADDER, vectors)
    assert 0.1 < found < 1.1
    assert details["matched"] == 0.0
    half = grade.evaluate(fenced(ADDER.replace("a + b", "a < 2 ? a + b : 0")), bench, ADDER, vectors)
    assert (half[0] < 1.1, half[1]["matched"]) == (True, 0.5)
    forged = BODY.format('initial begin $display("9"); end')
    assert grade.evaluate(fenced(forged), bench, ADDER, vectors)[0] == 0.0
    with pytest.raises(Abstain, match="golden design"):
        grade.evaluate(fenced(ADDER), bench, ADDER, "1\n2\n3\n")


def test_chipseek_improvement_worked_numbers():
    golden = {"power": 4.0, "delay": 2.0, "area": 8.0}
    assert hdl.improvement({**golden, "power": 2.0}, golden) == pytest.approx(2 ** (1 / 3) - 1)
    assert hdl.improvement(golden, golden) == 0.01
    assert hdl.improvement({"power": 9.0, "delay": 9.0, "area": 9.0}, golden) == 0.01
    assert hdl.improvement({"power": 2.0, "delay": 1.0, "area": 4.0}, golden) == 0.6
    assert hdl.improvement(golden, {**golden, "delay": 0.0}) == 0.1
    assert hdl.improvement({**golden, "delay": 0.0}, golden) == 0.0
    for wrong in ({"power": 1.0}, {**golden, "area": -1.0}, {**golden, "area": math.inf}):
        with pytest.raises(ValueError, match="0 or more"):
            hdl.improvement(wrong, golden)


def test_chipseek_tiers_with_a_flow_of_ones_own(yosys):
    costs = {"half": 1.0, "same": 2.0, "worse": 9.0}

    def measure(design, module):
        if "unsynthesised" in design:
            raise ValueError("no cells")
        return {"power": next((c for name, c in costs.items() if name in design), 2.0), "delay": 1.0, "area": 1.0}

    grade = hdl.hierarchy(measure=measure, seconds=40.0).evaluate
    marked = {name: ADDER.replace("endmodule", f"// {name}\nendmodule") for name in (*costs, "unsynthesised")}
    assert grade(fenced(marked["half"]), BENCH, GOLDEN)[0] == pytest.approx(1.4 + 2 ** (1 / 3) - 1)
    assert grade(fenced(marked["same"]), BENCH, GOLDEN)[0] == pytest.approx(1.41)
    assert grade(fenced(marked["worse"]), BENCH, GOLDEN)[0] == pytest.approx(1.41)
    assert grade(fenced(marked["unsynthesised"]), BENCH, GOLDEN)[0] == 1.0
    assert grade(fenced(BROKEN), BENCH, GOLDEN)[0] == 0.2
    assert grade(fenced(MISTYPED), BENCH, GOLDEN)[0] == 0.0


def test_chipseek_end_to_end_a_smaller_design_pays_more_and_an_empty_one_does_not(yosys):
    wasteful = GOLDEN.replace("a + b", "(a | b) + (a & b) + (a ^ a)")
    grade = (format.template(answer="tag") + hdl.hierarchy(seconds=20.0)).named("total")
    designs = [ADDER, ADDER.replace("a + b", "(a | b) + (a & b)"), BODY.format(""), BROKEN, MISTYPED]
    rows = Rollouts(
        ["?"] * 5,
        [f"<think>hm</think><answer>\n```verilog\n{design}\n```\n</answer>" for design in designs],
        {"testbench": [BENCH] * 5, "reference": [wasteful] * 5},
    )
    with Engine(workers=1) as engine:
        best, like, empty, wrong, broken = engine.score(grade, rows).read(-1)
    assert best > like >= 1 + 1.41
    assert (empty, wrong, broken) == (1.2, 1.2, 1.0)


def test_the_cost_of_an_and_gate_is_one_cell_one_level_six_transistors(yosys):
    assert cost("module a(input x, y, output z); assign z = x & y; endmodule", "a", 20.0, 512) == (1.0, 1.0, 6.0)
    chain = "module a(input w, x, y, output z); assign z = (w & x) ^ y; endmodule"
    assert cost(chain, "a", 20.0, 512)[:2] == (2.0, 2.0)


# Equivalence

COUNTER = """
module count(input clk, input rst, output reg [2:0] q);
  always @(posedge clk or posedge rst) if (rst) q <= 0; else q <= q + 1;
endmodule"""
ONE_HOT = """
module ring(input clk, input rst, output [2:0] q);
  reg [7:0] r;
  always @(posedge clk or posedge rst) if (rst) r <= 1; else r <= {r[6:0], r[7]};
  assign q = {|r[7:4], |(r & 8'hCC), |(r & 8'hAA)};
endmodule"""


def equal(design, golden=ADDER, **options):
    return hdl.equivalent(seconds=40.0, **{"sequences": 8, "steps": 200, **options}).evaluate(fenced(design), golden)


@pytest.mark.parametrize("method", ["simulation", "proof"])
@pytest.mark.parametrize(
    ("design", "golden", "expected"),
    [
        (ADDER.replace("a + b", "{1'b0, a} - ~{1'b0, b} - 5'd1"), ADDER, 1.0),
        (BROKEN, ADDER, 0.0),
        (ADDER.replace("adder", "summer"), ADDER, 1.0),
        (ADDER.replace("output [4:0] s", "output [4:0] t").replace("assign s", "assign t"), ADDER, 0.0),
        (COUNTER.replace("q + 1", "q - 7"), COUNTER, 1.0),
        (COUNTER.replace("q + 1", "q + 2"), COUNTER, 0.0),
        (COUNTER.replace("@(posedge clk", "@(negedge clk"), COUNTER, 0.0),
        (COUNTER.replace("posedge clk or posedge rst", "posedge clk"), COUNTER, 0.0),
        (MISTYPED, ADDER, 0.0),
        (BODY.format("assign s = 5'bx;"), ADDER, 0.0),
        (ADDER, ["module adder(output s); assign s = 1; endmodule", ADDER], 1.0),
        (ADDER, json.dumps([BROKEN, ADDER]), 1.0),
        (ADDER, [ADDER, BROKEN], 1.0),
        (BODY.format("assign s = a - a;"), BODY.format("assign s = 0;"), 1.0),  # inputs are known
        (BODY.format('initial $display("equivalent");'), ADDER, 0.0),
    ],
)
def test_codev_equivalence(yosys, method, design, golden, expected):
    assert equal(design, golden, method=method)[0] == expected


def test_codev_other_states_with_the_same_outputs_are_equivalent(yosys):
    assert equal(ONE_HOT.replace("ring", "count"), COUNTER)[0] == 1.0
    outcome = hdl.equivalent(method="proof", undecided="floor", seconds=40.0).evaluate(fenced(ONE_HOT), COUNTER)[1]
    assert outcome["outcome"] in ("equivalent", "undecided")
    wrong = ONE_HOT.replace("8'hCC", "8'hC4")
    assert equal(wrong, COUNTER, method="proof")[1]["outcome"] == "different"


def test_codev_resets_come_in_the_middle_too():
    """A design that needs two cycles of reset: between resets that long, and under one, it is alike."""
    golden = """module m(input clk, rst, output [7:0] y); reg [7:0] q; assign y = rst ? 8'd0 : q;
      always @(posedge clk) if (rst) q <= 0; else q <= q + 1; endmodule"""
    slow = golden.replace("if (rst)", "begin last <= rst; if (rst & last)").replace("+ 1;", "+ 1; end")
    assert equal(slow.replace("reg [7:0] q;", "reg [7:0] q; reg last;"), golden)[0] == 0.0


def test_codev_a_rare_difference_is_found_by_proof_and_its_rate_by_simulation(yosys):
    golden = "module m(input [15:0] a, output [15:0] y); assign y = a + 1; endmodule"
    rare = golden.replace("a + 1", "a + 1 + (a[15:8] == 8'h42)")
    found, details = equal(rare, golden, steps=2000)
    assert found == 0.0
    assert details["errors"] == pytest.approx(1 / 256, rel=0.5)
    rarest = golden.replace("a + 1", "a + 1 + (a == 16'h4242)")
    assert equal(rarest, golden, method="proof")[0] == 0.0


TOGGLE = """
module toggle(input clk, input rst, output y);
  reg q; initial q = 0;
  always @(posedge clk) q <= q ^ rst;
  assign y = q;
endmodule"""
MAYBE = TOGGLE.replace("q ^ rst", "rst ? 1'bx : 1'b0").replace("y = q", "y = q === 1'bx")
RESET = TOGGLE.replace("posedge clk)", "posedge clk or posedge rst) if (rst) q <= 1; else").replace("q ^ rst", "~q")


@pytest.mark.parametrize(
    ("golden", "change", "expected"),
    [
        (TOGGLE, ("q ^ rst", "rst ? ~q : q"), 1.0),
        (TOGGLE, ("q = 0", "q = 1"), 0.0),  # all else is the same: only the beginning tells
        (TOGGLE, ("initial q = 0;", ""), 0.0),  # unknown where the golden one is not
        (TOGGLE.replace("initial q = 0;", ""), ("reg q;", "reg q; initial q = 1;"), 1.0),
        (TOGGLE, ("posedge", "negedge"), 0.0),
        (TOGGLE, ("y = q", "y = q | clk & ~clk"), 1.0),
        (MAYBE, ("rst ? 1'bx : 1'b0", "1'b0"), 0.0),  # y tells what is unknown from what is not
        (RESET, ("q <= 1", "q <= 1'b1"), 1.0),
        (RESET, ("q <= 1", "q <= 0"), 0.0),
        (RESET, ("posedge rst", "negedge rst"), 0.0),
        (RESET, ("if (rst)", "if (~rst)"), 0.0),
        (RESET, ("posedge clk or posedge rst", "posedge clk"), 0.0),
    ],
)
def test_a_proof_minds_where_flip_flops_begin_their_edges_and_their_resets(yosys, golden, change, expected):
    assert golden.count(change[0]) == 1
    score, found = equal(golden.replace(*change), golden, method="proof")
    assert (score, found["reason"]) == (
        expected,
        "proven by induction" if expected else "a sequence of inputs tells them apart",
    )


def test_a_proof_sees_what_is_built_alike_without_a_search(yosys):
    golden = """module power(input clk, load, input [23:0] a, b, output reg [23:0] q);
      always @(posedge clk) q <= load ? a * b : q * q + a; endmodule"""
    alike = golden.replace("always", "wire [23:0] square = q * q; always").replace("q * q + a;", "square + a;")
    assert equal(alike, golden, method="proof")[0] == 1.0


@pytest.mark.parametrize("vacuous", ["wire w; assign w = ~w; assign s = a - b;", "assign s = 0; assign s = 31;"])
def test_a_contradiction_in_a_design_proves_nothing(yosys, vacuous):
    assert equal(BODY.format(vacuous), method="proof")[0] == 0.0


def test_codev_unknown_outputs_differ_unless_they_are_free():
    golden = "module m(input a, output y); assign y = a ? 1'bx : 1'b0; endmodule"
    zero = golden.replace("a ? 1'bx : 1'b0", "1'b0")
    assert equal(zero, golden)[0] == 0.0
    assert equal(zero, golden, unknown="free")[0] == 1.0
    assert equal(golden, zero, unknown="free")[0] == 0.0


def test_a_proof_that_finds_neither_abstains_or_gets_the_floor(yosys):
    golden = """module m(input clk, input rst, output y); reg [7:0] q;
      always @(posedge clk) if (rst) q <= 0; else q <= q + 1; assign y = q == 8'hFF; endmodule"""
    late = (
        golden.replace("8'hFF", "8'hFE")
        .replace("reg [7:0] q", "reg [7:0] p")
        .replace("q <=", "p <=")
        .replace("<= q", "<= p")
    )
    late = late.replace("q ==", "p ==")
    with pytest.raises(Abstain, match="undecided"):
        equal(late, golden, method="proof", depth=4)
    assert equal(late, golden, method="proof", depth=4, undecided="floor")[1]["outcome"] == "undecided"
    assert equal(late, golden, steps=2000)[0] == 0.0


@pytest.mark.parametrize(
    ("golden", "reason"),
    [
        ("nothing here", "no module|not usable"),
        (None, "not a design"),
        ([], "empty"),
        ("module m(input a, inout y); endmodule", "port is not read"),
        ("module m(input clk_a, clk_b, output y); assign y = clk_a; endmodule", "several clocks"),
        (ADDER.replace("a + b", "undeclared.a + b"), "not usable"),
    ],
)
def test_a_golden_design_that_cannot_be_used_is_an_abstention(golden, reason):
    with pytest.raises(Abstain, match=reason):
        equal(ADDER, golden)


def test_codev_end_to_end_an_adaptive_fill_keeps_the_groups_that_vary():
    form = format.tags("think", "answer", outside="accept")
    judge = form * hdl.equivalent(sequences=2, steps=20, seconds=40.0)
    good = f"<think>+</think><answer>\n```verilog\n{ADDER}\n```\n</answer>"
    bad = good.replace("+ b", "- b")
    untagged = good.replace("<think>+</think>", "")
    kinds = {"mixed": [good, bad], "solved": [good, good], "hard": [bad, untagged]}
    pace = Pace(most=9)

    def sample(rows):
        prompts = [row["prompt"] for row in rows for _ in range(2)]
        replies = [reply for row in rows for reply in kinds[row["prompt"]]]
        batch = Rollouts(
            prompts, replies, {"reference": [ADDER] * len(prompts)}, groups=np.repeat(np.arange(len(rows)), 2)
        )
        return batch, judge.score(batch, engine=engine)

    with Engine(workers=1) as engine:
        batch = fill(Shuffled([{"prompt": kind} for kind in kinds], varied()), 3, sample, Context(), pace=pace)
    assert set(batch.rollouts.prompts) == {"mixed"}
    assert batch.kept == 3
    assert batch.rounds == 2  # three prompts, of which one varies; then ⌈2 / (1/3)⌉ = 6, of which two do
    assert (batch.sampled, pace.share, pace.within) == (9, pytest.approx(1 / 3), 1.0)


# The pace of resampling


def test_codev_pace_worked_numbers():
    pace = Pace(most=1000)
    assert pace.ask(128) == 128
    pace.saw(kept=32, sampled=128)
    assert pace.ask(96) == 384
    pace.saw(kept=192, sampled=384)  # the share only falls
    assert pace.ask(10) == 40
    pace.filled(kept=224, sampled=512)
    assert pace.ask(7) == 16
    pace.saw(kept=0, sampled=16)
    assert pace.ask(7) == 1000


def test_codev_pace_takes_fewer_rounds_than_batches_of_a_fixed_size():
    rng = np.random.default_rng(0)

    def rounds(pace, wanted=128, rate=0.3):
        missing, count, kept, sampled = wanted, 0, 0, 0
        while missing > 0:
            drawn = wanted if pace is None else pace.ask(missing)
            good = rng.binomial(drawn, rate)
            if pace is not None:
                pace.saw(kept=good, sampled=drawn)
            count, missing, kept, sampled = count + 1, missing - good, kept + good, sampled + drawn
        if pace is not None:
            pace.filled(kept=kept, sampled=sampled)
        return count

    pace = Pace(most=4096)
    adaptive = [rounds(pace) for _ in range(200)]
    assert np.mean([rounds(None) for _ in range(200)]) > 3.5
    assert np.mean(adaptive) < 2
    assert np.mean(adaptive[100:]) < 1.5


def test_a_pace_is_saved_and_refuses_what_cannot_be_meant():
    pace = Pace(most=8, share=0.5)
    other = Pace(most=8)
    other.load_state_dict(json.loads(json.dumps(pace.state_dict())))
    assert other == pace
    with pytest.raises(ValueError, match="most"):
        Pace(most=0)


# Mutants and options


def test_mutants_change_one_thing_in_the_body():
    text = "module m(input clk, input [3:0] a, output reg q); "
    text += "always @(posedge clk) if (a == 4'd3) q <= a[0] & q; endmodule"
    found = {(mutant.operator, mutant.change) for mutant in hdl.mutants(text)}
    assert found == {
        ("edge", "posedge → negedge"), ("comparison", "== → !="), ("constant", "'d3 → 'd4"), ("operation", "& → |"),
        ("negation", "a == 4'd3 → !(a == 4'd3)"), ("negation", "a[0] & q → ~(a[0] & q)"),
    }  # fmt: skip
    assert all(mutant.text != text for mutant in hdl.mutants(text))
    most = "module m(output [1:0] q, output r); assign q = 2'd3; assign r = 1'b0 ; endmodule"
    assert [mutant.change for mutant in hdl.mutants(most, ("constant",))] == ["'d3 → 'd2", "'b0 → 'b1"]
    assert [mutant.operator for mutant in hdl.mutants(text, ("edge",))] == ["edge"]


def test_rewards_of_designs_are_data_and_back():
    for leaf in (hdl.testbench(module="m"), hdl.equivalent(method="proof"), hdl.stepped(vectors="v"), hdl.hierarchy()):
        assert spec.load(spec.dump(leaf)) == leaf


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hdl.testbench(seconds=0), "positive"),
        (lambda: hdl.testbench(passed="("), "regular expression"),
        (lambda: hdl.testbench(shared="m"), "list of names"),
        (lambda: hdl.testbench(reference=None, vectors="v"), "vectors"),
        (lambda: hdl.equivalent(steps=0), "positive"),
        (lambda: hdl.equivalent(method="x"), "one of"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
