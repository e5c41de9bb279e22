"""Training that ends with the weights that did best, not with the last."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(eq=False)
class BestWeights:
    """The weights of a model at the best score it had on what it is not trained on.

    A policy that is trained towards a reward first gains what was meant, then what was not: keep score by a stricter
    reward than the one that trains, and come back to where it was best.

    Args:
        model: whose weights are kept, on the device they are on.
        patience: how many scores in a row may be no better before `done`; None: it is never.

    Raises:
        ValueError: if patience is less than 1.

    Source: the early stopping of RPO (arXiv 2407.12164): trained with λ = 0, kept by the λ-harmonic reward of
    generated validation pictures.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> best = BestWeights(model, patience=2)
    >>> for score, weight in [(0.1, 1.0), (0.3, 2.0), (0.2, 3.0), (0.2, 4.0)]:
    ...     _ = model.weight.data.fill_(weight)
    ...     _ = best.observe(score)
    >>> best.done, best.restore(), model.weight.item()
    (True, 0.3, 2.0)
    """

    model: nn.Module
    patience: int | None = None
    score: float = field(default=-math.inf, init=False)
    since: int = field(default=0, init=False)
    weights: Mapping[str, Any] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1, got {self.patience}")

    def observe(self, score: float) -> bool:
        """Keep the weights if they are the best so far; says whether they are.

        Raises:
            ValueError: if the score is not finite: a validation that abstained is no score.
        """
        if not math.isfinite(score):
            raise ValueError(f"score must be finite, got {score}")
        if score > self.score:
            self.score, self.since = score, 0
            self.weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
            return True
        self.since += 1
        return False

    @property
    def done(self) -> bool:
        """Whether it has been no better for too long."""
        return self.patience is not None and self.since >= self.patience

    def restore(self) -> float:
        """Put the best weights back, and say their score.

        Raises:
            ValueError: if nothing was observed.
        """
        if self.weights is None:
            raise ValueError("nothing was observed: there are no best weights")
        self.model.load_state_dict(self.weights)
        return self.score
