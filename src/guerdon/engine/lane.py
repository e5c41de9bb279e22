"""What the engine asks of a lane: start one leaf's work at once, give its scores later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from guerdon.core.context import Context
from guerdon.core.protocols import Leaf
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores

CLOSED = "this engine is closed: make another, or close it later"


@dataclass(frozen=True, eq=False)
class Task:
    """One leaf's share of one call.

    Args:
        leaf: what is measured.
        rollouts: the whole batch.
        rows: which rows the leaf is asked for, ascending; at least one.
        context: the circumstances; its rollouts are the whole batch.
        deadline: seconds per unit where the leaf states none.
    """

    leaf: Leaf
    rollouts: Rollouts
    rows: Int[np.ndarray[Any, Any], "m"]
    context: Context
    deadline: float

    @property
    def seconds(self) -> float:
        """The deadline of each unit, counted from when its work starts."""
        return float(self.deadline if self.leaf.deadline is None else self.leaf.deadline)


class Running(Protocol):
    """Work that has been started."""

    def scores(self) -> Scores:
        """Wait, and give one score or abstention for each asked row; the batch's other rows are masked."""

    def cancel(self) -> None:
        """Stop; nobody will ask for the scores."""


class Lane(Protocol):
    """A way of running leaves."""

    def start(self, task: Task) -> Running:
        """Begin the work of one leaf and return without waiting for it."""

    def close(self) -> None:
        """Give back processes and threads; work that is not finished abstains."""
