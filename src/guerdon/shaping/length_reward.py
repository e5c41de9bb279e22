"""The one family of length rewards: a curve of the length against something, and what it does to the score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float

from guerdon.core import arrays
from guerdon.core.arrays import like, to_numpy
from guerdon.core.context import Context
from guerdon.core.parsing import Passage, passage, text_of
from guerdon.core.protocols import Range
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.shaping.length import Unit, check_unit
from guerdon.shaping.shaper import Shaper

Curve = Literal["step", "cut", "linear", "excess", "deviation", "sigmoid", "tanh", "cosine", "inverse", "peak"]
Wrong = Literal["none", "same", "penalty", "explore"]
Apply = Literal["add", "multiply", "alone"]

_ENDS: dict[str, Range] = {
    "step": (0.0, 1.0),
    "cut": (-1.0, 0.0),
    "linear": (-math.inf, 1.0),
    "excess": (-math.inf, 0.0),
    "deviation": (-math.inf, 0.0),
    "sigmoid": (-1.0, 0.0),
    "tanh": (-1.0, 1.0),
    "cosine": (-1.0, 1.0),
    "inverse": (-1.0, 1.0),
    "peak": (-math.inf, 1.0),
}


class Standard(NamedTuple):
    """What the length of each row is held against.

    `known` is False where there is nothing to hold it against, which costs and pays nothing; `reasons` says
    why a row has to abstain.
    """

    length: Float[np.ndarray[Any, Any], "n"]
    width: Float[np.ndarray[Any, Any], "n"]
    known: Bool[np.ndarray[Any, Any], "n"]
    reasons: dict[int, str]


@dataclass(frozen=True, kw_only=True)
class LengthReward(Shaper):
    """A length reward on a score that says what is correct: rows with a score above `above` are.

    With z = (L − T)/W, the distance of the length L from its standard T in widths W (0 where W is 0):

        step       b = 1 if L ≤ T and the completion is finished, else 0
        cut        b = 0 if L ≤ T and the completion is finished, else −1
        linear     b = min((−z)⁺, 1) − (z − τ)⁺
        excess     b = −(z − τ)⁺
        deviation  b = −(|z| − τ)⁺/(1 − τ)
        sigmoid    b = −σ(z)
        tanh       b = −tanh(z/2) = 1 − 2σ(z)
        cosine     b = −sin(π/2 · clip(z, −1, 1)), which is cos(π/2 · min(L/T, 2)) for W = T
        inverse    b = min(T/L − 1, 1), for W = T
        peak       b = 1 − z² up to T, 1 − 2z² from there on: as long as T, neither less nor more

    What T and W are is the subclass's: a number or a column, the group's other rollouts, or the prompt's history.

    Args:
        curve: b(z), as above.
        weight: w ≥ 0.
        wrong: b of a wrong rollout. "none": 0; "same": as if correct; "penalty": min(b, 0), never rewarded for
            brevity; "explore", of the step curve: 1 if too long, else 0, room to think on.
        apply: "add": r' = r + w b; "multiply": r' = r (1 + w b), for scores that are never negative; "alone":
            r' = w b, to be weighed or normalised beside the score.
        floor: the least b of a correct rollout, so that with w · floor above -1 it stays above any wrong one.
        wrong_floor: the least b of a wrong one.
        tolerance: τ ≥ 0, the excess that costs nothing, in widths.
        above: a score above it is correct, exclusive as in `gate`. An abstention is neither.
        unit: what lengths count.
        within: whose length it is: see `text.exact`. Of another passage than the whole completion, in 'characters' or
            'words'; one that is not there has length 0. An answer that is padded is then no matter of how long was
            thought.

    Raises:
        ValueError: for another curve, wrong, apply, unit or passage; a passage in tokens; a weight or tolerance that is
            negative; a floor above 0; "explore" with another curve than "step"; or "multiply" with w · floor < −1, or
            on negative scores.
    """

    curve: Curve = "linear"
    weight: float = 1.0
    wrong: Wrong = "none"
    apply: Apply = "add"
    floor: float = -1.0
    wrong_floor: float = -1.0
    tolerance: float = 0.0
    above: float = 0.5
    unit: Unit = "tokens"
    within: Passage = "completion"

    level = "rollout"

    def __post_init__(self) -> None:
        for name, choices in (("curve", Curve), ("wrong", Wrong), ("apply", Apply), ("within", Passage)):
            known = get_args(choices)
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(map(repr, known))}, got {getattr(self, name)!r}")
        check_unit(self.unit)
        if self.unit == "tokens" and self.within != "completion":
            raise ValueError(f"the length within {self.within!r} is counted in 'characters' or 'words'")
        if not (0 <= self.weight < math.inf and 0 <= self.tolerance < math.inf) or math.isnan(self.above):
            raise ValueError(
                f"weight and tolerance must not be negative, got {self.weight} and {self.tolerance}; above is a "
                f"threshold, got {self.above}"
            )
        if self.curve == "deviation" and self.tolerance >= 1:
            raise ValueError(f"the tolerance of a deviation is below 1 width, got {self.tolerance}")
        if not (self.floor <= 0 and self.wrong_floor <= 0):
            raise ValueError(f"floors are at most 0, got {self.floor} and {self.wrong_floor}")
        if self.wrong == "explore" and self.curve != "step":
            raise ValueError(f"wrong='explore' pays where the step curve does not; this one is {self.curve!r}")
        if self.apply == "multiply" and self.weight * -self._ends()[0] > 1:
            raise ValueError(f"a factor 1 + {self.weight:g} · {self._ends()[0]:g} would turn a reward negative")

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"tokens"}) if self.unit == "tokens" else frozenset()

    def range(self, inner: Range) -> Range:
        low, high = (self.weight * end if self.weight else 0.0 for end in self._ends())
        if self.apply == "alone":
            return low, high
        if self.apply == "add":
            return inner[0] + low, inner[1] + high
        if inner[0] < 0:
            raise ValueError(
                f"{self.name} scales rewards that are never negative, this one reaches {inner[0]:g}: add instead"
            )
        return inner[0] * (1 + low), inner[1] * (1 + high)

    def __call__(self, scores: Scores, context: Context) -> Scores:
        rollouts = context.require_rollouts()
        lengths = self._lengths(rollouts)
        values = scores.read(0.0)
        correct = self._correct(scores)
        standard = self._standard(lengths, correct, scores, context)
        bonus = like(self.weight * self._bonus(lengths, rollouts.finished, correct, standard), values)
        usable = np.ones(len(lengths), bool)
        usable[list(standard.reasons)] = False
        valid = scores.valid & like(usable, scores.valid)
        if self.apply == "multiply":
            if bool((values < 0).any()):
                raise ValueError(
                    f"{self.name} scales rewards that are never negative: a penalty times such a one pays for length"
                )
            shaped = values * (1.0 + bonus)
        else:
            shaped = values + bonus if self.apply == "add" else bonus
        return scores.with_values(shaped, valid=valid, reasons={**standard.reasons, **scores.reasons})

    def _standard(
        self,
        lengths: Float[np.ndarray[Any, Any], "n"],
        correct: Bool[np.ndarray[Any, Any], "n"],
        scores: Scores,
        context: Context,
    ) -> Standard:
        """What each length is held against."""
        raise NotImplementedError

    def _lengths(self, rollouts: Rollouts) -> Float[np.ndarray[Any, Any], "n"]:
        if self.within == "completion":
            return rollouts.lengths(self.unit).astype(np.float64)
        texts = [passage(text_of(spoken), self.within) or "" for spoken in rollouts.column("completion")]
        return np.array([len(text.split()) if self.unit == "words" else len(text) for text in texts], np.float64)

    def _correct(self, scores: Scores) -> Bool[np.ndarray[Any, Any], "n"]:
        return np.asarray(to_numpy(scores.valid) & (to_numpy(scores.read(0.0)) > self.above))

    def _bonus(
        self,
        lengths: Float[np.ndarray[Any, Any], "n"],
        finished: Bool[np.ndarray[Any, Any], "n"],
        correct: Bool[np.ndarray[Any, Any], "n"],
        standard: Standard,
    ) -> Float[np.ndarray[Any, Any], "n"]:
        z = (lengths - standard.length) / np.where(standard.width > 0, standard.width, 1.0)
        fits = (lengths <= standard.length) & finished
        b = _curve(self.curve, np.where(standard.width > 0, z, 0.0), fits, self.tolerance)
        wrong = np.maximum(b, self.wrong_floor)
        if self.wrong == "none":
            wrong = np.zeros_like(b)
        elif self.wrong == "penalty":
            wrong = np.minimum(wrong, 0.0)
        elif self.wrong == "explore":
            wrong = 1.0 - b
        return np.where(standard.known, np.where(correct, np.maximum(b, self.floor), wrong), 0.0)

    def _ends(self) -> Range:
        """The least and greatest b."""
        low, high = _ENDS[self.curve]
        ends = [0.0, max(low, self.floor), high]
        if self.wrong in ("same", "penalty"):
            ends.append(max(low, self.wrong_floor))
        return min(ends), max([*ends, *([1.0] if self.wrong == "explore" else [])])


def _curve(
    kind: str, z: Float[np.ndarray[Any, Any], "n"], fits: Bool[np.ndarray[Any, Any], "n"], tolerance: float
) -> Float[np.ndarray[Any, Any], "n"]:
    """b, as the docstring of `LengthReward` gives it."""
    if kind == "step":
        return fits.astype(np.float64)
    if kind == "cut":
        return fits.astype(np.float64) - 1.0
    if kind == "deviation":
        return np.asarray(-np.maximum(np.abs(z) - tolerance, 0.0) / (1.0 - tolerance))
    if kind == "sigmoid":
        return np.asarray(-arrays.sigmoid(z))
    if kind == "tanh":
        return np.asarray(-np.tanh(z / 2))
    if kind == "cosine":
        return np.asarray(-np.sin(np.pi / 2 * np.clip(z, -1.0, 1.0)))
    if kind == "inverse":
        return np.where(z > -0.5, -z / np.maximum(1.0 + z, 0.5), 1.0)
    if kind == "peak":
        return np.asarray(1.0 - np.where(z > 0, 2.0, 1.0) * z**2)
    excess = np.maximum(z - tolerance, 0.0)
    return -excess if kind == "excess" else np.clip(-z, 0.0, 1.0) - excess
