"""What the process lane costs per row beyond the function's own time; prints one line of JSON.

    python benchmarks/engine_overhead.py [--rows 200000] [--workers 2] [--repeats 5]

The engine, a plain loop, and `ProcessPoolExecutor.map(chunksize=1000)` score the same rows with the same
trivial function, in turn, with warm workers; the median of the repeats counts. 'overhead' is the engine's
wall time × its workers less the loop's time: processor time per row that the function did not ask for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from guerdon.core import Rollouts, Scores
from guerdon.engine import Engine


def exact(completion: str, answer: str) -> float:
    return 1.0 if completion.strip() == answer else 0.0


@dataclass(frozen=True)
class Exact:
    name: str = "exact"
    lane: str = "process"
    range: tuple[float, float] = (0.0, 1.0)
    floor: float = 0.0
    scope: str = "row"
    level: str = "rollout"
    requires: frozenset[str] = frozenset({"completion", "answer"})
    reads: tuple[str, ...] = ("completion", "answer")
    unit: str = "row"
    deadline: float | None = None
    differentiable: bool = False

    def evaluate(self, completion: str, answer: str) -> float:
        return exact(completion, answer)

    def check(self) -> None:
        pass

    def measure(self, rollouts: Rollouts, context: Any) -> Scores:
        raise NotImplementedError("runs in the process lane")


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    n = options.rows
    completions = [f" {i % 1000} " for i in range(n)]
    answers = [str(i % 997) for i in range(n)]
    rollouts = Rollouts([""] * n, completions, {"answer": answers})
    demand = {Exact(): np.ones(n, bool)}
    times: dict[str, list[float]] = {"loop": [], "engine": [], "executor": []}
    with Engine(workers=options.workers) as engine, ProcessPoolExecutor(options.workers) as executor:
        ways: dict[str, Callable[[], Any]] = {
            "loop": lambda: [exact(c, a) for c, a in zip(completions, answers, strict=True)],
            "engine": lambda: engine.measure(demand, rollouts),
            "executor": lambda: list(executor.map(exact, completions, answers, chunksize=1000)),
        }
        for work in ways.values():
            work()
        for _ in range(options.repeats):
            for name, work in ways.items():
                times[name].append(seconds(work))
    median = {name: statistics.median(values) for name, values in times.items()}
    report = {
        "rows": n,
        "workers": options.workers,
        **{f"{name}_us_per_row": round(value / n * 1e6, 3) for name, value in median.items()},
        "beyond_loop_us_per_row": round((median["engine"] - median["loop"]) / n * 1e6, 3),
        "overhead_us_per_row": round((options.workers * median["engine"] - median["loop"]) / n * 1e6, 3),
        "engine_over_executor": round(median["engine"] / median["executor"], 3),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
