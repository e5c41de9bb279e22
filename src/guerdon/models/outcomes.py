"""What rewards have in common that learn beside the policy from the outcomes of its rollouts."""

from __future__ import annotations

from typing import Any

from guerdon.algebra import Learned, Reward, spec
from guerdon.core.errors import MissingInput
from guerdon.core.rollouts import Rollouts, Tokens


class LearnedFromOutcomes(Learned):
    """A reward whose teacher is another one, with one score per rollout, measured anew for each update.

    Subclasses are dataclasses with these two fields, and count their "updates" in the state.
    """

    outcome: Any
    _state: dict[str, Any]

    lane = "batch"
    floor = 0.0

    def __post_init__(self) -> None:
        if self._outcome.level != "rollout":
            raise ValueError(f"an outcome is one score per rollout: {self.outcome} gives one per step")

    @property
    def name(self) -> str:
        return f"models.{type(self).__name__}"

    @property
    def reads(self) -> tuple[str, ...]:
        return ("prompt", "completion")

    @property
    def requires(self) -> frozenset[str]:
        return super().requires | self._outcome.requires

    @property
    def version(self) -> str:
        return str(self._state.get("updates", 0))

    @property
    def _outcome(self) -> Reward:
        return self.outcome if isinstance(self.outcome, Reward) else spec.load(self.outcome)

    def _tokens(self, rollouts: Rollouts) -> Tokens:
        if rollouts.tokens is None:
            raise MissingInput(f"{self.name} reads 'tokens', which this batch does not have")
        return rollouts.tokens
