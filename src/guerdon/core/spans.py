"""Where each reasoning step, turn or token range of a rollout begins and ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int

from guerdon.core.arrays import Array, concatenate, like, pad, to_numpy

Unit = Literal["token", "character"]


@dataclass(frozen=True, eq=False)
class Spans:
    """Half-open ranges, one row per rollout, one column per step, padded on the right.

    Args:
        begin: Int["n s"], first position of each step.
        end: Int["n s"], one past the last; `begin == end` is an empty step.
        mask: Bool["n s"], True where the step exists.
        unit: what positions count: tokens of the completion, or characters of its text.

    Raises:
        ValueError: if shapes differ, a step ends before it begins, or steps of a row overlap.

    >>> Spans.of([[(0, 3), (3, 7)], [(0, 2)]]).mask
    array([[ True,  True],
           [ True, False]])
    """

    begin: Int[Array, "n s"]
    end: Int[Array, "n s"]
    mask: Bool[Array, "n s"]
    unit: Unit = "token"

    def __post_init__(self) -> None:
        begin, end, mask = (to_numpy(x) for x in (self.begin, self.end, self.mask))
        if not begin.shape == end.shape == mask.shape or begin.ndim != 2:
            raise ValueError(
                f"spans need begin, end and mask of one shape (n, s), got {begin.shape}, {end.shape}, {mask.shape}"
            )
        reached = np.maximum.accumulate(np.where(mask, end, 0), axis=1)
        bad = mask & ((end < begin) | (begin < 0))
        bad[:, 1:] |= mask[:, 1:] & (begin[:, 1:] < reached[:, :-1])
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise ValueError(
                f"row {row}, step {column}: a step must end after it begins, and begin after the one before it ends"
            )

    @classmethod
    def of(cls, rows: Sequence[Sequence[tuple[int, int]]], *, unit: Unit = "token") -> Spans:
        """Spans from one list of (begin, end) per rollout."""
        width = max((len(row) for row in rows), default=0)
        begin, end = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
        mask = np.zeros((len(rows), width), bool)
        for i, row in enumerate(rows):
            for j, (first, last) in enumerate(row):
                begin[i, j], end[i, j], mask[i, j] = first, last, True
        return cls(begin, end, mask, unit)

    def __len__(self) -> int:
        return int(self.begin.shape[0])

    @property
    def counts(self) -> Int[Array, "n"]:
        """How many steps each rollout has."""
        return self.mask.sum(-1)

    def select(self, index: Any) -> Spans:
        """The spans of some rows."""
        return Spans(self.begin[index], self.end[index], self.mask[index], self.unit)

    @classmethod
    def concat(cls, batches: Sequence[Spans]) -> Spans:
        """Batches of one unit, one after the other, padded to the one with most steps."""
        units = {batch.unit for batch in batches}
        if len(units) != 1:
            raise ValueError(f"concat needs spans of one unit, got {', '.join(sorted(units)) or 'none'}")
        width = max(batch.mask.shape[1] for batch in batches)
        begin, end, mask = (
            concatenate([pad(getattr(batch, name), width) for batch in batches]) for name in ("begin", "end", "mask")
        )
        return cls(begin, end, mask, batches[0].unit)

    def rows(self) -> list[list[tuple[int, int]]]:
        """One list of (begin, end) per rollout; the inverse of `of`."""
        begin, end, mask = (to_numpy(x) for x in (self.begin, self.end, self.mask))
        return [[(int(b), int(e)) for b, e in zip(begin[i][m], end[i][m], strict=True)] for i, m in enumerate(mask)]

    def to_tokens(self, offsets: Int[Array, "n t 2"]) -> Spans:
        """Character spans as token spans: a token belongs to the step in which its first character lies.

        Args:
            offsets: the (begin, end) characters of each token in the completion's text; begin is −1
                where the token has none (padding, special tokens).
        """
        if self.unit == "token":
            return self
        first = to_numpy(offsets)[:, None, :, 0]
        begin, end, mask = (to_numpy(x) for x in (self.begin, self.end, self.mask))
        place = np.arange(first.shape[-1])
        inside = (first >= np.maximum(begin, 0)[:, :, None]) & (first < end[:, :, None])
        before = (first >= 0) & (first < begin[:, :, None])
        # A step without a token stands behind the last token before it.
        stop = np.where(inside.any(-1)[..., None], inside, before)
        stop = np.where(stop, place + 1, 0).max(-1, initial=0)
        start = np.minimum(np.where(inside, place, len(place)).min(-1, initial=len(place)), stop)
        return Spans(like(start, self.begin), like(stop, self.begin), like(mask, self.begin), "token")


def split(texts: Sequence[str], separator: str = "\n\n") -> Spans:
    r"""Steps of a text, cut after each separator; empty steps are merged into the one before.

    The separator belongs to the step it ends, so the steps of a text cover it without a gap. Separators
    at the very start belong to the first step that is not empty.

    >>> split(["a\n\nbc\n\n\n\nd"]).rows()
    [[(0, 3), (3, 9), (9, 10)]]

    Source: the step separator of PURE (arXiv 2504.15275) and PRM800K-style process rewards.
    """
    if not separator:
        raise ValueError("separator is empty: a text has no steps between nothing")
    rows = []
    for text in texts:
        ends: list[int] = []
        position, filled = 0, False
        for piece in text.split(separator):
            position = min(position + len(piece) + len(separator), len(text))
            if (piece and filled) or not ends:
                ends.append(position)
            else:
                ends[-1] = position
            filled = filled or bool(piece)
        rows.append([step for step in pairwise([0, *ends]) if step[0] < step[1]])
    return Spans.of(rows, unit="character")
