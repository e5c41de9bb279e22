"""What every shaper is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from guerdon.core.context import Context
from guerdon.core.parts import name_of
from guerdon.core.protocols import Range, Scope
from guerdon.core.scores import Level, Scores


class Shaper:
    """Scores to scores. Subclasses are frozen dataclasses whose fields are their options.

    Calling a shaper is pure: the same scores and context give the same result, and no abstention
    becomes a score. One that needs memory (a running mean, the shortest correct answer so far) keeps
    it in `state`, changes it in `observe` only, which the training loop calls once per step, and
    gives it by `state_dict`.
    """

    __part__: ClassVar[str]
    scope: ClassVar[Scope] = "row"
    level: ClassVar[Level | None] = None  # None: both

    def __init_subclass__(cls) -> None:
        cls.__part__ = "shaper"

    @property
    def name(self) -> str:
        """The part's name."""
        return name_of(type(self))

    @property
    def requires(self) -> frozenset[str]:
        """What it reads from the context's rollouts."""
        return frozenset()

    def range(self, inner: Range) -> Range:
        """The range of its output, given the range of its input."""
        return inner

    def __call__(self, scores: Scores, context: Context) -> Scores:
        """The shaped scores."""
        raise NotImplementedError

    def observe(self, scores: Scores, context: Context) -> None:
        """Update state from one training step's scores, as they reached this shaper. Most have none."""

    def state_dict(self) -> dict[str, Any]:
        """Its state, as plain data; empty for most."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        if state:
            raise ValueError(f"{self.name} has no state, got {sorted(state)}")
