"""Box rewards for many rows at once beside a loop over rows; prints one line of JSON.

    python benchmarks/boxes.py [--rows 100000] [--repeats 5]

Each measure of `geometry` is held against plain Python, float by float, that treats broken boxes alike; results agree
to 1e-9. A hundredth of the boxes is broken. `times_loop` is the time of all loops over that of all measures;
`detection` matches three boxes with three by the best assignment, whose loop calls scipy once per row. `replies` reads
the boxes from text first, on both sides one text after the other: finding a bracket and turning words into numbers is
nearly all of its time, so that there is little to gain. Processor time is compared, of the fastest repeat; loops run
once. None of it uses threads.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from guerdon.core import Rollouts
from guerdon.rewards import geometry, grounding

Box = list[float]


def whole(box: Box) -> bool:
    return all(map(math.isfinite, box)) and box[2] > box[0] and box[3] > box[1]


def iou(a: Box, b: Box) -> float:
    if not (whole(a) and whole(b)):
        return 0.0
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def gaussian(point: Box, box: Box) -> float:
    if not (whole(box) and all(map(math.isfinite, point))):
        return 0.0
    x = (point[0] - (box[0] + box[2]) / 2) / (0.5 * (box[2] - box[0]))
    y = (point[1] - (box[1] + box[3]) / 2) / (0.5 * (box[3] - box[1]))
    return math.exp(-0.5 * (x * x + y * y))


def coverage(a: Box, b: Box) -> float:
    if not (whole(a) and whole(b)):
        return 0.0
    distance, shape = 0.0, 1.0
    for low in (0, 1):
        first, second = (0.5 * (a[low + 2] - a[low])) ** 2, (0.5 * (b[low + 2] - b[low])) ** 2
        apart = (a[low] + a[low + 2] - b[low] - b[low + 2]) / 2
        mean = (first + second) / 2
        distance += apart * apart / mean / 8
        shape *= mean / math.sqrt(first * second)
    return math.exp(-distance) / math.sqrt(shape)


def edge_agreement(a: Box, b: Box, size: Box) -> float:
    if not (whole(a) and whole(b) and all(0 < s < math.inf for s in size)):
        return 0.0
    near = [1 - abs(p - q) / size[i % 2] for i, (p, q) in enumerate(zip(a, b, strict=True))]
    return 4 / sum(1 / e for e in near) if min(near) > 0 else 0.0


def inside(point: Box, box: Box) -> float:
    return float(whole(box) and box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3])


def detection(said: list[Box], there: list[Box]) -> float:
    values = [[iou(a, b) for b in there] for a in said]
    rows, columns = linear_sum_assignment(values, maximize=True)
    return sum(values[i][j] for i, j in zip(rows, columns, strict=True)) / max(len(said), len(there))


BRACKET = re.compile(r"\[([^\[\]]*)\]")


def reply(text: str, box: Box) -> float:
    for found in BRACKET.finditer(text.rpartition("</think>")[2]):
        parts = found[1].split(",")
        if len(parts) == 4:
            return iou(list(map(float, parts)), box)
    return 0.0


def best(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    fastest, result = math.inf, None
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        fastest = min(fastest, time.process_time() - start)
    return fastest, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    n, rng = arguments.rows, np.random.default_rng(0)
    low = rng.uniform(0, 900, (n, 3, 2))
    there = np.concatenate([low, low + rng.uniform(20, 100, (n, 3, 2))], -1)
    said = (there + rng.normal(0, 5, there.shape))[:, [2, 0, 1]]
    said[::100, 0, 2] = np.nan
    a, b = said[:, 0].copy(), there[:, 2].copy()
    points, sizes = geometry.centers(a), np.full((n, 2), 1000.0)
    sides: dict[str, tuple[Any, ...]] = {
        "iou": (iou, geometry.iou, a, b),
        "gaussian": (gaussian, geometry.gaussian, points, b),
        "coverage": (coverage, geometry.coverage, a, b),
        "edge_agreement": (edge_agreement, geometry.edge_agreement, a, b, sizes),
        "inside": (inside, geometry.inside, points, b),
    }
    times: dict[str, tuple[float, float]] = {}
    for name, (loop, batched, *columns) in sides.items():
        lists = [column.tolist() for column in columns]
        slow, expected = best(lambda loop=loop, lists=lists: list(map(loop, *lists)), 1)
        fast, found = best(lambda batched=batched, columns=columns: batched(*columns), arguments.repeats)
        assert np.allclose(expected, found, atol=1e-9, rtol=0), name
        times[name] = slow, fast
    total = sum(slow for slow, _ in times.values()) / sum(fast for _, fast in times.values())

    counts = np.full(n, 3)
    sets = [geometry.Sets(boxes.reshape(-1, 4), counts) for boxes in (said, there)]
    lists = [said.tolist(), there.tolist()]
    slow, expected = best(lambda: list(map(detection, *lists)), 1)
    fast, found = best(
        lambda: np.bincount(sets[0].rows, geometry.pair_up(*sets).quality, minlength=n) / 3, min(arguments.repeats, 3)
    )
    assert np.allclose(expected, found, atol=1e-9, rtol=0), "detection"
    times["detection"] = slow, fast

    texts = [f"It is at {json.dumps([round(x, 2) for x in box])}." for box in np.nan_to_num(a).tolist()]
    leaf, rollouts = grounding.iou(), Rollouts([""] * n, texts, {"box": b.tolist()})
    slow, expected = best(lambda: list(map(reply, texts, b.tolist())), 1)
    fast, scores = best(lambda: leaf.measure(rollouts, None), min(arguments.repeats, 3))  # type: ignore[arg-type]
    assert np.allclose(expected, scores.read(0.0), atol=1e-9, rtol=0), "replies"
    times["replies"] = slow, fast
    report = {"rows": n, "times_loop": round(total, 1)}
    print(json.dumps(report | {name: round(slow / fast, 1) for name, (slow, fast) in times.items()}))


if __name__ == "__main__":
    main()
