"""Length against the rest of the group: relative to what others needed for the same prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.scores import Scores
from guerdon.shaping.length_reward import Apply, Curve, LengthReward, Standard
from guerdon.shaping.pools import moments, pooled


@dataclass(frozen=True, kw_only=True)
class group_length(LengthReward):
    """Pay for being brief among the rollouts of one prompt.

    The curves b(z), `weight`, `wrong`, `apply`, the floors, `tolerance`, `above` and `unit` are those of
    `LengthReward`; here T and W are statistics of the group's lengths:

        std: T = mean, W = (population) standard deviation        mean: T = W = mean
        range: T = (min + max)/2, W = max − min

    A group without any rollout to take them of pays and costs nothing. Lengths that are all equal are z = 0: half
    of the sigmoid, nothing of the others. With the defaults, a correct completion is scaled by 1 − 0.6 σ(z).

    Args:
        statistic: T and W, as above.
        of: which of the group's rollouts they are taken of: the "correct" ones, or "all" that have a score.

    Raises:
        ValueError: as `LengthReward`; for another statistic or `of`; for the inverse curve without "mean".

    >>> from guerdon import Scores, Context, Rollouts
    >>> batch = Context(Rollouts(["p"] * 3, ["w " * n for n in (1, 2, 3)]))
    >>> group_length(unit="words")(Scores.of([1.0, 1.0, 1.0]), batch).read(0.0).round(3)
    array([0.864, 0.7  , 0.536])

    Source: GRPO-λ (arXiv 2505.18086); HARMO (2510.05283): "deviation" of "mean", wrong="same"; Kimi k1.5 (2501.12599):
    "linear" of the "range" of "all", wrong="penalty"; the baselines of SAR (2509.05489): "tanh", and "inverse" of the
    "mean" of "all".
    """

    curve: Curve = "sigmoid"
    weight: float = 0.6
    apply: Apply = "multiply"
    statistic: Literal["std", "mean", "range"] = "std"
    of: Literal["correct", "all"] = "correct"

    scope = "group"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.statistic not in ("std", "mean", "range"):
            raise ValueError(f"statistic is 'std', 'mean' or 'range', got {self.statistic!r}")
        if self.of not in ("correct", "all"):
            raise ValueError(f"of is 'correct' or 'all', got {self.of!r}")
        if self.curve == "inverse" and self.statistic != "mean":
            raise ValueError(f"the inverse curve is a ratio to the mean: statistic='mean', not {self.statistic!r}")

    def _standard(
        self,
        lengths: Float[np.ndarray[Any, Any], "n"],
        correct: Bool[np.ndarray[Any, Any], "n"],
        scores: Scores,
        context: Context,
    ) -> Standard:
        index, groups = pooled(scores, context, "group")
        known = moments(lengths, correct if self.of == "correct" else to_numpy(scores.valid), index, groups)
        if self.statistic == "range":
            length, width = (known.low + known.high) / 2, known.high - known.low
        else:
            length, width = known.mean, known.std() if self.statistic == "std" else known.mean
        return Standard(length[index], width[index], known.size[index] > 0, {})
