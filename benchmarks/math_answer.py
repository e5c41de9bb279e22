"""`math.answer` against TRL's `accuracy_reward` and plain math-verify on GSM8K solutions; prints one line of JSON.

    python benchmarks/math_answer.py [--data FOLDER] [--rows 2638] [--repeats 5]

All score the same solutions, each with its final answer in `\\boxed{…}` because TRL reads no `A: 18`, on one core,
in turn; the median of the repeats counts. 'function' is the reward's own function called in a loop, 'engine' is the
reward as a user calls it, through an engine with one worker that is up already. What `math.answer` remembers of
answers is forgotten before each repeat: the function's caches are cleared, the engine gets a new worker.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guerdon.core import Rollouts
from guerdon.engine import Engine
from guerdon.rewards import math

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
WARM = Rollouts(["", ""], ["\\boxed{1}", "\\boxed{x}"], {"answer": ["1", "x"]})
LAST_LINE = re.compile(r"\nA: ([^\n]*)\s*$")


def solutions(folder: Path, rows: int) -> list[dict[str, Any]]:
    """The first solutions, with boxes."""
    with gzip.open(folder / "gsm8k_solutions.jsonl.gz", "rt", encoding="utf-8") as lines:
        read = [json.loads(line) for line, _ in zip(lines, range(rows), strict=False)]
    return [row | {"completion": LAST_LINE.sub(r"\n\\boxed{\1}", row["completion"])} for row in read]


def forget() -> None:
    """Clear what the functions of `guerdon.rewards.math` remember of answers and references."""
    for name, module in list(sys.modules.items()):
        if name.startswith("guerdon.rewards.math"):
            for thing in vars(module).values():
                if hasattr(thing, "cache_clear") and thing.cache_info().maxsize:
                    thing.cache_clear()


def timed(work: Callable[[], list[Any]]) -> tuple[float, list[bool]]:
    start = time.perf_counter()
    scores = work()
    return time.perf_counter() - start, [bool(score) for score in scores]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--rows", type=int, default=2638)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})

    from math_verify import parse, verify
    from trl.rewards import accuracy_reward

    logging.disable(logging.WARNING)
    rows = solutions(options.data, options.rows)
    completions, answers = [row["completion"] for row in rows], [row["answer"] for row in rows]
    chats = [[{"role": "assistant", "content": text}] for text in completions]
    rollouts = Rollouts([""] * len(rows), completions, {"answer": answers})
    reward = math.answer()

    def function() -> list[Any]:
        return [reward.evaluate(*row)[0] for row in zip(completions, answers, strict=True)]

    def library() -> list[Any]:
        return [verify(parse(a), parse(c)) for c, a in zip(completions, answers, strict=True)]

    def trl() -> list[Any]:
        return list(accuracy_reward(chats, answers))

    times: dict[str, list[float]] = {"function": [], "engine": [], "trl": [], "math_verify": []}
    verdicts: dict[str, list[bool]] = {}
    function(), accuracy_reward(chats[:20], answers[:20])
    for _ in range(options.repeats):
        forget()
        with Engine(workers=1) as engine:
            engine.score(reward, WARM)
            ways: dict[str, Callable[[], list[Any]]] = {
                "function": function,
                "engine": lambda engine=engine: engine.score(reward, rollouts).read(-1.0).tolist(),  # type: ignore[misc]
                "trl": trl,
                "math_verify": library,
            }
            for name, work in ways.items():
                seconds, verdicts[name] = timed(work)
                times[name].append(seconds)
    median = {name: statistics.median(values) for name, values in times.items()}
    labels = [bool(row["is_correct"]) for row in rows]
    report = {
        "rows": len(rows),
        "repeats": options.repeats,
        **{f"{name}_us_per_row": round(value / len(rows) * 1e6, 2) for name, value in median.items()},
        "trl_over_function": round(median["trl"] / median["function"], 1),
        "trl_over_engine": round(median["trl"] / median["engine"], 1),
        "math_verify_over_function": round(median["math_verify"] / median["function"], 1),
        "math_verify_over_engine": round(median["math_verify"] / median["engine"], 1),
        "disagreements": {
            name: sum(a != b for a, b in zip(verdicts["function"], verdicts[name], strict=True))
            for name in ("engine", "trl", "math_verify")
        },
        "against_label": {
            name: sum(a != b for a, b in zip(verdict, labels, strict=True)) for name, verdict in verdicts.items()
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
