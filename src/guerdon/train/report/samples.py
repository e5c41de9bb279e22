"""What the policy wrote: the sampled rollouts, column by column, their texts in one pool."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guerdon.core.rollouts import RESERVED
from guerdon.train.report.curves import number, rounded
from guerdon.train.report.page import embed

ROWS = 2000
"""Most rollouts in a report; of a longer run, samples at evenly spaced steps and the last one."""

TEXT = 20_000
"""Most characters of one text; the whole one is in the run's Parquet files."""

BYTES = 1_200_000
"""Most bytes of all texts; if they have more, the longest are cut further, all at the same length."""

ENTRIES = 40
"""Most columns, and most details, of one rollout."""

_SCORING = ("score", "valid", "reason", "details", "advantage", "length")

Sample = tuple[int, Mapping[str, Sequence[Any]]]


class Texts:
    """A pool of texts, each held once and known by its number."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, int], int] = {}

    def add(self, text: str) -> int:
        """The number of a text; texts that look the same, cut, have the same."""
        return self._numbers.setdefault((text[:TEXT], len(text)), len(self._numbers))

    def within(self, budget: int) -> tuple[list[str], dict[int, int]]:
        """The texts, cut so that they fit, and the true lengths (in characters) of those that were cut."""
        sizes = [(len(text), len(embed(text).encode())) for text, _ in self._numbers]
        fits, over = 0, TEXT + 1
        while over - fits > 1:
            limit = (fits + over) // 2
            total = sum(size * min(1.0, limit / max(length, 1)) for length, size in sizes)
            fits, over = (limit, over) if total <= budget else (fits, limit)
        cut = {number: length for (_, length), number in self._numbers.items() if length > min(fits, TEXT)}
        return [text[:fits] for text, _ in self._numbers], cut


def samples(tables: Iterable[Sample], config: Mapping[str, Any]) -> dict[str, Any]:
    """The rollouts that the report lets one browse.

    Args:
        tables: step and columns of each sample.
        config: the recipe; what its evaluation calls right is what the report calls right.

    Returns:
        `rows`, columns of equal length; `parts`, the names behind the entries of `rows.parts`; `texts`, which the
        rows name by number, with `cut`, the true lengths of those that were cut; `right`, what is called right, or
        None if nothing says it; `total`, how many rollouts the run's samples have.
    """
    kept, total = _thin(tables)
    parts = list(dict.fromkeys(name for _, table in kept for name in table if name.startswith("part.")))
    judge = _judge(config, parts)
    texts = Texts()
    most = max(1, ROWS // max(1, len(kept))) if sum(_rows(table) for _, table in kept) > ROWS else ROWS
    records = [
        _record(step, table, i, parts, judge, texts) for step, table in kept for i in range(min(_rows(table), most))
    ]
    held, cut = texts.within(BYTES)
    return {
        "rows": {name: [record[name] for record in records] for name in (records[0] if records else ())},
        "parts": [name.removeprefix("part.") for name in parts],
        "texts": held,
        "cut": cut,
        "right": judge and f"{judge.removeprefix('part.')} above 0.5",
        "total": total,
    }


def _thin(tables: Iterable[Sample]) -> tuple[list[Sample], int]:
    """Samples of at most ROWS rows together (unless two have more), and how many rows all samples have."""
    kept: list[Sample] = []
    stride, total = 1, 0
    last: Sample | None = None
    for i, last in enumerate(tables):
        total += _rows(last[1])
        if i % stride:
            continue
        kept.append(last)
        while len(kept) > 2 and sum(_rows(table) for _, table in kept) > ROWS:
            kept, stride = kept[::2], stride * 2
    if last is not None and kept[-1][0] != last[0]:
        kept[-1:] = [last] if len(kept) > 1 else [kept[-1], last]
    return kept, total


def _rows(table: Mapping[str, Sequence[Any]]) -> int:
    return max((len(column) for column in table.values()), default=0)


def _judge(config: Mapping[str, Any], parts: Sequence[str]) -> str | None:
    """The column that says right or wrong: the evaluation's one part, if the rollouts' reward has it too."""
    evaluation = config.get("evaluation")
    spec = evaluation.get("accuracy", "math.answer") if isinstance(evaluation, Mapping) else "math.answer"
    spec = spec[0] if isinstance(spec, list) and len(spec) == 1 else spec
    name = spec.get("part") if isinstance(spec, Mapping) else spec
    return f"part.{name}" if f"part.{name}" in parts else None


def _record(
    step: int, table: Mapping[str, Sequence[Any]], row: int, parts: Sequence[str], judge: str | None, texts: Texts
) -> dict[str, Any]:
    def cell(name: str) -> Any:
        return table[name][row] if name in table else None

    prompt, reason, details = _messages(cell("prompt"), texts), cell("reason"), cell("details")
    scored = (
        cell("valid") if "valid" in table else reason is None and ("score" not in table or cell("score") is not None)
    )
    evidence = details if isinstance(details, Mapping) else {} if details is None else {"details": details}
    by_step = {f"{name}, by step": x for name in ("score", "advantage", *parts) if isinstance(x := cell(name), list)}
    columns = {name: cell(name) for name in table if name not in (*RESERVED, *_SCORING, *parts)}
    return {
        "step": step,
        "group": cell("group") if "group" in table else prompt[-1][1],
        "prompt": prompt,
        "completion": _messages(cell("completion"), texts),
        "finished": cell("finished"),
        "score": _level(cell("score")),
        "outcome": _outcome(_level(cell(judge)) if judge else None) if scored else "abstained",
        "reason": None if reason is None else texts.add(str(reason)),
        "advantage": _level(cell("advantage")),
        "length": number(cell("length")),
        "parts": [_level(cell(name)) for name in parts],
        "columns": _pairs(columns, texts),
        "details": _pairs({**evidence, **by_step}, texts),
    }


def _outcome(value: float | None) -> str | None:
    return None if value is None else "right" if value > 0.5 else "wrong"


def _level(value: Any) -> float | None:
    """A score as one number: of one score per step, the mean of those there are."""
    if isinstance(value, list):
        present = [x for entry in value if (x := _level(entry)) is not None]
        return rounded(sum(present) / len(present)) if present else None
    return number(float(value) if isinstance(value, bool) else value)


def _pairs(entries: Mapping[Any, Any], texts: Texts) -> list[tuple[int, int]]:
    """Names and values, as numbers of texts."""
    pairs = [(texts.add(str(name)), texts.add(_text(value))) for name, value in list(entries.items())[:ENTRIES]]
    if len(entries) > ENTRIES:
        pairs.append((texts.add("…"), texts.add(f"{len(entries) - ENTRIES} more")))
    return pairs


def _messages(value: Any, texts: Texts) -> list[tuple[str | None, int]]:
    """A prompt or completion as (role, number of its text); the role of plain text is None."""
    if not isinstance(value, list) or not all(isinstance(message, Mapping) for message in value):
        return [(None, texts.add(_text(value)))]
    spoken: list[tuple[str | None, int]] = []
    for message in value:
        role, content = str(message.get("role", "assistant"))[:40], message.get("content")
        rest = {name: x for name, x in message.items() if name not in ("role", "content") and x is not None}
        if content is not None or not rest:
            spoken.append((role, texts.add(_text(content))))
        if rest:
            spoken.append((role, texts.add(_text(rest))))
    return spoken or [(None, texts.add(""))]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) < 100 else json.dumps(value, ensure_ascii=False, default=repr, indent=1)
