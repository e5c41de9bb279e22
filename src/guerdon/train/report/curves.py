"""What was measured, as the report draws it: series over steps, evaluations, histograms, tallies."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]

POINTS = 1000
"""Longest series drawn; of a longer run, each point is the mean over as many consecutive steps as it takes."""

BINS = 40
"""Most bins of a histogram."""

OF_OTHERS = ("reward", "vendi", "vendi_real", "nearest", "recognized", "follows")
"""What only evaluations of a denoising policy or a planner have."""

REASONS = 15
"""Most reasons in the table of abstentions."""


def curves(records: Sequence[Record]) -> dict[str, Any]:
    """The metrics, column by column.

    Args:
        records: one per step; values that are missing or not finite are gaps.

    Returns:
        `step`; `series`, every number that some record holds, by name; `parts` likewise; `every`, how many steps a
        point is the mean of (its step is the last of them).

    >>> curves([{"step": 1, "reward": 0.25, "parts": {"math.answer": 0.5}}, {"step": 2, "reward": None}])
    {'step': [1, 2], 'series': {'reward': [0.25, None]}, 'parts': {'math.answer': [0.5, None]}, 'every': 1}
    """
    every = max(1, math.ceil(len(records) / POINTS))
    chunks = [records[i : i + every] for i in range(0, len(records), every)]

    def columns(read: Any) -> dict[str, list[float | None]]:
        names = dict.fromkeys(name for record in records for name, x in read(record).items() if number(x) is not None)
        return {name: [_mean([number(read(r).get(name)) for r in chunk]) for chunk in chunks] for name in names}

    series = columns(lambda record: {name: value for name, value in record.items() if name != "step"})
    return {
        "step": [chunk[-1].get("step", min((i + 1) * every, len(records))) for i, chunk in enumerate(chunks)],
        "series": series,
        "parts": columns(lambda record: record.get("parts") or {}),
        "every": every,
    }


def by_step(records: Sequence[Record]) -> list[Record]:
    """The evaluations in order, the last one of each step."""
    latest = {int(number(record.get("step")) or 0): record for record in records}
    return [latest[step] for step in sorted(latest)]


def evaluations(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Step, accuracy or reward, its interval, mean length or what else there is, and the number of each evaluation."""
    return [
        {
            "step": record.get("step", 0),
            "accuracy": number(record.get("accuracy")),
            "ci95": interval(record.get("ci95")),
            "mean_length": number(record.get("mean_length")),
            "n": number(record.get("n")),
            **{name: number(record[name]) for name in OF_OTHERS if name in record},
            **_searched(record.get("search")),
        }
        for record in records
    ]


def _searched(found: Any) -> dict[str, Any]:
    return {"search": number(found.get("accuracy")), "search_ci95": interval(found.get("ci95"))} if found else {}


def frontier(records: Sequence[Record]) -> dict[str, Any] | None:
    """Reward against KL: what could be had from the answers at the start, and what each evaluation has.

    Returns:
        `curve`, KL and reward of the frontier; `best_of`, of so many answers at the start; `points`, step, KL, reward
        and regret of each evaluation. None if it was not measured.
    """
    known = [record for record in records if record.get("frontier")]
    curve = next((record["curve"] for record in known if record.get("curve")), None)
    if curve is None:
        return None
    names = ("kl", "reward", "regret")
    points = [{"step": r.get("step", 0)} | {x: number(r["frontier"].get(x)) for x in names} for r in known]
    best = known[0]["frontier"].get("best_of") or {}
    return {
        "curve": {name: [number(x) for x in curve[name]] for name in names[:2]},
        "best_of": [{"m": m, "kl": number(x["kl"]), "reward": number(x["reward"])} for m, x in best.items()],
        "points": [point for point in points if point["kl"] is not None and point["reward"] is not None],
    }


