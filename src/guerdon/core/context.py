"""What a pure function may know besides its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.core.protocols import Model
    from guerdon.core.rollouts import Rollouts


@dataclass(frozen=True, eq=False)
class Context:
    """The circumstances of one scoring.

    Args:
        rollouts: the batch being scored; rewards fill it in.
        progress: where training stands, 0 at its start and 1 at its end, so that a schedule is an
            ordinary shaper. Scoring outside training is at 1: a schedule is shown as it ends.
        training: False while evaluating or scoring a file.
        step: the optimiser step.
        models: 'policy' (the one being trained), 'old' (the one that wrote the rollouts), 'reference' (the one that
            training began with) and user names.
    """

    rollouts: Rollouts | None = None
    progress: float = 1.0
    training: bool = False
    step: int = 0
    models: Mapping[str, Model] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0.0 <= self.progress <= 1.0:
            raise ValueError(f"progress runs from 0 to 1 over training, got {self.progress}")

    def with_(self, **changes: Any) -> Context:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def require_rollouts(self) -> Rollouts:
        """The batch, or an error that says it was not given."""
        if self.rollouts is None:
            raise ValueError("this part reads the rollouts: pass Context(rollouts=…)")
        return self.rollouts
