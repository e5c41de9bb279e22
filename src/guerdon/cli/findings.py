"""What `guerdon check` finds out about a reward on a file, as plain data."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.algebra import Reward
from guerdon.cli import scoring, terminal
from guerdon.cli.scoring import Rows, Scored
from guerdon.cli.tally import Spread, Tally, numbers
from guerdon.core.errors import GuerdonError
from guerdon.core.rollouts import Rollouts
from guerdon.engine import Engine

Findings = dict[str, Any]

THRESHOLD = 0.5
LEAF_SAMPLE = 32  # rows on which each of several leaves is timed by itself
FEW = 6  # up to so many different scores are counted one by one
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def describe(reward: Reward, rollouts: Rollouts) -> Findings:
    """What can be said without scoring: the reward, what it reads, and whether it is there."""
    readers = scoring.readers(reward)
    columns = [
        {"name": name, "read_by": by, "found": rollouts.has(name), "empty": _empty(rollouts, name)}
        for name, by in readers.items()
    ]
    low, high = reward.range
    opaque = any("rollouts" in leaf.reads for leaf in reward.leaves())
    return {
        "reward": repr(reward),
        "range": [low, high],
        "scope": reward.scope,
        "level": reward.level,
        "rows": len(rollouts),
        "groups": len(np.unique(rollouts.groups)),
        "columns": columns,
        "unread": [name for name in ("prompt", "completion", *rollouts.columns) if name not in readers and not opaque],
    }


def _empty(rollouts: Rollouts, name: str) -> int:
    """In how many rows there is nothing."""
    if not rollouts.has(name) or name in ("tokens", "tree"):
        return 0
    return sum(1 for value in rollouts.column(name) if value is None or (isinstance(value, str) and not value.strip()))


def sample(rollouts: Rollouts, rows: int) -> Rows:
    """Numbers of about so many rows, in whole groups from all over the file; all of them if there are no more."""
    if not 0 < rows < len(rollouts):
        return np.arange(len(rollouts))
    _, first, index = np.unique(rollouts.groups, return_index=True, return_inverse=True)
    count = max(1, round(len(first) * rows / len(rollouts)))
    chosen = np.argsort(first)[np.linspace(0, len(first) - 1, count).round().astype(np.int64)]
    return np.flatnonzero(np.isin(index, chosen))


def scores(tally: Tally) -> Findings:
    """How the scores are spread, how many rows abstain and why, and the same for each part."""
    return {
        **spread(tally.score),
        "abstained": tally.abstained,
        "reasons": [{"reason": reason, "rows": count} for reason, count in tally.reasons()],
        "parts": {name: spread(part) for name, part in tally.parts.items()},
    }


def spread(numbers: Spread) -> Findings:
    """How numbers are spread; quantiles are those at 0, ¼, ½, ¾ and 1."""
    counts = numbers.counts()
    return {
        "scored": numbers.count,
        "mean": numbers.mean,
        "quantiles": numbers.quantiles(QUANTILES),
        "counts": [list(pair) for pair in counts] if 0 < len(counts) <= FEW else None,
    }


def signal(scored: Scored, rollouts: Rollouts) -> Findings:
    """How many groups of several rollouts there are, and in how many all scores are equal: those teach nothing."""
    groups: dict[int, set[float]] = {}
    sizes: Counter[int] = Counter()
    for row, value in zip(scored.rows, _per_row(scored), strict=True):
        group = int(rollouts.groups[row])
        sizes[group] += 1
        groups.setdefault(group, set()).update(() if value is None else (value,))
    several = [values for group, values in groups.items() if sizes[group] > 1]
    return {"groups": len(several), "equal": sum(1 for values in several if len(values) < 2)}


def cost(reward: Reward, rollouts: Rollouts, engine: Engine, scored: Scored) -> Findings:
    """Seconds per row, in all workers together, and that of each leaf; several leaves are timed one by one."""
    demand = reward.demand(rollouts)
    leaves = []
    for leaf, asked in demand.items():
        rows = np.flatnonzero(asked)[:LEAF_SAMPLE]
        seconds = scored.per_row if len(rows) else None
        if len(demand) > 1 and len(rows):
            began = time.monotonic()
            engine.measure({leaf: np.ones(len(rows), bool)}, rollouts.select(rows))
            seconds = (time.monotonic() - began) / len(rows)
        limit = None if leaf.lane == "batch" else engine.deadline if leaf.deadline is None else leaf.deadline
        asked_for = int(asked.sum())
        leaves.append({"name": leaf.name, "lane": leaf.lane, "deadline": limit, "rows": asked_for, "per_row": seconds})
    return {
        "rows": len(scored),
        "seconds": scored.seconds,
        "per_row": scored.per_row,
        "whole": scored.per_row * len(rollouts),
        "workers": engine.workers,
        "leaves": leaves,
    }


def agreement(scored: Scored, truths: Sequence[bool | None], column: str) -> Findings:
    """How often `score > 0.5` is what the label says."""
    tally = dict.fromkeys(("true_high", "true_low", "true_abstained", "false_high", "false_low", "false_abstained"), 0)
    for row, score in zip(scored.rows, scored.columns["score"], strict=True):
        if truths[row] is not None:
            outcome = "abstained" if score is None else "high" if score > THRESHOLD else "low"
            tally[f"{'true' if truths[row] else 'false'}_{outcome}"] += 1
    return {
        "column": column,
        "labelled": sum(tally.values()),
        "agree": tally["true_high"] + tally["false_low"],
        "disagree": tally["true_low"] + tally["false_high"],
        "abstained": tally["true_abstained"] + tally["false_abstained"],
        **tally,
    }


def truths(labels: Sequence[Any], column: str) -> list[bool | None]:
    """Labels as truth values; None where there is none.

    Raises:
        GuerdonError: for a label that is neither a truth value nor a number.
    """
    for row, label in enumerate(labels):
        if not isinstance(label, (bool, int, float, type(None))):
            raise GuerdonError(
                f"--label: row {row} of column {column!r} is {label!r}: a label is true, false or a number, "
                f"of which those above {THRESHOLD} count as true"
            )
    return [None if label is None else bool(label > THRESHOLD) for label in labels]


def examples(
    scored: Scored, rollouts: Rollouts, *, shown: Sequence[str], labels: Sequence[bool | None] | None, count: int
) -> list[Findings]:
    """A few rows of each kind: at odds with their label, highest, lowest, and abstentions of different reasons.

    Args:
        shown: the columns to show.
        labels: of all rows of the file.
        count: how many of each kind; a row is shown once.
    """
    values = _per_row(scored)
    there = [i for i, value in enumerate(values) if value is not None]
    odd = [i for i in there if labels and labels[scored.rows[i]] not in (None, values[i] > THRESHOLD)]
    reasons = scored.columns["reason"]
    silent = {reasons[i]: i for i in reversed(range(len(scored))) if values[i] is None}
    high, low = sorted(there, key=lambda i: -values[i]), sorted(there, key=lambda i: values[i])
    kinds = {"disagrees": odd, "high": high, "low": low, "abstained": sorted(silent.values())}
    found, seen = [], set[int]()
    for kind, rows in kinds.items():
        chosen = _various([i for i in rows if i not in seen], rollouts.groups[scored.rows])[:count]
        seen.update(chosen)
        for i in chosen:
            row = int(scored.rows[i])
            found.append(
                {
                    "kind": kind,
                    "row": row,
                    "score": scored.columns["score"][i],
                    "reason": reasons[i],
                    "label": labels[row] if labels else None,
                    "columns": {name: terminal.shorten(rollouts.column(name)[row]) for name in shown},
                    "details": {k: terminal.shorten(v) for k, v in scored.columns["details"][i].items()},
                }
            )
    return found


def _various(rows: Sequence[int], groups: Rows) -> list[int]:
    """The same rows, the first of each group before the second of any."""
    earlier: Counter[int] = Counter()
    rank = {}
    for i in rows:
        rank[i] = earlier[int(groups[i])]
        earlier[int(groups[i])] += 1
    return sorted(rows, key=rank.__getitem__)


def _per_row(scored: Scored) -> list[Any]:
    """One number per row, None where it abstains; for one score per step, the mean."""
    means = (numbers([entry]) for entry in scored.columns["score"])
    return [float(m.mean()) if ok and len(m) else None for ok, m in zip(scored.columns["valid"], means, strict=True)]
