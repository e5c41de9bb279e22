"""Verilog designs through the sandbox, against `iverilog` and `vvp` called directly.

    python benchmarks/verilog.py ../shared/data/verilog_eval.jsonl.gz [--rows 40] [--rounds 5]

Prints one line of JSON: milliseconds per design of `hdl.testbench` and of the two commands, medians over rounds in
which they take turns, and their ratio; the design is the reference, so nothing is simulated twice, and the answer's
text differs in each round, so nothing is remembered. `verilog_mutants.py` says what notices a design that is wrong.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from guerdon.rewards import hdl


def answered(reference: str) -> str:
    return f"```verilog\n{reference.replace('RefModule', 'TopModule')}\n```"


def direct(row: dict[str, Any], folder: str) -> bool:
    text = f"{row['testbench']}\n{row['reference']}\n{row['reference'].replace('RefModule', 'TopModule')}"
    Path(folder, "design.sv").write_text(text)
    subprocess.run(["iverilog", "-g2012", "-o", "design.vvp", "design.sv"], cwd=folder, check=True)
    ran = subprocess.run(["vvp", "-n", "design.vvp"], cwd=folder, check=True, capture_output=True)
    return b"Mismatches: 0 in" in ran.stdout


def speed(rows: list[dict[str, Any]], rounds: int) -> dict[str, Any]:
    judge = hdl.testbench().evaluate
    taken: dict[str, list[float]] = {"reward": [], "direct": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            start = time.perf_counter()
            assert all(
                judge(answered(f"// {turn}\n{row['reference']}"), row["testbench"], row["reference"])[0] for row in rows
            )
            middle = time.perf_counter()
            assert all(direct(row, folder) for row in rows)
            if turn:  # in the first, the sandbox starts
                taken["reward"].append((middle - start) / len(rows))
                taken["direct"].append((time.perf_counter() - middle) / len(rows))
    each = {name: statistics.median(some) * 1000 for name, some in taken.items()}
    ratio = round(each["reward"] / each["direct"], 3)
    return {"designs": len(rows), "rounds": rounds, **{f"{k}_ms": round(v, 2) for k, v in each.items()}, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("designs", type=Path, help="JSON lines with name, reference and testbench")
    parser.add_argument("--rows", type=int, default=40, help="how many of those that take less than half a second")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with gzip.open(arguments.designs, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    quick = [row for row in rows if row["name"] != "Prob144_conwaylife"]
    print(json.dumps(speed(quick[: arguments.rows], arguments.rounds)))


if __name__ == "__main__":
    main()
