"""What hostile programs come to, and how long past their deadlines they last; prints one line of JSON.

    python benchmarks/hostile.py [--rounds 1] [--runs 1000]

Each program of tests/sandbox/hostile is run in one warm sandbox, and an ordinary one after it. 'contained'
are those that ended as they must and let nothing out, 'rewarded' those that were given anything; 'next_right'
counts the ordinary programs that were then given all there is. Time past the deadline is from the deadline of
a program, a call or a test to when the caller has its answer, starting the run included. 'runs' ordinary
programs follow; 'left' is what there then is of descriptors and processes that was not there before.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from guerdon.sandbox import Limits, Sandbox

sys.path.append(str(Path(__file__).parents[1] / "tests" / "sandbox"))
from hostile_programs import attempt, ordinary_is_right, programs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args()
    collection = [hostile for hostile in programs() if hostile.runs_here] * options.rounds
    counts = {"contained": 0, "rewarded": 0, "next_right": 0}
    escaped, over = [], []
    with Sandbox(limits=Limits(memory=128 << 20, disk=4 << 20)) as box:
        box.check()
        before = left()
        began = time.perf_counter()
        for hostile in collection:
            outcomes = [attempt(box, hostile) for _ in range(hostile.times)]
            held = all(o.how in hostile.must and "ESCAPED" not in o.text for o in outcomes)
            escaped += [] if held else [hostile.name]
            counts["contained"] += held
            counts["rewarded"] += any(o.rewarded for o in outcomes)
            counts["next_right"] += ordinary_is_right(box, hostile.run)
            over += [o.over for o in outcomes if o.over is not None]
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        right = sum(
            box.run("print(input())", stdin=str(n), deadline=10.0).stdout == b"%d\n" % n for n in range(options.runs)
        )
        each = (time.perf_counter() - began) / max(options.runs, 1)
        after = left()
    late = 1000 * np.array(over)
    report = {
        "programs": len(collection),
        **counts,
        "not_contained": escaped,
        "deadlines": len(over),
        "past_deadline_ms": {
            name: round(float(value), 1)
            for name, value in (("median", np.median(late)), ("p90", np.quantile(late, 0.9)), ("max", late.max()))
        },
        "wall_s": round(seconds, 1),
        "runs": options.runs,
        "runs_right": right,
        "run_ms": round(1000 * each, 2),
        "left": {name: after[name] - before[name] for name in before},
    }
    print(json.dumps(report))


def left() -> dict[str, int]:
    """What a program could leave behind here."""
    time.sleep(0.2)  # for what has just been ended to go
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {"descriptors": len(os.listdir("/proc/self/fd")), "processes": len(found) - 1}


if __name__ == "__main__":
    main()
