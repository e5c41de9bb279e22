"""Rewards that pay for being brief."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from guerdon.core import arrays
from guerdon.core.arrays import like
from guerdon.core.context import Context
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores
from guerdon.shaping.shaper import Shaper

Unit = Literal["tokens", "characters", "words"]


@dataclass(frozen=True)
class brevity(Shaper):
    """Scale a reward down smoothly as the completion grows longer than a target.

        r' = r · (1 − w σ((L − target) / width))

    It multiplies, so a wrong answer (r = 0) gains nothing by being short, and with w < 1 a long
    right answer still beats any wrong one. For rewards that are never negative: a penalty times a
    negative reward would pay for length.

    Args:
        weight: w in [0, 1], the share of the reward that brevity decides.
        target: the length at which half of w is lost, in `unit`.
        width: how gradual the loss is, in `unit`; > 0.
        unit: tokens the policy wrote, characters or words.

    Raises:
        ValueError: if w is outside [0, 1], width ≤ 0, for another unit, or if a score is or can be negative.

    >>> from guerdon import Scores, Context, Rollouts
    >>> batch = Rollouts(["p", "p"], ["a b", "a b c d e f"])
    >>> brevity(weight=0.5, target=2, width=1, unit="words")(Scores.of([1.0, 0.0]), Context(batch)).read(0.0)
    array([0.75, 0.  ])

    Source: ours, in the family of multiplicative length rewards (e.g. Arora & Zanette, arXiv 2502.04463).
    """

    weight: float = 0.3
    target: float = 512.0
    width: float = 128.0
    unit: Unit = "tokens"

    level = "rollout"

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight is a share between 0 and 1, got {self.weight}")
        if not self.width > 0 or not math.isfinite(self.target):
            raise ValueError(f"width must be positive and target finite, got {self.width} and {self.target}")
        check_unit(self.unit)

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"tokens"}) if self.unit == "tokens" else frozenset()

    def range(self, inner: Range) -> Range:
        if inner[0] < 0:
            raise ValueError(
                f"brevity scales rewards that are never negative, this one reaches {inner[0]:g}: shift it first"
            )
        return inner[0] * (1 - self.weight), inner[1]

    def __call__(self, scores: Scores, context: Context) -> Scores:
        lengths = context.require_rollouts().lengths(self.unit)
        kept = 1.0 - self.weight * arrays.sigmoid((lengths - self.target) / self.width)
        values = scores.read(0.0)
        if bool((values < 0).any()):
            raise ValueError(
                "brevity scales rewards that are never negative: a penalty times a negative reward pays for length"
            )
        return scores.with_values(values * like(kept, values))


@dataclass(frozen=True)
class overlong(Shaper):
    """Punish completions that come close to the length limit, and most those that are cut by it.

        r' = r + p(L)      p = 0 for L ≤ M − B;   (M − B − L)/B for M − B < L ≤ M;   −1 for L > M

    Args:
        limit: M, the length limit in tokens.
        buffer: B in (0, M], the stretch before it over which the punishment grows.
        unit: what lengths count.

    Raises:
        ValueError: if B is not in (0, M], or for another unit.

    >>> from guerdon import Scores, Context, Rollouts
    >>> batch = Rollouts(["p"] * 3, ["a", "a b c", "a b c d e"])
    >>> overlong(limit=4, buffer=2, unit="words")(Scores.of([1.0, 1.0, 1.0]), Context(batch)).read(0.0)
    array([1. , 0.5, 0. ])

    Source: soft overlong punishment, DAPO (arXiv 2503.14476, eq. 13).
    """

    limit: int = 20480
    buffer: int = 4096
    unit: Unit = "tokens"

    level = "rollout"

    def __post_init__(self) -> None:
        if not 0 < self.buffer <= self.limit:
            raise ValueError(f"buffer must be in (0, limit], got {self.buffer} of {self.limit}")
        check_unit(self.unit)

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"tokens"}) if self.unit == "tokens" else frozenset()

    def range(self, inner: Range) -> Range:
        return inner[0] - 1.0, inner[1]

    def __call__(self, scores: Scores, context: Context) -> Scores:
        lengths = context.require_rollouts().lengths(self.unit)
        punishment = np.clip((self.limit - self.buffer - lengths) / self.buffer, -1.0, 0.0)
        values = scores.read(0.0)
        return scores.with_values(values + like(punishment, values))


def check_unit(unit: str) -> None:
    """Refuse a unit of length that there is not.

    Raises:
        ValueError: naming those there are.
    """
    if unit not in get_args(Unit):
        raise ValueError(f"unit is 'tokens', 'characters' or 'words', got {unit!r}")
