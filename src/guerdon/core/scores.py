"""Scores: numbers that are there, and reasons for those that are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from guerdon.core.arrays import Array, concatenate, flags, is_tensor, like, pad, row_numbers, to_numpy, where
from guerdon.core.spans import Spans, Unit

Level = Literal["rollout", "step"]


class Scores:
    """One score per rollout, or per step of each rollout; each is a finite number or an abstention.

    There is no attribute with the numbers: `read(fill)` is the only way to them, so whoever reads
    says what stands where there is none, and no abstention turns into a 0 by oversight.

    Args:
        values: Float["n"] or Float["n s"]; NumPy (held as float64) or a torch tensor of floats (held as
            it is; one of integers as float64). What stands where `valid` or `mask` is False does not matter.
        mask: True where a score is asked for; False is padding, or a row that was not routed here.
            Default: `spans.mask` if there are spans, else everywhere.
        valid: False where the scorer abstained. Default: `mask`.
        spans: for one score per step, where the steps are.
        reasons: for each row that abstains (anywhere), why; those of other rows are dropped.
        details: evidence, one entry per row.
        parts: the raw scores of the leaves and named composites this one was made from.

    Raises:
        ValueError: if shapes disagree, a valid score is not finite, or a row abstains without a reason.

    >>> scores = Scores.of([1.0, None], reasons={1: "reference not parseable: 'n/a'"})
    >>> scores.read(fill=0.5)
    array([1. , 0.5])
    >>> scores.abstained
    array([False,  True])
    """

    __slots__ = ("_values", "details", "mask", "parts", "reasons", "spans", "valid")

    def __init__(
        self,
        values: Float[Array, "n"] | Float[Array, "n s"],
        *,
        mask: Bool[Array, ...] | None = None,
        valid: Bool[Array, ...] | None = None,
        spans: Spans | None = None,
        reasons: Mapping[int, str] | None = None,
        details: Mapping[str, Sequence[Any]] | None = None,
        parts: Mapping[str, Scores] | None = None,
    ) -> None:
        if is_tensor(values):
            self._values = values if values.is_floating_point() else values.double()
        else:
            self._values = np.asarray(values, dtype=np.float64)
        if self._values.ndim not in (1, 2):
            raise ValueError(
                f"scores have one axis (rollouts) or two (rollouts, steps), got shape {tuple(self._values.shape)}"
            )
        shape = tuple(self._values.shape)
        if mask is None:
            mask = spans.mask if spans is not None else np.ones(shape, bool)
        self.mask = flags(mask, self._values)
        self.valid = flags(mask if valid is None else valid, self._values)
        self.spans = spans
        for what, array in (
            ("mask", self.mask),
            ("valid", self.valid),
            ("spans", None if spans is None else spans.mask),
        ):
            if array is not None and tuple(array.shape) != shape:
                raise ValueError(f"{what} has shape {tuple(array.shape)}, the scores have {shape}")
        self.valid = self.valid & self.mask
        self.details = dict(details or {})
        self.parts = dict(parts or {})
        self.reasons = {row: reasons[row] for row in self.abstained_rows if row in reasons} if reasons else {}
        self._check()

    def _check(self) -> None:
        for name, column in self.details.items():
            if len(column) != len(self):
                raise ValueError(f"detail {name!r} has {len(column)} entries for {len(self)} rollouts")
        finite = to_numpy(self._values)
        wrong = to_numpy(self.valid) & ~np.isfinite(finite)
        if wrong.any():
            where_ = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(f"score {where_} is {finite[where_]}: a score is finite or an abstention")
        for row in self.abstained_rows:
            if not self.reasons.get(row):
                raise ValueError(f"row {row} abstains without a reason")

    @classmethod
    def of(
        cls,
        values: Sequence[float | None],
        *,
        reasons: Mapping[int, str] | None = None,
        details: Mapping[str, Sequence[Any]] | None = None,
        mask: Bool[Array, "n"] | None = None,
    ) -> Scores:
        """One score per rollout from a list, where None, NaN and ±inf are abstentions.

        A row of `reasons` abstains whatever its number is.
        """
        array = np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)
        present = np.ones(array.shape, bool) if mask is None else np.asarray(mask, bool)
        why = {int(k): v for k, v in (reasons or {}).items()}
        valid = present & np.isfinite(array)
        valid[list(why)] = False
        for row in np.flatnonzero(present & ~valid):
            value = values[int(row)]
            why.setdefault(
                int(row),
                "no score was returned" if value is None else f"the score was {float(value)}, not a finite number",
            )
        return cls(array, mask=present, valid=valid, reasons=why, details=details)

    @classmethod
    def abstain(cls, n: int, reason: str, *, mask: Bool[Array, "n"] | None = None) -> Scores:
        """`n` abstentions for one reason."""
        present = np.ones(n, bool) if mask is None else np.asarray(mask, bool)
        return cls(
            np.zeros(n),
            mask=present,
            valid=np.zeros(n, bool),
            reasons={int(i): reason for i in np.flatnonzero(present)},
        )

    def __len__(self) -> int:
        return int(self._values.shape[0])

    def __repr__(self) -> str:
        numbers = np.where(to_numpy(self.valid), to_numpy(self._values), np.nan)
        parts = f", parts={list(self.parts)}" if self.parts else ""
        text = np.array2string(numbers, precision=4, threshold=8)
        return f"Scores({text}, abstained={int(self.abstained.sum())}{parts})"

    @property
    def level(self) -> Level:
        """'rollout' for one score per rollout, 'step' for one per step."""
        return "rollout" if self._values.ndim == 1 else "step"

    @property
    def abstained(self) -> Bool[Array, ...]:
        """True where a score was asked for and there is none."""
        return self.mask & ~self.valid

    @property
    def abstained_rows(self) -> list[int]:
        """The rows that abstain anywhere."""
        rows = self.abstained if self.level == "rollout" else self.abstained.any(-1)
        return [int(i) for i in np.flatnonzero(to_numpy(rows))]

    @property
    def usable(self) -> Bool[Array, "n"]:
        """Rows that are scored whole: at least one score asked for, and none of them an abstention."""
        if self.level == "rollout":
            return self.valid
        return self.mask.any(-1) & (self.valid == self.mask).all(-1)

    def read(self, fill: float) -> Float[Array, ...]:
        """The numbers, with `fill` where there is none; keeps gradients if a tensor is held."""
        return where(self.valid, self._values, fill)

    def mean(self) -> float | None:
        """The mean of the scores there are; None if there are none."""
        count = int(self.valid.sum())
        return float(to_numpy(self.read(0.0)).sum()) / count if count else None

    def tally(self) -> dict[str, int]:
        """How many rows abstain for each reason, most frequent first."""
        counts: dict[str, int] = {}
        for row in self.abstained_rows:
            counts[self.reasons[row]] = counts.get(self.reasons[row], 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def to_columns(self) -> dict[str, list[Any]]:
        """The scores as columns of a table.

        Returns:
            'score' (None for an abstention; a list for one score per step), 'valid', 'reason' (None
            where valid), 'details' (a dictionary per row; those of parts as 'part.detail'), and
            'part.NAME' for each part.
        """
        evidence = dict(self.details)
        for name, part in self.parts.items():
            alone = len(self.parts) == 1
            evidence |= {key if alone else f"{name}.{key}": column for key, column in part.details.items()}
        columns: dict[str, list[Any]] = {
            "score": self._listed(),
            "valid": [bool(v) for v in to_numpy(self.usable)],
            "reason": [self.reasons.get(i) for i in range(len(self))],
            "details": [
                {key: column[i] for key, column in evidence.items() if column[i] is not None} for i in range(len(self))
            ],
        }
        return columns | {f"part.{name}": part._listed() for name, part in self.parts.items()}

    def _listed(self) -> list[Any]:
        numbers, valid, mask = to_numpy(self._values), to_numpy(self.valid), to_numpy(self.mask)
        if self.level == "rollout":
            return [float(x) if ok else None for x, ok in zip(numbers, valid, strict=True)]
        return [
            [float(x) if ok else None for x, ok, there in zip(*row, strict=True) if there]
            for row in zip(numbers, valid, mask, strict=True)
        ]

    def with_values(
        self,
        values: Float[Array, ...],
        *,
        valid: Bool[Array, ...] | None = None,
        reasons: Mapping[int, str] | None = None,
        details: Mapping[str, Sequence[Any]] | None = None,
        parts: Mapping[str, Scores] | None = None,
    ) -> Scores:
        """The same rows with other numbers; what is not given is kept. This is what a shaper returns."""
        return Scores(
            values,
            mask=self.mask,
            valid=self.valid if valid is None else valid,
            spans=self.spans,
            reasons=self.reasons if reasons is None else {**self.reasons, **reasons},
            details=self.details if details is None else {**self.details, **details},
            parts=self.parts if parts is None else parts,
        )

    def select(self, index: Any) -> Scores:
        """The scores of some rows: a slice, row numbers or a Boolean mask."""
        rows = row_numbers(index, len(self))
        at = like(rows, self._values)
        return Scores(
            self._values[at],
            mask=self.mask[at],
            valid=self.valid[at],
            spans=None if self.spans is None else self.spans.select(rows),
            reasons={new: self.reasons[int(old)] for new, old in enumerate(rows) if int(old) in self.reasons},
            details={name: [column[int(i)] for i in rows] for name, column in self.details.items()},
            parts={name: part.select(index) for name, part in self.parts.items()},
        )

    def restrict(self, rows: Bool[np.ndarray[Any, Any], "n"]) -> Scores:
        """The same scores, as if asked for at some of the rows only."""
        rows = rows if self.level == "rollout" else rows[:, None]
        if not (to_numpy(self.mask) & ~rows).any():
            return self
        return Scores(
            self._values,
            mask=self.mask & like(rows, self.mask),
            valid=self.valid,
            spans=self.spans,
            reasons=self.reasons,
            details=self.details,
            parts={name: part.restrict(rows.reshape(-1)) for name, part in self.parts.items()},
        )

    def union(self, other: Scores) -> Scores:
        """These scores and, at the rows not asked for here, those of another measure of the same thing."""
        if other is self:
            return self
        here = self.mask if self.level == "rollout" else self.mask.any(-1)[:, None]
        row_here = to_numpy(here).reshape(-1)
        return Scores(
            where(here, self._values, other._values),
            mask=self.mask | other.mask,
            valid=where(here, self.valid, other.valid),
            spans=self.spans,
            reasons={**other.reasons, **self.reasons},
            details={
                name: [
                    (self if own else other).details.get(name, [None] * len(self))[row]
                    for row, own in enumerate(row_here)
                ]
                for name in {**self.details, **other.details}
            },
            parts={name: part.union(other.parts[name]) for name, part in self.parts.items()},
        )

    @classmethod
    def concat(cls, batches: Sequence[Scores]) -> Scores:
        """Batches of one level, one after the other, steps padded to the longest.

        Details that some lack are None there; parts that some lack are an error.
        """
        if len({scores.level for scores in batches}) != 1:
            raise ValueError("concat needs at least one batch, all of one level")
        if any(scores.parts.keys() != batches[0].parts.keys() for scores in batches):
            raise ValueError("concat needs batches with the same parts")
        step = batches[0].level == "step"
        width = max(scores._values.shape[-1] for scores in batches)

        def joined(arrays: list[Array]) -> Array:
            return concatenate([pad(array, width) for array in arrays] if step else arrays)

        offsets = np.cumsum([0, *map(len, batches)]).tolist()
        return cls(
            joined([scores._values for scores in batches]),
            mask=joined([scores.mask for scores in batches]),
            valid=joined([scores.valid for scores in batches]),
            spans=_joined_spans(batches) if step else None,
            reasons={
                at + row: why
                for at, scores in zip(offsets, batches, strict=False)
                for row, why in scores.reasons.items()
            },
            details={
                name: [entry for scores in batches for entry in scores.details.get(name, [None] * len(scores))]
                for name in dict.fromkeys(name for scores in batches for name in scores.details)
            },
            parts={name: cls.concat([scores.parts[name] for scores in batches]) for name in batches[0].parts},
        )


def _joined_spans(batches: Sequence[Scores]) -> Spans | None:
    """The spans of all batches; a batch without any step needs none."""
    units = {scores.spans.unit for scores in batches if scores.spans is not None}
    if not units or any(scores.spans is None and to_numpy(scores.mask).any() for scores in batches):
        return None
    unit = next(iter(units))
    return Spans.concat([scores.spans or _no_steps(scores.mask, unit) for scores in batches])


def _no_steps(mask: Array, unit: Unit) -> Spans:
    nowhere = np.zeros(mask.shape, np.int64)
    return Spans(nowhere, nowhere, mask, unit)
