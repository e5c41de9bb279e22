"""Programs in other languages than Python, through the same interface."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from guerdon.sandbox import VERILOG, Sandbox

DESIGNS = Path(__file__).resolve().parents[3] / "shared" / "data" / "verilog_eval.jsonl.gz"


@pytest.fixture(scope="module")
def bench(isolation):
    if shutil.which("iverilog") is None:
        pytest.skip("Icarus Verilog is not installed")
    with Sandbox(languages=(VERILOG,)) as sandbox:
        yield sandbox


def module(body):
    return f"module test; {body} endmodule"


def test_what_a_testbench_prints_is_its_output(bench):
    ran = bench.run(module('initial begin $display("%0d", 6 * 7); $finish; end'), language=VERILOG, deadline=10.0)
    assert (str(ran), ran.stdout) == ("exit code 0", b"42\n")


def test_what_does_not_compile_says_where_and_is_not_run(bench):
    ran = bench.run(module('initial begin $display("42") $finish; end'), language=VERILOG, deadline=10.0)
    assert not ran.fine
    assert b"design.sv:1: syntax error" in ran.stderr
    assert ran.stdout == b""


def test_a_simulation_without_end_is_ended(bench):
    ran = bench.run(module("initial forever #1;"), language=VERILOG, deadline=0.5)
    assert (ran.ended, ran.fine) == ("deadline", False)
    assert bench.run(module('initial $display("next");'), language=VERILOG, deadline=10.0).stdout == b"next\n"


@pytest.mark.parametrize(
    "hostile",
    [
        'integer f; initial begin f = $fopen("/etc/passwd", "r"); if (f) $display("ESCAPED"); end',
        'integer f; initial begin f = $fopen("/usr/lib/x", "w"); if (f) $display("ESCAPED"); end',
        'initial $system("echo ESCAPED");',
    ],
)
def test_a_testbench_reaches_no_more_than_other_programs(bench, hostile):
    assert b"ESCAPED" not in bench.run(module(hostile), language=VERILOG, deadline=5.0).stdout


def test_a_language_that_the_sandbox_was_not_given_is_refused(box):
    with pytest.raises(ValueError, match="none of the tools"):
        box.run("", language=VERILOG, deadline=1.0)


@pytest.mark.skipif(not DESIGNS.exists(), reason="the shared data is not here")
def test_reference_designs_pass_their_testbenches_and_empty_ones_do_not(bench):
    with gzip.open(DESIGNS, "rt", encoding="utf-8") as lines:
        designs = [json.loads(line) for line in lines][:12]
    for design in designs:
        given = f"{design['testbench']}\n{design['reference']}"
        right = design["reference"].replace("RefModule", "TopModule")
        ran = bench.run(f"{given}\n{right}", language=VERILOG, deadline=20.0)
        assert ran.fine, (design["name"], ran.stderr)
        assert b"Mismatches: 0 in" in ran.stdout, (design["name"], ran.stdout[-300:])
        assert not bench.run(given, language=VERILOG, deadline=20.0).fine
