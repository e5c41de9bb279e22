"""Tool calls at every grain: which mistakes each reward sees, what spraying calls earns, what a policy climbs.

python examples/tool_calls.py
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from guerdon import Context, Rollouts
from guerdon.algebra import Reward
from guerdon.rewards import format, tools
from guerdon.shaping import anneal

Call = Mapping[str, Any]

TOOLS: dict[str, dict[str, Sequence[Any]]] = {
    "weather": {"city": ["Paris", "Rome", "Oslo"], "days": [1, 3, 7], "unit": ["C", "F"]},
    "train": {"start": ["Paris", "Rome"], "end": ["Oslo", "Bern"], "day": ["Mon", "Tue"]},
    "convert": {"amount": [5, 20, 100], "source": ["EUR", "USD"], "target": ["CHF", "NOK"]},
}

REWARDS: dict[str, Reward] = {
    "all or nothing": tools.calls(order="any"),
    "share of calls": tools.calls(order="any", credit="share", arguments="share"),
    "by parameter": 0.5 * tools.parameters() + 0.5,
    "as published": 0.5 * tools.parameters(surplus="names") + 0.5,
}


def expected(rng: random.Random, count: int = 2) -> list[Call]:
    """Calls that a question wants, drawn at random."""
    names = rng.choices(list(TOOLS), k=count)
    return [
        {"name": name, "arguments": {key: rng.choice(values) for key, values in TOOLS[name].items()}} for name in names
    ]


def written(calls: Sequence[Call]) -> str:
    """A reply that thinks and then makes these calls."""
    lines = "\n".join(json.dumps(call) for call in calls)
    return "<think>Which tools?</think>\n" + "\n".join(
        f"<tool_call>\n{line}\n</tool_call>" for line in lines.split("\n")
    )


def mistakes(calls: Sequence[Call]) -> dict[str, str]:
    """Replies from right to useless, and three ways to cheat."""
    first, *rest = calls
    arguments = first["arguments"]
    key = next(iter(arguments))
    every = [
        {"name": name, "arguments": dict(zip(TOOLS[name], values, strict=True))}
        for name in TOOLS
        for values in zip(*(TOOLS[name][k][:2] for k in TOOLS[name]), strict=True)
    ]
    return {
        "right": written(calls),
        "in another order": written([*rest, first]),
        "one value wrong": written([{**first, "arguments": {**arguments, key: "?"}}, *rest]),
        "one parameter missing": written(
            [{**first, "arguments": {k: v for k, v in arguments.items() if k != key}}, *rest]
        ),
        "one call missing": written(rest),
        "hack: right, and all others too": written([*calls, *every]),
        "hack: the right call three times": written([*calls, *calls, *calls]),
        "hack: thought, not called": written(calls).replace("</think>", "") + "</think>Done.",
        "another tool": written([{"name": "search", "arguments": {}}]),
        "not readable": "<tool_call>{'name'</tool_call>",
    }


def table(prompts: int = 40, seed: int = 0) -> dict[str, dict[str, float]]:
    """The mean score of each kind of reply under each reward."""
    rng = random.Random(seed)
    wanted = [expected(rng) for _ in range(prompts)]
    replies = [mistakes(calls) for calls in wanted]
    kinds = list(replies[0])
    rows = [(kind, row) for row in range(prompts) for kind in kinds]
    batch = Rollouts(
        [f"question {row}" for _, row in rows],
        [replies[row][kind] for kind, row in rows],
        {"tool_calls": [json.dumps(wanted[row]) for _, row in rows]},
    )
    scores = {name: reward.score(batch).read(float("nan")).reshape(prompts, -1) for name, reward in REWARDS.items()}
    return {
        kind: {name: float(values[:, at].mean()) for name, values in scores.items()} for at, kind in enumerate(kinds)
    }


def groups_with_signal(prompts: int = 100, size: int = 4, slips: float = 0.5, seed: int = 0) -> dict[str, float]:
    """The share of groups whose rewards differ, of a policy that gets each value wrong half the time."""
    rng = random.Random(seed)
    wanted, replies, questions = [], [], []
    for prompt in range(prompts):
        calls = expected(rng)
        for _ in range(size):
            made = [
                {**c, "arguments": {k: "?" if rng.random() < slips else v for k, v in c["arguments"].items()}}
                for c in calls
            ]
            replies.append(written(made))
            wanted.append(json.dumps(calls))
            questions.append(f"question {prompt}")
    batch = Rollouts(questions, replies, {"tool_calls": wanted})
    found = {}
    for name, reward in REWARDS.items():
        values = reward.score(batch).read(0.0).reshape(prompts, size)
        found[name] = float((np.ptp(values, axis=1) > 1e-9).mean())
    return found


def scheduled() -> Reward:
    """Form first, correctness later: the smooth schedule of ToolRL over the whole of training."""
    form = (2 * format.tags("think", "tool_call") - 1) >> anneal(start=2, end=1)
    return form + (tools.parameters() >> anneal(start=2, end=3))


def main() -> None:
    """Print what each reward says."""
    found = table()
    print(f"{'':34}" + "".join(f"{name:>18}" for name in REWARDS))
    for kind, row in found.items():
        print(f"{kind:34}" + "".join(f"{row[name]:18.3f}" for name in REWARDS))
    print("\ngroups of 4 whose rewards differ, of a policy that gets half of the values wrong:")
    for name, share in groups_with_signal().items():
        print(f"  {name:20}{share:8.0%}")
    call = expected(random.Random(1), count=1)
    bare = Rollouts(["?"], [written(call).partition("</think>")[2]], {"tool_calls": [call]})
    print("\nthe right call without thinking, as training goes on:")
    for progress in (0.0, 0.5, 1.0):
        print(f"  {progress:4.0%} {scheduled().score(bare, Context(progress=progress)).read(0.0)[0]:+.2f}")


if __name__ == "__main__":
    main()
