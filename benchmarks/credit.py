"""What credit costs beside plain re-expressions of it; prints one line of JSON.

    python benchmarks/credit.py [--repeats 9] [--threads 2] [--device cuda]

Generalised advantages against a loop over time steps, the prefix tree against a trie of dictionaries, and advantages
in groups against a loop over groups, each on the same data with the same result, in turn; the fastest of the repeats
counts, as other work on the machine only ever adds time. Rows are cut at random lengths; a tree's row shares half of
its tokens, on average, with another of the group. `floor` is what no way can be faster than: arguments read once and
the result written once, at the bandwidth of a copy measured in the same run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
from bandwidth import copy_bandwidth, name_of, seconds
from torch import Tensor

from guerdon.credit import group_relative, prefix_tree, returns

GAMMA, LAM = 0.99, 0.95


def advantages_by_step(rewards: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    found = torch.zeros_like(rewards)
    advantage, following = rewards.new_zeros(len(rewards)), rewards.new_zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        here = mask[:, t]
        delta = rewards[:, t] + GAMMA * following - values[:, t]
        advantage = torch.where(here, delta + GAMMA * LAM * advantage, advantage)
        following = torch.where(here, values[:, t], following)
        found[:, t] = torch.where(here, advantage, 0)
    return found


def values_by_trie(ids: Tensor, lengths: Tensor, rewards: Tensor, groups: Tensor) -> Tensor:
    rows = [row[:length] for row, length in zip(ids.tolist(), lengths.tolist(), strict=True)]
    roots: dict[int, list[Any]] = {}
    for row, reward, group in zip(rows, rewards.tolist(), groups.tolist(), strict=True):
        node = roots.setdefault(group, [{}, 0, 0.0])
        for token in row:
            node = node[0].setdefault(token, [{}, 0, 0.0])
            node[1] += 1
            node[2] += reward
    found = []
    for row, group in zip(rows, groups.tolist(), strict=True):
        node, values = roots[group], []
        for token in row:
            node = node[0][token]
            values.append(node[2] / node[1])
        found.append(values + [0.0] * (ids.shape[1] - len(row)))
    return torch.tensor(found, device=ids.device)


def advantages_by_group(rewards: Tensor, groups: Tensor) -> Tensor:
    found = torch.zeros_like(rewards)
    for group in groups.unique():
        rows = groups == group
        found[rows] = (rewards[rows] - rewards[rows].mean()) / (rewards[rows].std() + 1e-4)
    return found


def moved(*tensors: Tensor) -> int:
    """Bytes that must move for these."""
    return sum(x.nbytes for x in tensors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    n, t = 1024, 4096
    rewards, values = torch.randn(n, t), torch.randn(n, t)
    mask = torch.arange(t) < torch.randint(t // 2, t + 1, (n, 1))

    count, size, width = 64, 16, 512
    groups = torch.arange(count).repeat_interleave(size)
    ids = torch.randint(0, 50_000, (count * size, width))
    for row in range(count * size):
        if row % size:
            other = row - 1 - int(torch.randint(0, row % size, ()))
            shared = int(torch.randint(0, width, ()))
            ids[row, :shared] = ids[other, :shared]
    lengths = torch.randint(width // 2, width + 1, (count * size,))
    there = torch.arange(width) < lengths[:, None]
    outcomes = (torch.rand(count * size) < 0.4).float()

    rewards, values, mask, groups, ids, lengths, there, outcomes = (
        x.to(options.device) for x in (rewards, values, mask, groups, ids, lengths, there, outcomes)
    )
    ways: dict[str, tuple[tuple[Tensor, ...], Callable[[], Tensor], Callable[[], Tensor]]] = {
        "gae": (
            (rewards, values, mask),
            lambda: returns(rewards, mask, kind="gae", gamma=GAMMA, lam=LAM, values=values),
            lambda: advantages_by_step(rewards, values, mask),
        ),
        "tree": (
            (ids, there, outcomes, groups),
            lambda: prefix_tree(ids, there, outcomes, groups).value,
            lambda: values_by_trie(ids, lengths, outcomes, groups),
        ),
        "group": (
            (outcomes, groups),
            lambda: group_relative(outcomes, groups),
            lambda: advantages_by_group(outcomes, groups),
        ),
    }
    bandwidth = copy_bandwidth(options.device)
    report: dict[str, Any] = {
        "device": name_of(options.device),
        "threads": options.threads,
        "repeats": options.repeats,
        "copy_gb_s": round(bandwidth / 1e9, 1),
    }
    for name, (given, ours, plain) in ways.items():
        found = ours()
        torch.testing.assert_close(found, plain(), rtol=1e-4, atol=1e-4)
        pairs = [(seconds(ours, options.device), seconds(plain, options.device)) for _ in range(options.repeats)]
        fast, slow = (min(column) for column in zip(*pairs, strict=True))
        report |= {
            f"{name}_ms": round(fast * 1e3, 3),
            f"{name}_floor_ms": round(moved(*given, found) / bandwidth * 1e3, 4),
            f"{name}_plain_ms": round(slow * 1e3, 2),
            f"{name}_speedup": round(slow / fast, 1),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
