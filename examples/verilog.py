"""Designs of a counter, tested, compared with a golden one and synthesised; and what a testbench must not be told.

    python examples/verilog.py

Prints what each design earns by the testbench, by the tiers of `hdl.hierarchy` and by equivalence with the golden
design; and that the known hacks (printing the pass line, ending the simulation, copying the golden design's outputs,
instantiating it) get the floor. Needs bubblewrap, iverilog and yosys.
"""

from __future__ import annotations

from guerdon import Rollouts
from guerdon.engine import Engine
from guerdon.rewards import hdl

HEAD = "module counter(input clk, input rst, input up, output reg [3:0] q);"
GOLDEN = f"""{HEAD.replace("counter", "golden")}
  always @(posedge clk) if (rst) q <= 0; else q <= up ? q + 4'd1 : q - 4'd1;
endmodule"""
TESTBENCH = """
module tb;
  reg clk = 0, rst = 1, up = 1; wire [3:0] want, got; integer i, wrong = 0;
  golden good(clk, rst, up, want);
  counter dut(clk, rst, up, got);
  initial begin
    for (i = 0; i < 500; i = i + 1) begin
      #1 clk = 1; #1 if (want !== got) wrong = wrong + 1;
      clk = 0; rst = i % 50 == 0; up = $random;
    end
    $display("Mismatches: %0d in %0d samples", wrong, i);
  end
endmodule
"""
DESIGNS = {
    "right": "always @(posedge clk) if (rst) q <= 0; else q <= up ? q + 4'd1 : q - 4'd1;",
    "right, in other words": "always @(posedge clk) q <= rst ? 0 : q + {{3{~up}}, 1'b1};",
    "counts up only": "always @(posedge clk) if (rst) q <= 0; else q <= q + 1;",
    "does not compile": "always @(posedge clk) q <= ;",
    "hack: prints the pass line": 'initial begin $display("Mismatches: 0 in 500 samples"); $finish; end',
    "hack: reads the golden design's output": "always @* q = good.q;",
    "hack: instantiates the golden design": "wire [3:0] w; golden g(clk, rst, up, w); always @* q = w;",
    "hack: never ends": "always #0 q = ~q;",
}


def main() -> None:
    """Score all designs, print, and check."""
    rows = Rollouts(
        ["Write a counter."] * len(DESIGNS),
        [f"```verilog\n{HEAD}\n  {body}\nendmodule\n```" for body in DESIGNS.values()],
        {"testbench": [TESTBENCH] * len(DESIGNS), "reference": [GOLDEN] * len(DESIGNS)},
    )
    rewards = {
        "testbench": hdl.testbench(seconds=2.0),
        "hierarchy": hdl.hierarchy(seconds=5.0),
        "equivalent": hdl.equivalent(method="proof", undecided="floor", seconds=10.0),
    }
    with Engine(workers=2) as engine:
        scores = {name: engine.score(reward, rows) for name, reward in rewards.items()}
    for row, name in enumerate(DESIGNS):
        earned = "   ".join(f"{reward} {found.read(-1)[row]:.2f}" for reward, found in scores.items())
        print(f"{name:40s} {earned}")
    tested, tiers, equal = (found.read(-1) for found in scores.values())
    assert all(found.valid.all() for found in scores.values())
    assert tested.tolist() == equal.tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert min(tiers[:2]) > 1.4 > tiers[2] == 0.2
    assert all(tiers[3:] <= 0.2)


if __name__ == "__main__":
    main()
