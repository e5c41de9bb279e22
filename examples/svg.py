"""Drawings as SVG: what each term of the reward sees, what the hacks earn, and where a search by the reward ends.

python examples/svg.py
"""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping

import numpy as np

from guerdon.rewards import graphics

SIDE = 96
JUDGE = graphics.match(side=SIDE, ssim=1.0, seconds=0.2)
COLORS = ("#c0392b", "#2471a3", "#1e8449", "#d68910", "#7d3c98")

Shape = tuple[str, float, float, float, str]  # kind, middle, size, colour


def icon(rng: random.Random, shapes: int = 4) -> list[Shape]:
    """Shapes at random places."""
    return [
        (
            rng.choice(("circle", "square")),
            rng.uniform(20, 80),
            rng.uniform(20, 80),
            rng.uniform(8, 20),
            rng.choice(COLORS),
        )
        for _ in range(shapes)
    ]


def written(shapes: list[Shape], *, inner: str = "", box: str = "0 0 100 100") -> str:
    """Their SVG."""
    parts = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" fill="{color}"/>'
        if kind == "circle"
        else f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r:.1f}" height="{2 * r:.1f}" fill="{color}"/>'
        for kind, x, y, r, color in shapes
    ]
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{"".join(parts)}{inner}</svg>'


def replies(shapes: list[Shape], rng: random.Random) -> dict[str, str]:
    """Replies from right to wrong, and ways to cheat."""
    right = written(shapes)
    moved = [(kind, x + 4, y, r, color) for kind, x, y, r, color in shapes]
    recolored = [(kind, x, y, r, rng.choice(COLORS)) for kind, x, y, r, _ in shapes]
    picture = base64.b64encode(b"\x89PNG").decode()
    endless = (
        '<filter id="f"><feTurbulence baseFrequency=".1" numOctaves="2000000000"/></filter>'
        '<rect width="100" height="100" filter="url(#f)"/>'
    )
    return {
        "right": right,
        "right, at twice the length": written(shapes, inner='<g fill="none"></g>' * (len(right) // 19)),
        "colours at random": written(recolored),
        "all shifted by 4": written(moved),
        "one shape missing": written(shapes[:-1]),
        "another icon": written(icon(rng)),
        "hack: an empty canvas": written([]),
        "hack: one dot": written([("circle", 50, 50, 1, "cyan")]),
        "hack: a view box of its own": written([("circle", 5, 5, 5, shapes[0][4])], box="0 0 10 10"),
        "hack: the picture embedded": written([], inner=f'<image href="data:image/png;base64,{picture}"/>'),
        "hack: entities that grow": "<!DOCTYPE svg [<!ENTITY a '&b;&b;'>]>" + written([], inner="<text>&a;</text>"),
        "hack: a filter without end": written([], inner=endless),
        "no drawing": "I cannot draw.",
    }


def table(icons: int = 6, seed: int = 0) -> dict[str, dict[str, float]]:
    """The mean of the reward and of its terms for each kind of reply; what is floored has no terms."""
    rng = random.Random(seed)
    found: dict[str, list[Mapping[str, float]]] = {}
    for _ in range(icons):
        shapes = icon(rng)
        for kind, reply in replies(shapes, rng).items():
            value, details = JUDGE.evaluate(reply, written(shapes))
            terms = {name: term for name, term in details.items() if name != "problem"}
            found.setdefault(kind, []).append({"reward": value, **terms})
    return {
        kind: {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} for kind, rows in found.items()
    }


def climbed(steps: int = 150, seed: int = 1) -> list[float]:
    """The reward of an icon that is changed at random, and kept where the reward rises."""
    rng = random.Random(seed)
    wanted = icon(rng)
    target = written(wanted)
    held = [(kind, x + rng.gauss(0, 9), y + rng.gauss(0, 9), r * 1.3, color) for kind, x, y, r, color in wanted]
    best = JUDGE.evaluate(written(held), target)[0]
    curve = [best]
    for _ in range(steps):
        at = rng.randrange(len(held))
        kind, x, y, r, color = held[at]
        shape = (kind, x + rng.gauss(0, 3), y + rng.gauss(0, 3), abs(r + rng.gauss(0, 1)), color)
        tried = [*held[:at], shape, *held[at + 1 :]]
        value = JUDGE.evaluate(written(tried), target)[0]
        if value > best:
            held, best = tried, value
        curve.append(best)
    return curve


def main() -> None:
    """Print what the reward says."""
    names = ("reward", "l2", "edges", "ssim", "length")
    print(f"{'':32}" + "".join(f"{name:>9}" for name in names))
    for kind, row in table().items():
        print(f"{kind:32}" + "".join(f"{row[name]:9.3f}" if name in row else f"{'':9}" for name in names))
    curve = climbed()
    print("\na search that keeps what the reward prefers:")
    for step in (0, 25, 50, 100, 150):
        print(f"  after {step:3} changes {curve[step]:+.3f}")


if __name__ == "__main__":
    main()
