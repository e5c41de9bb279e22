from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from guerdon.core import Rollouts
from guerdon.engine import Engine

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a conftest


@dataclass(frozen=True, eq=False)
class FunctionLeaf:
    """The smallest leaf: what it evaluates, or measures, is a function."""

    function: Callable[..., Any]
    name: str = "leaf"
    lane: str = "process"
    range: tuple[float, float] = (0.0, 1e9)
    floor: float = 0.0
    scope: str = "row"
    level: str = "rollout"
    requires: frozenset[str] = frozenset()
    reads: tuple[str, ...] = ("number",)
    unit: str = "row"
    deadline: float | None = None
    rate: float | None = None
    retries: int = 0
    retry_on: tuple[type[BaseException], ...] | None = None
    differentiable: bool = False
    known_as: str | None = None

    def identity(self) -> str | None:
        return self.known_as

    def check(self) -> None:
        pass

    def evaluate(self, *columns: Any) -> Any:
        return self.function(*columns)

    def measure(self, rollouts: Any, context: Any) -> Any:
        return self.function(rollouts, context)


@dataclass(frozen=True, eq=False)
class FirstOf:
    """The smallest reward: the scores of its first leaf."""

    parts: tuple[Any, ...]
    requires: frozenset[str] = frozenset()
    name: str = "first"
    seen: list[Any] = field(default_factory=list)

    def leaves(self) -> tuple[Any, ...]:
        return self.parts

    def demand(self, rollouts: Any) -> dict[Any, Any]:
        return {leaf: np.ones(len(rollouts), bool) for leaf in self.parts}

    def combine(self, measured: Any, context: Any) -> Any:
        self.seen.append((measured, context))
        return measured[self.parts[0]]


@pytest.fixture(scope="session")
def leaf() -> type[FunctionLeaf]:
    return FunctionLeaf


@pytest.fixture(scope="session")
def reward() -> Callable[..., FirstOf]:
    return lambda *leaves, **fields: FirstOf(leaves, **fields)


@pytest.fixture(scope="session")
def batch() -> Callable[..., Rollouts]:
    """Rollouts whose column 'number' counts from 0."""

    def make(n: int, **columns: Any) -> Rollouts:
        return Rollouts(["?"] * n, [str(i) for i in range(n)], {"number": list(range(n)), **columns})

    return make


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Two workers shared by the tests, so that what one test does to the pool is felt by the next."""
    with Engine(workers=2, deadline=5.0) as engine:
        yield engine


@pytest.fixture(scope="session")
def run(engine: Engine) -> Callable[..., Any]:
    """Measure one leaf on all rows."""
    return lambda leaf, rollouts, engine=engine: engine.measure({leaf: np.ones(len(rollouts), bool)}, rollouts)[leaf]


@pytest.fixture(scope="session")
def ends() -> Callable[..., bool]:
    """Whether a process ends within some seconds; a zombie has ended."""

    def state(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "Z"

    def wait(pid: int, seconds: float = 8.0) -> bool:
        end = time.monotonic() + seconds
        while state(pid) != "Z" and time.monotonic() < end:
            time.sleep(0.02)
        return state(pid) == "Z"

    return wait
