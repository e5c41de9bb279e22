"""Prompts in stages: what is learned first, and what only when that is there to build on."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
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
        by: the column that says of what kind a prompt is.
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
    by: str
    order: Sequence[str]
    begins: Sequence[float] | None = None
    filter: Filter = EVERYTHING
    seed: int = 0
    stages: list[Shuffled] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(set(self.order)) < len(self.order):
            raise ValueError(f"a kind stands in the order twice: {', '.join(self.order)}")
        rows: dict[str, list[Row]] = {kind: [] for kind in self.order}
        for place, row in enumerate(self.prompts):
            if row.get(self.by) not in rows:
                known = ", ".join(self.order)
                raise MissingInput(f"row {place}: column {self.by!r} is {row.get(self.by)!r}, no stage of: {known}")
            rows[row[self.by]].append(row)
        empty = [kind for kind, own in rows.items() if not own]
        if empty or not rows:
            raise ValueError(f"there are no prompts of the kind {', '.join(empty) or '(none is named)'}")
        if self.begins is None:
            sizes = [len(own) for own in rows.values()]
            self.begins = [done / len(self.prompts) for done in itertools.accumulate(sizes[:-1])]
        edges = [0.0, *self.begins, 1.0]
        if len(edges) != len(rows) + 1 or not all(a < b for a, b in itertools.pairwise(edges)):
            raise ValueError(f"{len(rows)} stages begin at {len(rows) - 1} rising points in (0, 1), got {self.begins}")
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
