"""Length against the history of the prompt: what a correct answer to it needed before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from guerdon.core.context import Context
from guerdon.core.scores import Scores
from guerdon.shaping.length_reward import Curve, LengthReward, Standard, Wrong


@dataclass(frozen=True, kw_only=True)
class history_length(LengthReward):
    """Pay for beating the shortest correct answer so far to the same prompt.

    The curves b(z), `weight`, `wrong`, `apply`, the floors, `tolerance`, `above` and `unit` are those of
    `LengthReward`; here T = W = h, the prompt's history, which `observe` extends by the correct rollouts of each
    training step, and which is kept by the prompt's id across epochs. A prompt that was never solved pays and costs
    nothing. With the defaults, b is cos(π/2 · min(L/h, 2)), at least −0.7 for a correct answer, so that it stays above
    any wrong one, and at most 0 for a wrong one.

    Args:
        statistic: h is the "min" or the "mean" of the lengths of the correct answers so far.

    Raises:
        ValueError: as `LengthReward`; for another statistic.

    >>> from guerdon import Scores, Context, Rollouts
    >>> shaper = history_length(unit="words")
    >>> shaper.observe(Scores.of([1.0]), Context(Rollouts(["p"], ["w " * 10], ids=["a"])))
    >>> batch = Context(Rollouts(["p"] * 3, ["w " * n for n in (5, 10, 30)], ids=["a"] * 3))
    >>> shaper(Scores.of([1.0, 1.0, 0.0]), batch).read(0.0).round(3)
    array([ 1.707,  1.   , -1.   ])

    Source: HAPO (arXiv 2505.11225); its linear form is curve="linear", tolerance=0.1.
    """

    curve: Curve = "cosine"
    wrong: Wrong = "penalty"
    floor: float = -0.7
    statistic: Literal["min", "mean"] = "min"
    state: dict[str, list[float]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.statistic not in ("min", "mean"):
            raise ValueError(f"statistic is 'min' or 'mean', got {self.statistic!r}")

    def history(self, identity: str) -> float | None:
        """h of a prompt; None if it was never solved."""
        if identity not in self.state:
            return None
        count, total, least = self.state[identity]
        return least if self.statistic == "min" else total / count

    def _standard(
        self,
        lengths: Float[np.ndarray[Any, Any], "n"],
        correct: Bool[np.ndarray[Any, Any], "n"],
        scores: Scores,
        context: Context,
    ) -> Standard:
        length = np.array([self.history(identity) or 0.0 for identity in context.require_rollouts().ids], np.float64)
        return Standard(length, length, length > 0, {})

    def observe(self, scores: Scores, context: Context) -> None:
        """Remember the lengths of a training step's correct answers, by the id of their prompt."""
        rollouts = context.require_rollouts()
        lengths, correct = self._lengths(rollouts), self._correct(scores)
        for row in np.flatnonzero(correct):
            identity, length = rollouts.ids[int(row)], float(lengths[row])
            count, total, least = self.state.get(identity, (0.0, 0.0, length))
            self.state[identity] = [count + 1, total + length, min(least, length)]

    def state_dict(self) -> dict[str, Any]:
        return {identity: list(entry) for identity, entry in self.state.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for identity, entry in state.items():
            if len(entry) != 3:
                raise ValueError(f"{self.name} keeps count, total and least length of {identity!r}, got {entry!r}")
        self.state.clear()
        self.state.update({identity: [float(x) for x in entry] for identity, entry in state.items()})
