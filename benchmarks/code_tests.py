"""What isolation costs: one-assert programs by `code.unit_tests` against bare subprocesses; prints one line of JSON.

    python benchmarks/code_tests.py [--programs 200] [--rounds 5] [--workers 2]

The same programs are run (a) by `code.unit_tests` in engine workers, each program in namespaces of its own, (b) by a
serial loop of `subprocess.run([python, "-I", "-S", "-c", …])` without any isolation, and (c) by as many threads of
that loop as there are workers. The three take turns, round by round; medians are given. The first, unmeasured round
starts workers and sandboxes. No two programs are the same, so that nothing is answered from memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from guerdon.core import Rollouts
from guerdon.engine import Engine
from guerdon.rewards import code


def program(number: int) -> tuple[str, str]:
    """A program, and its test."""
    return f"def add(a, b):\n    return a + b + {number} - {number}", f"assert add({number}, 1) == {number + 1}"


def bare(number: int) -> bool:
    source, test = program(number)
    command = [sys.executable, "-I", "-S", "-c", f"{source}\n{test}"]
    return subprocess.run(command, check=False).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    n, workers = arguments.programs, arguments.workers
    seconds: dict[str, list[float]] = {"isolated": [], "serial": [], "threads": []}
    with Engine(workers=workers) as engine, ThreadPoolExecutor(workers) as pool:

        def isolated(numbers: range) -> list[bool]:
            sources, tests = zip(*map(program, numbers), strict=True)
            rollouts = Rollouts([""] * n, list(sources), {"tests": [[test] for test in tests]})
            return [score == 1.0 for score in engine.score(code.unit_tests(), rollouts).read(fill=0.0)]

        ways: dict[str, Callable[[range], list[bool]]] = {
            "isolated": isolated,
            "serial": lambda numbers: list(map(bare, numbers)),
            "threads": lambda numbers: list(pool.map(bare, numbers)),
        }
        isolated(range(-n, 0))
        for turn in range(arguments.rounds):
            numbers = range(turn * n, (turn + 1) * n)
            for name, way in ways.items():
                start = time.perf_counter()
                passed = way(numbers)
                seconds[name].append(time.perf_counter() - start)
                assert all(passed)
    medians = {name: statistics.median(taken) / n * 1000 for name, taken in seconds.items()}
    report = {
        "programs": n,
        "rounds": arguments.rounds,
        "workers": workers,
        **{f"{name}_ms": round(milliseconds, 3) for name, milliseconds in medians.items()},
        "times_serial": round(medians["serial"] / medians["isolated"], 2),
        "times_threads": round(medians["threads"] / medians["isolated"], 2),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
