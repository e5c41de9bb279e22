"""How much faster a scoring is whose scores are in the cache; prints one line of JSON.

    python benchmarks/score_cache.py [--rows 2000] [--milliseconds 5] [--workers 2] [--lane process|async|batch]

The same rows are scored twice, by two engines that share a cache and nothing else. Each row takes the given
time and has some evidence. Both times count from the call to the scores, starting workers included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.core import Rollouts, Scores
from guerdon.engine import Engine

COMPLETION = "Step by step: " + "the sum of the parts is the whole. " * 40


@dataclass(frozen=True)
class Slow:
    seconds: float
    lane: str
    name: str = "slow"
    range: tuple[float, float] = (0.0, 1e9)
    floor: float = 0.0
    scope: str = "row"
    level: str = "rollout"
    requires: frozenset[str] = frozenset({"completion"})
    reads: tuple[str, ...] = ("completion",)
    unit: str = "row"
    deadline: float | None = None
    rate: float | None = None
    retries: int = 0
    retry_on: tuple[type[BaseException], ...] | None = None
    differentiable: bool = False

    def identity(self) -> str:
        return f"slow, of the benchmark, {self.seconds} s"

    def evaluate(self, completion: str) -> Any:
        if self.lane == "async":
            return self.awaited(completion)
        time.sleep(self.seconds)
        return outcome(completion)

    async def awaited(self, completion: str) -> Any:
        await asyncio.sleep(self.seconds)
        return outcome(completion)

    def check(self) -> None:
        pass

    def measure(self, rollouts: Rollouts, context: Any) -> Scores:
        time.sleep(self.seconds * len(rollouts))
        values, details = zip(*map(outcome, rollouts.column("completion")), strict=True)
        return Scores(np.array(values), details={name: [found[name] for found in details] for name in details[0]})


def outcome(completion: str) -> tuple[float, dict[str, Any]]:
    return float(completion.split()[-1]), {"extracted": completion.split()[-1], "parsed": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--milliseconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lane", choices=["process", "async", "batch"], default="process")
    options = parser.parse_args()
    n, leaf = options.rows, Slow(options.milliseconds / 1000, options.lane)
    rollouts = Rollouts([""] * n, [f"{COMPLETION}{i}" for i in range(n)])
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            with Engine(workers=options.workers, cache=Path(folder) / "scores.sqlite") as engine:
                start = time.perf_counter()
                scores = engine.measure({leaf: np.ones(n, bool)}, rollouts)[leaf]
                seconds.append(time.perf_counter() - start)
            assert scores.read(fill=-1).tolist() == list(range(n))
    first, second = seconds
    report = {
        "rows": n,
        "milliseconds_per_row": options.milliseconds,
        "workers": options.workers,
        "lane": options.lane,
        "first_s": round(first, 4),
        "second_s": round(second, 4),
        "second_us_per_row": round(second / n * 1e6, 1),
        "speed_up": round(first / second, 1),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
