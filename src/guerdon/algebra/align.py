"""Scores of several rewards, brought to one kind of array and, for steps, to one segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from guerdon.core.arrays import is_tensor, like, pad, to_numpy
from guerdon.core.scores import Scores
from guerdon.core.spans import Spans


def aligned(scores: Sequence[Scores]) -> list[Scores]:
    """The same scores, so that they combine elementwise.

    If one holds a tensor, all do. Of scores of steps, each row takes the steps of the first reward that
    has a score in it: one that abstained there as a whole abstains at each of those steps, and one that
    cut the rollout otherwise abstains as well.
    """
    held = [s.read(0.0) for s in scores]
    tensor = next((values for values in held if is_tensor(values)), None)
    if tensor is not None:
        scores = [
            s if is_tensor(values) else s.with_values(like(values, tensor))
            for s, values in zip(scores, held, strict=True)
        ]
    return list(scores) if scores[0].level == "rollout" else _one_segmentation(scores)


def _one_segmentation(scores: Sequence[Scores]) -> list[Scores]:
    width = max(s.mask.shape[1] for s in scores)
    masks = [pad(to_numpy(s.mask), width) for s in scores]
    scored = [to_numpy(s.valid).any(-1) for s in scores]
    first = np.argmax([2 * some + mask.any(-1) for some, mask in zip(scored, masks, strict=True)], axis=0)
    steps = np.stack(masks)[first, np.arange(len(first))]
    spans = _spans(scores, steps, first, np.any(scored, axis=0))
    return [_on(s, mask, steps, spans) for s, mask in zip(scores, masks, strict=True)]


def _spans(
    scores: Sequence[Scores], steps: Bool[np.ndarray, "n s"], first: Int[np.ndarray, "n"], needed: Bool[np.ndarray, "n"]
) -> Spans | None:
    """Where the steps are, from the first reward that has them and says so; None if that is not known for all."""
    begin, end = np.zeros(steps.shape, np.int64), np.zeros(steps.shape, np.int64)
    known, units = np.zeros(len(steps), bool), []
    for own in (True, False):
        for k, s in enumerate(scores):
            if s.spans is None:
                continue
            fits = (pad(to_numpy(s.spans.mask), steps.shape[1]) == steps).all(-1)
            rows = fits & ~known & ((first == k) if own else True)
            begin[rows] = pad(to_numpy(s.spans.begin), steps.shape[1])[rows]
            end[rows] = pad(to_numpy(s.spans.end), steps.shape[1])[rows]
            known |= rows
            units.append(s.spans.unit)
    return None if not units or (needed & ~known).any() else Spans(begin, end, steps, units[0])


def _on(scores: Scores, mask: Bool[np.ndarray, "n s"], steps: Bool[np.ndarray, "n s"], spans: Spans | None) -> Scores:
    """The scores on these steps; where they are of other steps, the row abstains."""
    other = (mask != steps).any(-1)
    if spans is not None and scores.spans is not None:
        theirs = [pad(to_numpy(x), steps.shape[1]) for x in (scores.spans.begin, scores.spans.end)]
        moved = (theirs[0] != to_numpy(spans.begin)) | (theirs[1] != to_numpy(spans.end))
        other |= (moved & steps).any(-1) | (scores.spans.unit != spans.unit)
    other &= mask.any(-1)
    reasons = {
        int(row): f"its {mask[row].sum()} steps are not the {steps[row].sum()} steps of the reward beside it: "
        "combine rewards of one segmentation"
        for row in np.flatnonzero(other)
    }
    return Scores(
        pad(scores.read(0.0), steps.shape[1]),
        mask=np.where(other[:, None], steps, mask),
        valid=pad(to_numpy(scores.valid), steps.shape[1]) & ~other[:, None],
        spans=spans,
        reasons=reasons | scores.reasons,
        details=scores.details,
        parts=scores.parts,
    )
