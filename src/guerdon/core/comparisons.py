"""Preferences between rollouts, as margins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from guerdon.core.arrays import Array, to_numpy, where


@dataclass(frozen=True, eq=False)
class Comparisons:
    """The outcome of comparing `m` pairs.

    Args:
        margin: Float["m"]; positive when the first is better, 0 for a tie. The unit is the
            comparator's: ±1 for verdicts, a log-odds for judges that give probabilities.
        valid: Bool["m"]; False where the comparator abstained.
        reasons: why, by pair.
        details: evidence, one entry per pair (critiques, both orders' verdicts).

    Raises:
        ValueError: if a valid margin is not finite, or an abstention has no reason.
    """

    margin: Float[Array, "m"]
    valid: Bool[Array, "m"]
    reasons: Mapping[int, str] = field(default_factory=dict)
    details: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.margin.shape != self.valid.shape or self.margin.ndim != 1:
            raise ValueError(f"margin and valid need one shape (m,), got {self.margin.shape} and {self.valid.shape}")
        margin, valid = to_numpy(self.margin), to_numpy(self.valid)
        bad = np.flatnonzero(valid & ~np.isfinite(margin))
        if bad.size:
            raise ValueError(f"pair {bad[0]}: margin is {margin[bad[0]]}; abstain instead")
        silent = [int(i) for i in np.flatnonzero(~valid) if not self.reasons.get(int(i))]
        if silent:
            raise ValueError(f"pair {silent[0]} abstains without a reason")

    def __len__(self) -> int:
        return int(self.margin.shape[0])

    def read(self, fill: float) -> Float[Array, "m"]:
        """The margins, with `fill` where the comparator abstained."""
        return where(self.valid, self.margin, fill)

    def swapped(self) -> Comparisons:
        """The same comparisons with first and second exchanged."""
        return Comparisons(-self.margin, self.valid, self.reasons, self.details)
