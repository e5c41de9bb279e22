"""The leaves of a reward on their way through a batch, from their beginning to their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from guerdon.core.protocols import Leaf
from guerdon.core.scores import Scores
from guerdon.engine.lane import Lane, Running, Task


class Measurement:
    """Work on one batch that has been begun, so that more can be begun before it is waited for.

    Leaves that run in this process begin when the scores are asked for: a model is not asked for two
    batches at a time, and no deadline runs out while somebody else computes.

    Args:
        tasks: for each leaf, its work; None where nothing is asked of it.
        n: how many rows the batch has.
        lane: where a leaf runs.
    """

    def __init__(self, tasks: Mapping[Leaf, Task | None], n: int, lane: Callable[[Leaf], Lane]) -> None:
        self._tasks, self._n, self._lane = tasks, n, lane
        self._running: dict[Leaf, Running] = {}
        self._start(leaf for leaf in tasks if not in_process(leaf))

    def __len__(self) -> int:
        return self._n

    def scores(self) -> dict[Leaf, Scores]:
        """Wait for all leaves."""
        self._start(leaf for leaf in self._tasks if leaf not in self._running)
        try:
            # What runs on this thread goes first: the rest is on its way meanwhile.
            order = sorted(self._running, key=lambda leaf: not (in_process(leaf) and leaf.deadline is None))
            measured = {leaf: self._running[leaf].scores() for leaf in order}
        except BaseException:
            self.cancel()
            raise
        return {leaf: measured[leaf] if leaf in measured else _unasked(leaf, self._n) for leaf in self._tasks}

    def cancel(self) -> None:
        """Stop; nobody will ask for the scores."""
        for work in self._running.values():
            work.cancel()

    def _start(self, leaves: Iterable[Leaf]) -> None:
        try:
            for leaf in leaves:
                task = self._tasks[leaf]
                if task is not None:
                    self._running[leaf] = self._lane(leaf).start(task)
        except BaseException:
            self.cancel()
            raise


def in_process(leaf: Leaf) -> bool:
    """Whether a leaf is measured whole, in this process."""
    return leaf.lane == "batch" or leaf.differentiable


def _unasked(leaf: Leaf, n: int) -> Scores:
    shape = (n,) if leaf.level == "rollout" else (n, 0)
    return Scores(np.zeros(shape), mask=np.zeros(shape, bool))
