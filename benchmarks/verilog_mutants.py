"""Whether a testbench, or a random simulation, notices every mutant that Yosys proves to differ.

    python benchmarks/verilog_mutants.py [designs.jsonl.gz] [--into runs/verilog_mutants.jsonl] [--workers 2]
        [--seconds 20] [--most 100]

All mutants of all operators of `hdl.mutants`, of all references, 921 for VerilogEval's; about an hour on one slow core.
Each is a line of the file once its fate is known, so that the next run goes on where one was stopped; it also tries
again what was undecided in fewer seconds. Then prints one line of JSON, in which

    different     proven by Yosys to differ from the reference; what noticed them is counted apart:
    testbench     the reference's testbench
    simulation    not the testbench, but `hdl.equivalent` by random simulation
    unnoticed     neither: there should be none; listed
    equivalent    proven to be equivalent
    refused       Yosys makes no design of them that means one thing: combinational loops, two drivers
    undecided     neither a difference nor a proof in time; listed
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from guerdon.core.errors import Abstain
from guerdon.rewards import hdl

SHARED = Path(os.environ.get("GUERDON_SHARED", Path(__file__).resolve().parents[2] / "shared"))
KEY = ("design", "operator", "place")


def fate(row: dict[str, Any], mutant: str, seconds: float) -> tuple[str, str]:
    """What becomes of a mutant, and why."""
    answer = f"```verilog\n{mutant.replace('RefModule', 'TopModule')}\n```"
    try:
        _, found = hdl.equivalent(method="proof", seconds=seconds).evaluate(answer, row["reference"])
    except Abstain as error:
        return "undecided", str(error)
    if found["outcome"] == "equivalent":
        return "equivalent", found["reason"]
    if not found["reason"].startswith("a sequence"):
        return "refused", found["reason"]
    passes, seen = hdl.testbench().evaluate(answer, row["testbench"], row["reference"])
    if not passes:
        return "testbench", seen["reason"]
    try:
        alike, found = hdl.equivalent(sequences=20, steps=500).evaluate(answer, row["reference"])
    except Abstain as error:
        return "unnoticed", str(error)
    return "unnoticed" if alike else "simulation", found["reason"]


def followed(task: tuple[dict[str, Any], hdl.Mutant, float]) -> dict[str, Any]:
    """The line of a mutant."""
    row, mutant, seconds = task
    what, why = fate(row, mutant.text, seconds)
    key = dict(zip(KEY, (row["name"], mutant.operator, mutant.place), strict=True))
    return {**key, "change": mutant.change, "fate": what, "why": why, "seconds": seconds}


def known(file: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The last line of each mutant; one that a kill tore is cut off."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    return {tuple(line[name] for name in KEY): line for line in map(json.loads, whole.splitlines())}


def summary(lines: list[dict[str, Any]], mutants: int) -> dict[str, Any]:
    counts = Counter(line["fate"] for line in lines)
    noticed = {what: counts[what] for what in ("testbench", "simulation", "unnoticed")}
    others = {what: counts[what] for what in ("equivalent", "refused", "undecided")}
    listed = {
        what: [f"{line['design']}: {line['operator']} at {line['place']}" for line in some]
        for what in ("unnoticed", "undecided")
        if (some := [line for line in lines if line["fate"] == what])
    }
    done = {"mutants": mutants, "followed": len(lines), "different": sum(noticed.values())}
    return {**done, **noticed, **others, "listed": listed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("designs", nargs="?", type=Path, default=SHARED / "data" / "verilog_eval.jsonl.gz")
    parser.add_argument("--into", type=Path, default=Path("runs", "verilog_mutants.jsonl"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="for a proof")
    parser.add_argument("--most", type=int, help="mutants in this run. Default: all that are left")
    arguments = parser.parse_args()
    with gzip.open(arguments.designs, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    tasks = {
        (row["name"], mutant.operator, mutant.place): (row, mutant, arguments.seconds)
        for row in rows
        for mutant in hdl.mutants(row["reference"])
    }
    found = known(arguments.into)
    left = [
        task
        for key, task in tasks.items()
        if key not in found or (found[key]["fate"] == "undecided" and found[key]["seconds"] < arguments.seconds)
    ][: arguments.most]
    arguments.into.parent.mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool(arguments.workers) as pool, arguments.into.open("a", encoding="utf-8") as file:
        for count, line in enumerate(pool.imap_unordered(followed, left), 1):
            print(json.dumps(line), file=file, flush=True)
            sys.stderr.write(f"\r{count} of {len(left)}: {line['design']} {line['fate']}\x1b[K")
    print(file=sys.stderr)
    lasting = known(arguments.into)
    print(json.dumps(summary([lasting[key] for key in tasks if key in lasting], len(tasks))))


if __name__ == "__main__":
    main()
