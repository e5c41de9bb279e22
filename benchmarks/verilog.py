"""Verilog designs through the sandbox, against `iverilog` and `vvp` called directly; and what notices mutants.

    python benchmarks/verilog.py ../shared/data/verilog_eval.jsonl.gz [--rows 40] [--rounds 5]
    python benchmarks/verilog.py ../shared/data/verilog_eval.jsonl.gz --mutants 2 [--seconds 6]

The first prints one line of JSON: milliseconds per design of `hdl.testbench` and of the two commands, medians over
rounds in which they take turns, and their ratio; the design is the reference, so nothing is simulated twice, and the
answer's text differs in each round, so nothing is remembered.

The second draws so many mutants of each operator from each reference, and prints for each operator how many Yosys
proves to differ, and how many of these fail the testbench, and how many of the others the random simulation or only the
proof. Mutants that are proven to be equivalent, that Yosys refuses, and that remain undecided are counted apart; those
left undecided are listed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from guerdon.core.errors import Abstain
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


def fate(row: dict[str, Any], mutant: str, seconds: float) -> str:
    answer = answered(mutant)
    try:
        _, found = hdl.equivalent(method="proof", seconds=seconds).evaluate(answer, row["reference"])
    except Abstain as error:
        return f"undecided: {error}"
    if found["outcome"] == "equivalent":
        return "equivalent"
    if not found["reason"].startswith("a sequence"):
        return "refused"
    if not hdl.testbench().evaluate(answer, row["testbench"], row["reference"])[0]:
        return "testbench"
    try:
        simulated = hdl.equivalent(sequences=20, steps=500).evaluate(answer, row["reference"])[0]
    except Abstain:
        return "proof"
    return "proof" if simulated else "simulation"


def survey(rows: list[dict[str, Any]], each: int, seconds: float) -> None:
    fates: dict[str, Counter[str]] = {}
    for row in rows:
        drawn = random.Random(row["name"])
        found: dict[str, list[hdl.Mutant]] = {}
        for mutant in hdl.mutants(row["reference"]):
            found.setdefault(mutant.operator, []).append(mutant)
        for operator, some in sorted(found.items()):
            for mutant in drawn.sample(some, min(each, len(some))):
                what = fate(row, mutant.text, seconds)
                fates.setdefault(operator, Counter())[what.partition(":")[0]] += 1
                if what.startswith("undecided"):
                    print(
                        json.dumps({"name": row["name"], "operator": operator, "change": mutant.change, "fate": what})
                    )
    for operator, counts in sorted(fates.items()):
        caught = {name: counts[name] for name in ("testbench", "simulation", "proof")}
        others = {name: counts[name] for name in ("equivalent", "refused", "undecided")}
        print(json.dumps({"operator": operator, "different": sum(caught.values()), **caught, **others}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("designs", type=Path, help="JSON lines with name, reference and testbench")
    parser.add_argument("--rows", type=int, default=40, help="how many of those that take less than half a second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mutants", type=int, default=0, help="of each operator and design")
    parser.add_argument("--seconds", type=float, default=6.0, help="for a proof")
    arguments = parser.parse_args()
    with gzip.open(arguments.designs, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if arguments.mutants:
        survey(rows, arguments.mutants, arguments.seconds)
    else:
        quick = [row for row in rows if row["name"] != "Prob144_conwaylife"]
        print(json.dumps(speed(quick[: arguments.rows], arguments.rounds)))


if __name__ == "__main__":
    main()
