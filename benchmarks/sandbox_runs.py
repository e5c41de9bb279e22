"""Isolated runs of a one-assert program, against starting an interpreter for each, which isolates nothing.

    python benchmarks/sandbox_runs.py [--runs 300] [--rounds 7] [--workers 2]

Prints one line of JSON: milliseconds per program, medians over rounds in which the ways take turns, and how many times
as fast the isolated ways are as one serial loop of `python -I -S -c`, and as two threads of it. "run" has the program
as a script; "call" loads what it defines, calls it from outside and compares there. benchmarks/code_tests.py is the
same through the reward `code.unit_tests` and the engine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from guerdon.sandbox import Sandbox

DEFINITION = "def double(x):\n    return 2 * x\n"
PROGRAM = f"{DEFINITION}assert double({{0}}) == {{0}} * 2\n"
_box = Sandbox()


def run(numbers: range) -> bool:
    return all(_box.run(PROGRAM.format(number), deadline=5.0).fine for number in numbers)


def call(numbers: range) -> bool:
    for number in numbers:
        with _box.load(DEFINITION, deadline=5.0) as program:
            if program.call("double", number, deadline=5.0) != 2 * number:
                return False
    return True


def bare(number: int) -> bool:
    return subprocess.run([sys.executable, "-I", "-S", "-c", PROGRAM.format(number)], check=False).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    n, workers = arguments.runs, arguments.workers
    shares = [range(start, n, workers) for start in range(workers)]
    with ProcessPoolExecutor(workers) as processes, ThreadPoolExecutor(workers) as threads:
        ways: dict[str, Callable[[], bool]] = {
            "run": lambda: all(processes.map(run, shares)),
            "call": lambda: all(processes.map(call, shares)),
            "serial": lambda: all(map(bare, range(n))),
            "threads": lambda: all(threads.map(bare, range(n))),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(arguments.rounds + 1):
            for name, way in ways.items():
                start = time.perf_counter()
                assert way()
                if turn:  # in the first, the sandboxes start
                    seconds[name].append(time.perf_counter() - start)
    each = {name: statistics.median(taken) / n * 1000 for name, taken in seconds.items()}
    report = {f"{name}_ms": round(milliseconds, 3) for name, milliseconds in each.items()}
    for name in ("run", "call"):
        for other in ("serial", "threads"):
            report[f"{name}_times_{other}"] = round(each[other] / each[name], 2)
    print(json.dumps({"runs": n, "rounds": arguments.rounds, "workers": workers, **report}))


if __name__ == "__main__":
    main()
