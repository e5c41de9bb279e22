"""When something happens in a video: what overlap pays for, what naming it all earns, and which videos teach.

python examples/temporal_grounding.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon import Context, Rollouts, product, reward
from guerdon.algebra import Reward
from guerdon.data import upper
from guerdon.rewards import format, grounding
from guerdon.rewards.grounding.reading import numbers

Span = tuple[float, float]


@reward(range=(0, 1), lane="batch")
def found(completion: Sequence[str], span: Sequence[Span]) -> list[float]:
    """The share of the event that the answer covers: a plausible reward, and a bad one."""
    values = []
    for said, (start, end) in zip(completion, span, strict=True):
        first, last = numbers(said, 2) or (0.0, 0.0)
        shared = min(last, end) - max(first, start)
        values.append(shared / (end - start) if shared > 0 else 0.0)
    return values


FORM = product(format.template(answer="tag"), grounding.form(kind="span"))
REWARDS: dict[str, Reward] = {
    "share found": found(),
    "overlap": grounding.span(within="answer_tag"),
    "overlap and form": 0.5 * grounding.span(within="answer_tag") + 0.5 * FORM,
}


def events(count: int, rng: np.random.Generator) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Videos of 20 to 180 seconds, and an event in each."""
    seconds = rng.uniform(20, 180, count)
    lengths = seconds * rng.uniform(0.05, 0.3, count)
    starts = rng.uniform(0, 1, count) * (seconds - lengths)
    return seconds, np.stack([starts, starts + lengths], 1)


def written(spans: np.ndarray[Any, Any]) -> list[str]:
    """Replies that think and then answer with a stretch of time."""
    answers = (json.dumps({"start_time": f"{start:.2f}", "end_time": f"{end:.2f}"}) for start, end in spans)
    return [f"<think>Frame by frame.</think><answer>{answer}</answer>" for answer in answers]


def score(measure: Reward, replies: list[str], spans: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The scores of one reply per event."""
    batch = Rollouts(["When?"] * len(replies), replies, {"span": spans.tolist()})
    return np.asarray(measure.score(batch).read(float("nan")))


def kinds(seconds: np.ndarray[Any, Any], spans: np.ndarray[Any, Any]) -> dict[str, list[str]]:
    """Replies from right to useless, and the ways to cheat."""
    length = spans[:, 1:] - spans[:, :1]
    whole = np.stack([np.zeros_like(seconds), seconds], 1)
    tenths = [str([[t * a / 10, t * (a + 1) / 10] for a in range(10)]) for t in seconds.tolist()]
    return {
        "right": written(spans),
        "an eighth too late": written(spans + length / 8),
        "its first half": written(spans - length * [0, 0.5]),
        "elsewhere": written(spans + 1.5 * length),
        "hack: the whole video": written(whole),
        "hack: three times too long": written(spans + length * [-1, 1]),
        "hack: every tenth of it": [f"<think>…</think><answer>{listed}</answer>" for listed in tenths],
        "ends before it begins": written(spans[:, ::-1]),
        "not a number": written(spans * np.nan),
        "in words": [f"From {start:.0f} to {end:.0f} seconds." for start, end in spans],
    }


def table(count: int = 300, seed: int = 0) -> dict[str, dict[str, float]]:
    """The mean score of each kind of reply under each reward."""
    seconds, spans = events(count, np.random.default_rng(seed))
    return {
        kind: {name: float(score(measure, replies, spans).mean()) for name, measure in REWARDS.items()}
        for kind, replies in kinds(seconds, spans).items()
    }


def best_constant(measure: Reward, count: int = 200, seed: int = 1) -> tuple[Span, float]:
    """The one answer, as shares of the video, that earns the most without looking: what a lazy policy finds."""
    seconds, spans = events(count, np.random.default_rng(seed))
    grid = [(a / 10, b / 10) for a in range(10) for b in range(a + 1, 11)]
    means = [float(score(measure, written(seconds[:, None] * np.array(at)), spans).mean()) for at in grid]
    at = int(np.argmax(means))
    return grid[at], means[at]


def chosen(videos: int = 200, size: int = 8, seed: int = 2) -> dict[str, float]:
    """The mean spread of rewards in fresh groups, of all videos and of the half whose groups were spread most."""
    rng = np.random.default_rng(seed)
    _, spans = events(videos, rng)
    skill = rng.choice([0.01, 0.3, 30.0], videos)  # how far answers miss, in lengths: solved, learnable, hopeless
    each = np.repeat(spans, size, 0)

    def sampled() -> Any:
        off = np.repeat(skill, size)[:, None] * rng.normal(size=(videos * size, 2)) * (each[:, 1:] - each[:, :1])
        batch = Rollouts([f"video {i // size}" for i in range(len(each))], written(each + off), {"span": each.tolist()})
        return batch, REWARDS["overlap"].score(batch)

    batch, scores = sampled()
    kept = upper(statistic="std", drop=0.5).keep(scores, Context(batch))
    spread = sampled()[1].read(0.0).reshape(videos, size).std(1)
    return {
        "all": float(spread.mean()),
        "kept": float(spread[kept].mean()),
        "learnable": float((skill == 0.3)[kept].mean()),
    }


def main() -> None:
    """Print what each reward says."""
    print(f"{'':30}" + "".join(f"{name:>20}" for name in REWARDS))
    for kind, row in table().items():
        print(f"{kind:30}" + "".join(f"{row[name]:20.3f}" for name in REWARDS))
    print("\nthe best answer without looking at the video, as shares of it:")
    for name in ("share found", "overlap"):
        (start, end), mean = best_constant(REWARDS[name])
        print(f"  {name:14} [{start:.1f}, {end:.1f}] earns {mean:.3f}")
    share = chosen()
    print(
        f"\nspread of rewards within groups: all videos {share['all']:.3f}, the half chosen by it {share['kept']:.3f}"
    )


if __name__ == "__main__":
    main()
