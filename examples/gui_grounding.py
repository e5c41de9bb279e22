"""Clicks and boxes on a screen: what each reward pays for, which size hacks earn, and what a policy climbs.

python examples/gui_grounding.py
"""

from __future__ import annotations

from typing import Any

import numpy as np

from guerdon import Rollouts
from guerdon.algebra import Reward
from guerdon.rewards import grounding

WIDTH, HEIGHT = 1920, 1080

REWARDS: dict[str, Reward] = {
    "hit": grounding.inside(),
    "overlap": grounding.iou(),
    "hit, overlap, edges": grounding.inside() + 0.25 * grounding.iou() + 0.125 * grounding.edges(),
    "gaussian": 0.5 * grounding.gaussian() + 0.5 * grounding.coverage(),
}
MOST = {name: reward.range[1] for name, reward in REWARDS.items()}


def targets(count: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Buttons, fields and panels at random places of a screen."""
    sizes = rng.uniform((24, 16), (300, 80), (count, 2))
    low = rng.uniform(0, 1, (count, 2)) * ((WIDTH, HEIGHT) - sizes)
    return np.concatenate([low, low + sizes], 1)


def written(boxes: np.ndarray[Any, Any]) -> list[str]:
    """Replies that think and then answer with a box."""
    return [f"<think>Where is it?</think>[{', '.join(f'{x:.1f}' for x in box)}]" for box in boxes]


def score(reward: Reward, replies: list[str], boxes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The scores of one reply per target, of at most 1."""
    columns = {"box": boxes.tolist(), "size": [[WIDTH, HEIGHT]] * len(boxes)}
    scores = reward.score(Rollouts(["Click on it."] * len(boxes), replies, columns))
    return np.asarray(scores.read(float("nan")))


def kinds(boxes: np.ndarray[Any, Any]) -> dict[str, list[str]]:
    """Replies from right to useless, and the ways to cheat."""
    middle, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]

    def around(factor: float, shift: float = 0.0) -> np.ndarray[Any, Any]:
        return np.concatenate([middle + (shift - factor / 2) * sizes, middle + (shift + factor / 2) * sizes], 1)

    screen = np.tile([0.0, 0.0, WIDTH, HEIGHT], (len(boxes), 1))
    right = [str(box) for box in boxes.tolist()]
    flood = [" ".join([*right[row + 1 :][:9], *right[: row + 1][-9:]]) for row in range(len(boxes))]
    return {
        "right": written(boxes),
        "a quarter too far right": written(around(1.0, 0.25)),
        "beside it": written(around(1.0, 1.1)),
        "far away": written(around(1.0, 5.0)),
        "hack: eight times too large": written(around(8.0)),
        "hack: a dot in the middle": written(around(0.02)),
        "hack: the whole screen": written(screen),
        "hack: many boxes, one of them right": flood,
        "high below low": written(boxes[:, [2, 3, 0, 1]]),
        "not a number": ["[nan, nan, nan, nan]"] * len(boxes),
        "no box": ["At the top left."] * len(boxes),
    }


def table(count: int = 300, seed: int = 0) -> dict[str, dict[str, float]]:
    """The mean score of each kind of reply under each reward, as a share of the most there is."""
    boxes = targets(count, np.random.default_rng(seed))
    return {
        kind: {name: float(score(reward, replies, boxes).mean() / MOST[name]) for name, reward in REWARDS.items()}
        for kind, replies in kinds(boxes).items()
    }


def climb(reward: Reward, *, steps: int = 300, group: int = 64, rate: float = 0.1, seed: int = 0) -> dict[str, float]:
    """Let a policy climb a reward; say how often it hits the target then, and how large its boxes are.

    It knows where the target is up to an offset and a size that it has to learn, both in sizes of the target: the
    mean of a Gaussian, moved by advantages relative to the group.
    """
    rng = np.random.default_rng(seed)
    mean, noise = np.array([1.2, -1.2, 1.0, 1.0]), 0.15  # offset of the middle; log of the size
    for _ in range(steps):
        box = targets(1, rng)[0]
        actions = mean + noise * rng.normal(size=(group, 4))
        rewards = score(reward, written(placed(actions, box)), np.tile(box, (group, 1)))
        if np.ptp(rewards) > 1e-9:
            advantages = (rewards - rewards.mean()) / rewards.std()
            mean = mean + rate * (advantages[:, None] * (actions - mean) / noise).mean(0)
    return {"off": float(np.abs(mean[:2]).max()), "size": float(np.exp(mean[2:]).mean())}


def placed(actions: np.ndarray[Any, Any], box: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The boxes of offsets and log sizes relative to a target."""
    size = box[2:] - box[:2]
    middle, half = (box[:2] + box[2:]) / 2 + actions[:, :2] * size, 0.5 * np.exp(actions[:, 2:]) * size
    return np.concatenate([middle - half, middle + half], 1)


def main() -> None:
    """Print what each reward says."""
    print(f"{'':38}" + "".join(f"{name:>22}" for name in REWARDS))
    for kind, row in table().items():
        print(f"{kind:38}" + "".join(f"{row[name]:22.3f}" for name in REWARDS))
    print("\nwhat a policy learns from each: how far the middle is off, and the size, both in sizes of the target")
    for name, reward in REWARDS.items():
        found = climb(reward)
        print(f"  {name:22} off {found['off']:5.2f}   size {found['size']:5.2f}")


if __name__ == "__main__":
    main()
