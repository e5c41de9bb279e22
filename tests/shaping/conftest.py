from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from guerdon import Context, Leaf, Rollouts, Scores
from guerdon.core import Spans


@dataclass(frozen=True)
class Recorded(Leaf):
    """Scores that are read from a column: a number or None per row, or a list of those for a reward of steps."""

    name: str = "score"
    range: tuple[float, float] = (-1e9, 1e9)
    steps: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def level(self) -> str:
        return "step" if self.steps else "rollout"

    def measure(self, rollouts: Rollouts, context: Any) -> Scores:
        entries = rollouts.column(self.name)
        reasons = dict.fromkeys(range(len(entries)), f"no {self.name}")
        if not self.steps:
            return Scores.of(entries, reasons={i: why for i, why in reasons.items() if entries[i] is None})
        spans = Spans.of([[(i, i + 1) for i in range(len(row))] for row in entries])
        table = np.full(spans.mask.shape, np.nan)
        for row, numbers in enumerate(entries):
            table[row, : len(numbers)] = [np.nan if x is None else x for x in numbers]
        return Scores(table, valid=np.isfinite(table), spans=spans, reasons=reasons)


@pytest.fixture(scope="session")
def recorded() -> Callable[..., Recorded]:
    """`recorded("correct")` is the reward that a column of that name holds."""
    return Recorded


@pytest.fixture(scope="session")
def scored() -> Callable[..., list[Any]]:
    """The scores of a reward of recorded columns, as a list."""

    def run(reward: Any, *, lengths: Any = None, progress: float = 1.0, groups: Any = None, ids: Any = None, **columns):
        n = len(next(iter(columns.values())))
        texts = ["w " * length for length in (lengths or [0] * n)]
        batch = Rollouts(["?"] * n, texts, columns, ids=ids or ["?"] * n, groups=groups or [0] * n)
        context = Context(batch, progress=progress, training=True)
        measured = {leaf: leaf.measure(batch, context) for leaf in reward.leaves()}
        return reward.combine(measured, context).to_columns()["score"]

    return run