def asked(records: Sequence[Record]) -> dict[str, Any] | None:
    """What a planner was asked for, and what it earned, at the first and the last evaluation.

    Returns:
        `sets`: of each evaluation its step and `points`, target, reward and interval; `recorded`: the mean and the best
        return of the episodes that it learns from. None if it was not measured.
    """
    known = [record for record in records if record.get("asked")]
    if not known:
        return None
    sets = []
    for record in [known[0], known[-1]][: len(known)]:
        points = [
            {"target": number(x["target"]), "reward": number(x["reward"]), "ci95": interval(x["ci95"])}
            for x in record["asked"]
        ]
        sets.append({"step": record.get("step", 0), "points": [x for x in points if x["reward"] is not None]})
    return {"sets": sets, "recorded": {name: number(x) for name, x in known[-1]["recorded"].items()}}


def lengths(records: Sequence[Record]) -> dict[str, Any] | None:
    """The lengths of the answers at the first and the last evaluation that have them, in the same bins.

    Returns:
        `start` of the first bin, `width` of each, and `sets`: for each evaluation its step, mean length and counts
        per bin. None if no evaluation has lengths.

    >>> lengths([{"step": 0, "lengths": [2, 4, 4]}, {"step": 9, "lengths": [2]}])["sets"]
    [{'step': 0, 'mean': 3.33333, 'counts': [1, 0, 2]}, {'step': 9, 'mean': 2.0, 'counts': [1, 0, 0]}]
    """
    known = [record for record in records if record.get("lengths")]
    if not known:
        return None
    ends = [known[0], known[-1]][: len(known)]
    low = min(min(record["lengths"]) for record in ends)
    high = max(max(record["lengths"]) for record in ends)
    width = next(w for w in _widths() if high // w - low // w < BINS)
    first = low // width
    sets = []
    for record in ends:
        counts = Counter(length // width for length in record["lengths"])
        mean = rounded(sum(record["lengths"]) / len(record["lengths"]))
        row = [counts[k] for k in range(first, high // width + 1)]
        sets.append({"step": record.get("step", 0), "mean": mean, "counts": row})
    return {"start": first * width, "width": width, "sets": sets}


def reasons(records: Sequence[Record]) -> dict[str, Any]:
    """Why rollouts had no score.

    Returns:
        `rows`, the most frequent reasons: how many rollouts, at which steps first and last; `kinds`, how many
        different reasons there were; `total`, how many rollouts.

    >>> reasons([{"step": 1, "reasons": {"deadline 2.0 s": 2}}, {"step": 4, "reasons": {"deadline 2.0 s": 1}}])["rows"]
    [{'reason': 'deadline 2.0 s', 'count': 3, 'first': 1, 'last': 4}]
    """
    tally: dict[str, dict[str, Any]] = {}
    for i, record in enumerate(records, 1):
        for reason, count in (record.get("reasons") or {}).items():
            step = record.get("step", i)
            row = tally.setdefault(reason, {"reason": reason, "count": 0, "first": step, "last": step})
            row["count"] += count
            row["last"] = step
    rows = sorted(tally.values(), key=lambda row: -row["count"])[:REASONS]
    return {
        "rows": [{**row, "reason": row["reason"][:500]} for row in rows],
        "kinds": len(tally),
        "total": sum(row["count"] for row in tally.values()),
    }


def number(value: Any) -> float | None:
    """A finite number to six significant digits, or None for whatever else stands there."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return rounded(value)


def interval(value: Any) -> tuple[float, float] | None:
    """Lower and upper end, or None if there are not two numbers."""
    ends = [number(end) for end in value] if isinstance(value, (list, tuple)) else []
    return (ends[0], ends[1]) if len(ends) == 2 and ends[0] is not None and ends[1] is not None else None


def rounded(value: float) -> float:
    """Six significant digits: more than a screen shows, half the size of all."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return None if not present else present[0] if len(present) == 1 else rounded(sum(present) / len(present))


def _widths() -> Any:
    """1, 2, 5, 10, 20, 50, …"""
    scale = 1
    while True:
        yield from (scale, 2 * scale, 5 * scale)
        scale *= 10
