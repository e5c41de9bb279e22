"""Prompts in stages: what is learned first, and what only when that is there to build on."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool

from guerdon.core.context import Context
from guerdon.core.errors import MissingInput
from guerdon.core.scores import Scores
from guerdon.data.curriculum import EVERYTHING, Row, Shuffled
from guerdon.data.filter import Filter


@dataclass(eq=False)
class Staged:
    """Prompts of one kind after the other, in a new random order each epoch of a stage.

    Where reward is sparse, a policy that cannot yet read the map never finds a route that is paid. Kinds with dense
    rewards come first. Which stage it is follows the progress of training alone, so that it never goes back.

    Args:
        prompts: rows with 'prompt' and what the reward reads.
        by: the column that says of what kind a prompt is, or a function that says it of a row.
        order: the kinds, from the first stage to the last.
        begins: the progress at which each stage but the first begins, rising within (0, 1); by default each stage
            lasts in proportion to its number of prompts: the sorted data set, gone through once.
        filter: which groups count; by default all that were scored.
        seed: of the orders.

    Raises:
        ValueError: if a kind has no prompts, one stands in the order twice, or the stages do not begin one after
            another.
        MissingInput: if a row lacks the column, or is of a kind that is not in the order.

    >>> rows = [{"prompt": "hard", "kind": "plan"}, {"prompt": "easy", "kind": "order"}]
    >>> stages = Staged(rows, by="kind", order=("order", "plan"))
    >>> [stages.draw(1, Context(progress=p))[0]["prompt"] for p in (0.0, 0.4, 0.5, 1.0)]
    ['easy', 'easy', 'hard', 'hard']

    Source: the multi-stage training of RewardMap (arXiv 2510.02240): order judgement, counting, planning.
    """

    prompts: Sequence[Row]
    by: str | Callable[[Row], Any]
    order: Sequence[Any]
    begins: Sequence[float] | None = None
    filter: Filter = EVERYTHING
    seed: int = 0
    stages: list[Shuffled] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_stages(self.order, self.begins)
        rows: dict[Any, list[Row]] = {kind: [] for kind in self.order}
        for place, row in enumerate(self.prompts):
            kind = self.by(row) if callable(self.by) else row.get(self.by)
            if kind not in rows:
                known, read = ", ".join(map(str, self.order)), "kind" if callable(self.by) else f"column {self.by!r}"
                raise MissingInput(f"row {place}: {read} is {kind!r}, no stage of: {known}")
            rows[kind].append(row)
        empty = [str(kind) for kind, own in rows.items() if not own]
        if empty:
            raise ValueError(f"there are no prompts of the kind {', '.join(empty)}")
        if self.begins is None:
            sizes = [len(own) for own in rows.values()]
            self.begins = [done / len(self.prompts) for done in itertools.accumulate(sizes[:-1])]
        self.stages = [Shuffled(own, seed=self.seed + at) for at, own in enumerate(rows.values())]

    def stage(self, progress: float) -> int:
        """The stage at a point of training, from 0."""
        return bisect.bisect_right(list(self.begins or ()), progress)

    def draw(self, n: int, context: Context) -> list[Row]:
        return self.stages[self.stage(context.progress)].draw(n, context)

    def keep(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "g"]:
        return self.filter.keep(scores, context)

    def observe(self, scores: Scores, context: Context) -> None:
        self.filter.observe(scores, context)

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": [stage.drawn for stage in self.stages], "filter": self.filter.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if len(state["drawn"]) != len(self.stages):
            raise ValueError(f"the state is of {len(state['drawn'])} stages, there are {len(self.stages)}")
        for stage, drawn in zip(self.stages, state["drawn"], strict=True):
            stage.drawn = int(drawn)
        self.filter.load_state_dict(state["filter"])


def check_stages(order: Sequence[Any], begins: Sequence[float] | None) -> None:
    """Refuse stages that cannot follow one another.

    Raises:
        ValueError: if no kind is named, one stands in the order twice, or the stages do not begin one after another.
    """
    if not order:
        raise ValueError("there are no prompts of the kind (none is named)")
    if len(set(order)) < len(order):
        raise ValueError(f"a kind stands in the order twice: {', '.join(map(str, order))}")
    edges = [0.0, *(begins or ()), 1.0]
    if begins is not None and (len(begins) != len(order) - 1 or not all(a < b for a, b in itertools.pairwise(edges))):
        raise ValueError(f"{len(order)} stages begin at {len(order) - 1} rising points in (0, 1), got {list(begins)}")
