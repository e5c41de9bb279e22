from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from guerdon import Leaf, Rollouts, Scores
from guerdon.core import Spans
from guerdon.engine import Engine


@dataclass(frozen=True)
class Given(Leaf):
    """Scores that are given: a number or None per row, or a list of those for a reward of steps."""

    values: tuple[Any, ...]
    name: str = "given"
    range: tuple[float, float] = (-1e9, 1e9)
    steps: bool = False
    tensor: bool = False
    scope: str = "row"
    extra: tuple[str, ...] = ()
    differentiable: bool = False
    cuts: tuple[int, ...] | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return ("completion", *self.extra)

    @property
    def level(self) -> str:
        return "step" if self.steps else "rollout"

    def measure(self, rollouts: Rollouts, context: Any) -> Scores:
        # Completions are row numbers, so that a leaf that is asked for some rows gives their scores.
        values = [self.values[int(row)] for row in rollouts.completions]
        reasons = dict.fromkeys(range(len(values)), f"no {self.name}")
        if not self.steps:
            array = np.array([np.nan if v is None else v for v in values], np.float64)
            return Scores(self._held(array), valid=np.isfinite(array), reasons=reasons)
        width = max(map(len, values), default=0)
        table = np.array(
            [[*(np.nan if v is None else v for v in row), *[np.nan] * (width - len(row))] for row in values]
        )
        size = 1 if self.cuts is None else self.cuts[0]
        spans = Spans.of([[(size * i, size * (i + 1)) for i in range(len(row))] for row in values])
        valid = spans.mask & np.isfinite(table)
        return Scores(self._held(table), mask=spans.mask, valid=valid, spans=spans, reasons=reasons)

    def _held(self, array: Any) -> Any:
        return torch.tensor(array) if self.tensor or self.differentiable else array


@pytest.fixture(scope="session")
def leaf() -> Callable[..., Given]:
    """`leaf(1, None, 0.5, name='a')` is a reward with these scores for the rows of a batch."""
    return lambda *values, **options: Given(tuple(tuple(v) if isinstance(v, list) else v for v in values), **options)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with Engine(workers=1, deadline=20.0) as engine:
        yield engine


@pytest.fixture(scope="session")
def score(engine: Engine) -> Callable[..., Scores]:
    """Score a batch whose rows are numbered, in groups if they are given."""

    def run(reward: Any, n: int | None = None, *, groups: Any = None, **columns: Any) -> Scores:
        n = n or len(reward.leaves()[0].values)
        batch = Rollouts(["?"] * n, [str(i) for i in range(n)], columns, groups=groups)
        return engine.score(reward, batch)

    return run


@pytest.fixture(scope="session")
def listed(score: Callable[..., Scores]) -> Callable[..., list[Any]]:
    """The scores of `score` as a list, None for an abstention."""
    return lambda *args, **columns: score(*args, **columns).to_columns()["score"]
