"""Scores of one kind of rows on the scale of another kind's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from guerdon.core.arrays import like, to_numpy
from guerdon.core.context import Context
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores
from guerdon.shaping.pools import moments, spread_out
from guerdon.shaping.shaper import Shaper

NO_SIGNAL = 1e-6
Reach = tuple[float, float]


@dataclass(frozen=True)
class onto(Shaper):
    """Bring the scores of all kinds of rows to the range that the scores of one kind have.

        r' = min_T + (r − min_k)/(max_k − min_k) · (max_T − min_T)        k: the row's kind, T: the target

    After a `route` whose branches score in different units: open questions by a product of measures, closed ones by
    a similarity, say, would otherwise not have the same say. A kind whose scores do not differ is put at the middle
    of the target's range. Before a row of the target was ever scored there is no range, and scores stay as they are.

    Args:
        target: the kind whose scores stay as they are.
        by: the column that holds a row's kind, compared as text.
        over: the ranges of the "batch", or "running": of all scores observed so far in training together with those
            at hand.

    Raises:
        ValueError: for another pool.

    >>> from guerdon import Scores, Context, Rollouts
    >>> batch = Context(Rollouts(["?"] * 4, [""] * 4, {"type": ["open", "open", "closed", "closed"]}))
    >>> onto("open")(Scores.of([1.0, 5.0, 0.2, 0.4]), batch).read(0.0).round(2)
    array([1., 5., 1., 5.])

    Source: the interpolation of R³ (arXiv 2402.03469), which does not state its form; linear is our reading.
    """

    target: str
    by: str = "type"
    over: Literal["batch", "running"] = "running"
    state: dict[str, Reach] = field(default_factory=dict, init=False, repr=False, compare=False)

    scope = "batch"

    def __post_init__(self) -> None:
        if self.over not in ("batch", "running"):
            raise ValueError(f"over is 'batch' or 'running', got {self.over!r}")

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({self.by})

    def range(self, inner: Range) -> Range:
        return inner

    def __call__(self, scores: Scores, context: Context) -> Scores:
        reaches, kinds = self._reaches(scores, context)
        if self.target not in reaches:
            return scores
        table = np.array([reaches.get(kind, (0.0, 0.0)) for kind in kinds], float).reshape(-1, 2)
        values, (bottom, top) = scores.read(0.0), reaches[self.target]
        own = np.array([kind == self.target for kind in kinds], bool)
        low, width = table[:, 0], table[:, 1] - table[:, 0]
        flat = width <= NO_SIGNAL * np.abs(table).max(1, initial=0.0)
        # scale · r + shift, so that rows of the target keep their scores to the bit.
        scale = np.where(own, 1.0, np.where(flat, 0.0, (top - bottom) / np.where(flat, 1.0, width)))
        shift = np.where(own, 0.0, np.where(flat, (bottom + top) / 2, bottom - low * scale))
        scale, shift = (like(spread_out(x, values.ndim), values) for x in (scale, shift))
        return scores.with_values(values * scale + shift)

    def _reaches(self, scores: Scores, context: Context) -> tuple[dict[str, Reach], Sequence[str]]:
        kinds = [str(entry) for entry in context.require_rollouts().column(self.by)]
        names, index = np.unique(np.array(kinds, str), return_inverse=True)
        known = moments(to_numpy(scores.read(0.0)), to_numpy(scores.valid), index, len(names))
        reaches = dict(self.state) if self.over == "running" else {}
        for i, name in enumerate(names.tolist()):
            if known.size[i]:
                here = float(known.low[i]), float(known.high[i])
                before = reaches.get(name, here)
                reaches[name] = min(here[0], before[0]), max(here[1], before[1])
        return reaches, kinds

    def observe(self, scores: Scores, context: Context) -> None:
        """Widen the running ranges by the scores of a training step."""
        if self.over == "running":
            self.state.update(self._reaches(scores, context)[0])

    def state_dict(self) -> dict[str, Any]:
        return {name: list(reach) for name, reach in self.state.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, reach in state.items():
            if len(reach) != 2 or not reach[0] <= reach[1]:
                raise ValueError(f"{self.name} keeps the lowest and highest score of each kind, got {name}: {reach!r}")
        self.state.clear()
        self.state.update({name: (float(reach[0]), float(reach[1])) for name, reach in state.items()})
