"""From scores to advantages, and what a batch says about the reward."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.core.arrays import to_numpy
from guerdon.core.errors import TooManyAbstentions
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.objectives import kl_penalty
from guerdon.train.crediting import advantages
from guerdon.train.method import Method

Advantages: TypeAlias = Float[np.ndarray[Any, Any], "n"] | Float[np.ndarray[Any, Any], "n t"]

WINDOW = 5


@dataclass
class Abstentions:
    """The share of rollouts without a score over the last batches, and when it is too much."""

    counts: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    reasons: dict[str, int] = field(default_factory=dict)
    total: int = 0
    of: int = 0

    def plus(self, scores: Scores) -> Abstentions:
        """These and another batch's."""
        missing, tally = len(scores.abstained_rows), scores.tally()
        reasons = {reason: self.reasons.get(reason, 0) + tally.get(reason, 0) for reason in [*self.reasons, *tally]}
        counts = deque([*self.counts, (missing, len(scores))], maxlen=WINDOW)
        return Abstentions(counts, reasons, self.total + missing, self.of + len(scores))

    def check(self, most: float) -> None:
        """Stop a run whose scores are too many of them missing.

        Raises:
            TooManyAbstentions: if a whole batch abstained, or more than `most` of the last batches'
                rollouts; with the reasons tallied.
        """
        missing, of = (sum(column) for column in zip(*self.counts, strict=True))
        whole = self.counts[-1][0] == self.counts[-1][1]
        if not whole and missing <= most * of:
            return
        tally = sorted(self.reasons.items(), key=lambda item: -item[1])
        listed = "\n".join(f"  {count:6d} × {reason}" for reason, count in tally[:10])
        what = "all of the last batch's" if whole else f"{missing} of the last {of}"
        raise TooManyAbstentions(
            f"training stops: {what} rollouts could not be scored (max_abstain is {most:g}). Reasons so far:\n{listed}"
        )

    @property
    def share(self) -> float:
        """Of all rollouts so far."""
        return self.total / self.of if self.of else 0.0

    def state(self) -> dict[str, Any]:
        """As plain data."""
        return {"counts": [list(c) for c in self.counts], "reasons": self.reasons, "total": self.total, "of": self.of}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Abstentions:
        """What `state` gave."""
        counts = deque(((int(a), int(b)) for a, b in state["counts"]), maxlen=WINDOW)
        return cls(counts, dict(state["reasons"]), int(state["total"]), int(state["of"]))


def credited(method: Method, rollouts: Rollouts, scores: Scores) -> Advantages:
    """Advantages of scored rollouts, or of their tokens: 0 where a rollout abstained."""
    return to_numpy(advantages(method.credit, rollouts, scores, penalty=penalty(method, rollouts)))


def penalty(method: Method, rollouts: Rollouts) -> Float[Tensor, "n"] | Float[Tensor, "n t"] | None:
    """The KL that is taken from rewards, one per rollout or token; None if none is."""
    if not method.kl.coefficient or method.kl.place == "loss":
        return None
    tokens = rollouts.tokens
    assert tokens is not None
    logp, ref_logp = torch.as_tensor(tokens.logp).double(), torch.as_tensor(tokens.ref_logp).double()
    divergence = kl_penalty(logp, ref_logp, kind=method.kl.kind)
    cost = method.kl.coefficient * torch.where(torch.as_tensor(tokens.written), divergence, 0.0)
    return cost if method.kl.place == "token" else cost.sum(1)


def informative(rollouts: Rollouts, advantages: Advantages) -> Bool[np.ndarray[Any, Any], "n"]:
    """For each rollout, whether any of its group has an advantage: whether the group teaches anything."""
    _, index = np.unique(rollouts.groups, return_inverse=True)
    signal = np.zeros(index.max(initial=-1) + 1, bool)
    there = advantages != 0
    np.logical_or.at(signal, index, there.any(1) if there.ndim == 2 else there)
    return signal[index]
