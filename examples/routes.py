"""Routes on a map of lines: sparse and graded rewards, the cost of padding, and stages from easy to hard.

python examples/routes.py
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from guerdon import Context, Rollouts
from guerdon.data import Staged
from guerdon.rewards import transit

Leg = tuple[str, str, str]  # line, departure, arrival

REWARD = 10 * transit.plan() + 0.5 * transit.detail()
NAIVE = 10 * transit.plan() + 0.5 * transit.detail(allowed="transfers")


def city(rng: random.Random, lines: int = 4, length: int = 6) -> dict[str, list[str]]:
    """Lines that each cross the next one once."""
    stations = [f"S{i}" for i in range(lines * length)]
    rng.shuffle(stations)
    found = {f"Line {k + 1}": stations[k * length : (k + 1) * length] for k in range(lines)}
    names = list(found)
    for one, other in pairwise(names):
        found[other][rng.randrange(length - 1)] = found[one][-1]
    return found


def journey(lines: dict[str, list[str]], transfers: int, rng: random.Random) -> list[Leg]:
    """A route with so many transfers along neighbouring lines."""
    names = list(lines)[: transfers + 1]
    legs: list[Leg] = []
    at = rng.choice(lines[names[0]][:-1])
    for name, following in zip(names, [*names[1:], None], strict=True):
        there = lines[name][-1] if following else rng.choice([s for s in lines[name] if s != at])
        legs.append((name, at, there))
        at = there
    return legs


def written(legs: Sequence[Leg]) -> str:
    """The plan as a reply gives it."""
    return "\n--\n".join(f"Route Name: {line}\nDeparture Stop: {a}\nArrival Stop: {b}" for line, a, b in legs)


def replies(legs: Sequence[Leg], lines: dict[str, list[str]]) -> dict[str, str]:
    """From right to useless, and the one way to pad a plan."""
    (line, a, b), *rest = legs
    every = [(name, b, b) for name in lines]
    return {
        "right": written(legs),
        "one line wrong": written(
            [(line, a, b), *[("Line 9", *leg[1:]) for leg in rest]] if rest else [("Line 9", a, b)]
        ),
        "stops short": written([*legs[:-1], (legs[-1][0], legs[-1][1], legs[-1][1])]),
        "hack: every line in between": written([legs[0], *every, *rest]) if rest else written([*legs, *every]),
        "one leg, made up": written([(line, a, legs[-1][2])]),
        "nothing": "Take the metro.",
    }


def table(prompts: int = 30, seed: int = 0) -> dict[str, dict[str, float]]:
    """The mean of each kind of reply on routes with one transfer: whether it is right, how much of it, the reward."""
    rng = random.Random(seed)
    texts: list[str] = []
    columns: dict[str, list[object]] = {name: [] for name in ("lines", "origin", "destination", "transfers")}
    kinds: list[str] = []
    for _ in range(prompts):
        lines = city(rng)
        legs = journey(lines, 1, rng)
        for kind, text in replies(legs, lines).items():
            kinds.append(kind)
            texts.append(text)
            for name, value in zip(columns, (lines, legs[0][1], legs[-1][2], 1), strict=True):
                columns[name].append(value)
    batch = Rollouts([f"route {i}" for i in range(len(texts))], texts, columns)
    measured = {"right": transit.plan(), "detail": transit.detail(), "reward": REWARD, "off by one": NAIVE}
    scores = {name: reward.score(batch).read(float("nan")) for name, reward in measured.items()}
    which = np.array(kinds)
    return {kind: {name: float(s[which == kind].mean()) for name, s in scores.items()} for kind in dict.fromkeys(kinds)}


def stages(prompts: int = 12) -> list[str]:
    """Which kind of question is asked as training goes on."""
    rows = [{"prompt": f"{kind} {i}", "kind": kind} for kind in ("plan", "order", "count") for i in range(prompts)]
    curriculum = Staged(rows, by="kind", order=("order", "count", "plan"))
    return [str(curriculum.draw(1, Context(progress=at / 12))[0]["kind"]) for at in range(12)]


def main() -> None:
    """Print what each kind of reply earns."""
    found = table()
    names = list(next(iter(found.values())))
    print(f"{'':30}" + "".join(f"{name:>12}" for name in names))
    for kind, row in found.items():
        print(f"{kind:30}" + "".join(f"{row[name]:12.2f}" for name in names))
    print("\nasked, from the beginning of training to its end:", " ".join(stages()))


if __name__ == "__main__":
    main()
