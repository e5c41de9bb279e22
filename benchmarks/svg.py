"""Drawing and comparing two drawings by `graphics.match`, against drawing both by resvg called directly.

The reward is `graphics.match(side=…)` as it comes: colours (L2), edges, and the length of the code.

    python benchmarks/svg.py [--rows 40] [--rounds 7] [--side 224] [--shapes 24]

Prints one line of JSON: milliseconds of CPU per pair of the reward, of two calls of `resvg_py.svg_to_bytes` whose PNG
is decoded, medians over rounds in which they take turns at each pair, and their ratio. Every pair is drawn anew: no
reference stands twice, so that nothing is remembered. `ratio_with_ssim` is that of `graphics.match(ssim=1)`,
`ratio_of_png` the first against the calls alone, and `ratio_in_groups` the reward of eight answers to each reference,
which is drawn once, against sixteen drawings.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import resvg_py

from guerdon.rewards import graphics
from guerdon.rewards.graphics import drawing

GROUP = 8


def drawn(rng: random.Random, shapes: int) -> str:
    """An icon of circles, rectangles and curves."""
    parts = []
    for _ in range(shapes):
        x, y, a, b = (round(rng.uniform(2, 98), 1) for _ in range(4))
        color = f"#{rng.randrange(1 << 24):06x}"
        parts.append(
            rng.choice(
                (
                    f'<circle cx="{x}" cy="{y}" r="{a / 5:.1f}" fill="{color}"/>',
                    f'<rect x="{x}" y="{y}" width="{a / 3:.1f}" height="{b / 3:.1f}" rx="2" fill="{color}"/>',
                    f'<path d="M{x} {y}C{a} {b} {y} {x} {b} {a}S{y} {a} {x} {b}" stroke="{color}" fill="none"/>',
                )
            )
        )
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">{"".join(parts)}</svg>'


def direct(svg: str, side: int, *, decode: bool) -> None:
    data = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, background="#ffffff", skip_system_fonts=True)
    if decode:
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def renderer_seconds() -> float:
    """CPU of the processes that draw."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return sum(int(Path(f"/proc/{child}/schedstat").read_text().split()[0]) for child in children) / 1e9


def cost(work: Callable[[], Any]) -> float:
    """Seconds of CPU, of this process and of what draws for it."""
    start, children = time.process_time(), renderer_seconds()
    work()
    return time.process_time() - start + renderer_seconds() - children


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--shapes", type=int, default=24)
    arguments = parser.parse_args()
    rng, side = random.Random(0), arguments.side
    cv2.setNumThreads(1)
    judge, structural = graphics.match(side=side).evaluate, graphics.match(side=side, ssim=1.0).evaluate
    pairs = [(drawn(rng, arguments.shapes), drawn(rng, arguments.shapes)) for _ in range(arguments.rows)]
    judge(*pairs[0])  # starts what draws
    taken: dict[str, list[float]] = {"reward": [], "direct": [], "ssim": [], "png": [], "group": []}

    def both(pair: tuple[str, str], *, decode: bool) -> None:
        for svg in pair:
            direct(svg, side, decode=decode)

    for turn in range(arguments.rounds + 1):
        seconds = dict.fromkeys(taken, 0.0)
        for at, (answer, reference) in enumerate(pairs):
            alone, again, shared = (
                (answer, some.replace("<svg", f"<svg id='{name}{turn}'", 1))
                for name, some in (("a", reference), ("b", reference), ("c", pairs[at - at % GROUP][1]))
            )
            ways = [
                ("reward", partial(judge, *alone)),
                ("direct", partial(both, alone, decode=True)),
                ("ssim", partial(structural, *again)),
                ("png", partial(both, alone, decode=False)),
                ("group", partial(judge, *shared)),
            ]
            # A machine is slower at some times than at others, and so is what comes after something else.
            for name, work in ways[at % len(ways) :] + ways[: at % len(ways)]:
                seconds[name] += cost(work)
        if turn:
            for name, some in seconds.items():
                taken[name].append(some / len(pairs))
    each = {name: statistics.median(some) * 1000 for name, some in taken.items()}
    found = {
        "pairs": len(pairs), "rounds": arguments.rounds, "side": side,
        "reward_ms": round(each["reward"], 3), "two_drawings_ms": round(each["direct"], 3),
        "ratio": round(each["reward"] / each["direct"], 3),
        "ratio_with_ssim": round(each["ssim"] / each["direct"], 3),
        "ratio_of_png": round(each["reward"] / each["png"], 3),
        "ratio_in_groups": round(each["group"] / each["direct"], 3),
    }  # fmt: skip
    print(json.dumps(found))
    drawing._renderer.cache_clear()


if __name__ == "__main__":
    main()
