"""What rows that hang cost a batch; prints one line of JSON.

    python benchmarks/hung_rows.py [--rows 2000] [--hung 20] [--milliseconds 5] [--deadline 0.5] [--workers 2]

The hung rows, spread over the batch, compute for ever. 'ratio' is the wall time over what the batch must
take if nothing is wasted, the last deadline running out alone:

    (work + hung × deadline) ÷ workers + deadline
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from guerdon.core import Rollouts, Scores
from guerdon.engine import Engine


@dataclass(frozen=True)
class Hanging:
    seconds: float
    deadline: float | None
    name: str = "hanging"
    lane: str = "process"
    range: tuple[float, float] = (0.0, 1e9)
    floor: float = 0.0
    scope: str = "row"
    level: str = "rollout"
    requires: frozenset[str] = frozenset({"completion", "hangs"})
    reads: tuple[str, ...] = ("completion", "hangs")
    unit: str = "row"
    differentiable: bool = False

    def evaluate(self, completion: str, hangs: bool) -> float:
        while hangs:
            pass
        time.sleep(self.seconds)
        return float(completion)

    def check(self) -> None:
        pass

    def measure(self, rollouts: Rollouts, context: Any) -> Scores:
        raise NotImplementedError("runs in the process lane")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--hung", type=int, default=20)
    parser.add_argument("--milliseconds", type=float, default=5.0)
    parser.add_argument("--deadline", type=float, default=0.5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    n, leaf = options.rows, Hanging(options.milliseconds / 1000, options.deadline)
    hangs = np.zeros(n, bool)
    hangs[np.random.default_rng(options.seed).choice(n, options.hung, replace=False)] = True
    rollouts = Rollouts([""] * n, [str(i) for i in range(n)], {"hangs": hangs})
    with Engine(workers=options.workers) as engine:
        engine.measure({leaf: ~hangs & (np.arange(n) < 100)}, rollouts)
        start = time.perf_counter()
        scores = engine.measure({leaf: np.ones(n, bool)}, rollouts)[leaf]
        seconds = time.perf_counter() - start
    assert scores.read(fill=-1).tolist() == np.where(hangs, -1, np.arange(n)).tolist()
    assert set(scores.reasons.values()) <= {f"deadline {options.deadline} s"}
    work = (n - options.hung) * leaf.seconds
    bound = (work + options.hung * options.deadline) / options.workers + options.deadline
    report = {
        "rows": n,
        "hung": options.hung,
        "milliseconds_per_row": options.milliseconds,
        "deadline_s": options.deadline,
        "workers": options.workers,
        "wall_s": round(seconds, 3),
        "bound_s": round(bound, 3),
        "ratio": round(seconds / bound, 3),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
