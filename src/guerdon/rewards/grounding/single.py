"""One box or point against one box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.core.parsing import Completion, Passage
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores
from guerdon.rewards import geometry
from guerdon.rewards.geometry.boxes import Edges
from guerdon.rewards.grounding.reading import Rows, Units, columns_of, numbers, passages, scales, sizes_of, vectors

NOT_A_BOX = "reference is not a usable box"


class _Sides(NamedTuple):
    answers: Float[np.ndarray[Any, Any], "n 4"]
    references: Float[np.ndarray[Any, Any], "n 4"]
    rows: Rows
    points: bool

    def scores(self, values: Float[np.ndarray[Any, Any], "n"], floor: float = 0.0) -> Scores:
        said = (self.answers[:, :2] if self.points else self.answers).tolist()
        shown = [None if why else answer for answer, why in zip(said, self.rows.problems, strict=True)]
        return self.rows.scores(values, floor, answer=shown)


def _columns(*, units: Units, **options: Any) -> tuple[str, ...]:
    return columns_of("box", units)


def _columns_and_size(*, units: Units, **options: Any) -> tuple[str, ...]:
    return columns_of("box", units, size=True)


def _range(*, generalized: bool, **options: Any) -> Range:
    return (-1.0 if generalized else 0.0), 1.0


@reward(range=_range, lane="batch", columns=_columns)
def iou(
    completion: Sequence[Completion],
    box: Sequence[Any],
    size: Sequence[Any] | None = None,
    seen: Sequence[Any] | None = None,
    *,
    generalized: bool = False,
    edges: Edges = "continuous",
    within: Passage = "reply",
    units: Units = "pixels",
) -> Scores:
    """Intersection over union of the box that the reply gives and the reference.

    The box is the first bracket of four numbers: `[x1, y1, x2, y2]` by itself, in a sentence, or in JSON. Only the
    first counts, so that listing boxes until one fits does not pay; the whole picture overlaps a small target by its
    share of the area only.

    Args:
        completion: the reply: text or chat messages.
        box: the reference, [x1, y1, x2, y2].
        size: [width, height] of the picture in the units of the reference; read unless `units` is 'pixels'.
        seen: [width, height] of the picture as the model saw it; read if `units` is 'seen'.
        generalized: GIoU, from −1: a near miss is worth more than a far one.
        edges: 'pixels' if the high coordinate is the last pixel inside: see `geometry.iou`.
        within: see `text.exact`. A box that is only thought of does not count; with 'answer_tag', nor does one
            that is only mentioned.
        units: of the answer: 'pixels' of the picture, 'unit' (0 to 1), 'thousand' (0 to 1000), or pixels of the
            picture as 'seen' after it was resized for the model.

    Returns:
        In [0, 1], or [−1, 1] if generalized. A reply without a box, or with one that is not finite or has a high
        coordinate below the low one, gets the floor, 0 or −1; the detail `problem` says why.

    >>> from guerdon.rewards import grounding
    >>> grounding.iou()(prompts=["?"] * 3, completions=["[0, 0, 2, 1]", "[2, 0, 0, 1]", "[0, 0, 1, 1]"],
    ...                 box=[[1, 0, 3, 1], [0, 0, 2, 1], [1, 1, 0, 0]])
    [0.3333333333333333, 0.0, None]

    Source: the accuracy rewards of VLM-R1 (arXiv 2504.07615), Visual-RFT (2503.01785) and GUI-G1 (2505.15810).
    """
    sides = _sides(completion, box, size, seen, within, units, edges=edges)
    values = geometry.iou(sides.answers, sides.references, edges=edges, generalized=generalized)
    return sides.scores(values, -1.0 if generalized else 0.0)


@reward(range=(0, 1), lane="batch", columns=_columns)
def inside(
    completion: Sequence[Completion],
    box: Sequence[Any],
    size: Sequence[Any] | None = None,
    seen: Sequence[Any] | None = None,
    *,
    within: Passage = "reply",
    units: Units = "pixels",
) -> Scores:
    """1 if the point that the reply gives, or the middle of its box, lies in the reference, else 0.

    A click is the first bracket of two or four numbers: `(x, y)`, `click(x=…, y=…)`, `[x1, y1, x2, y2]`. The middle
    says nothing of the box: any size around it is worth the same, until `edges` is added.

    Args:
        completion: the reply: text or chat messages.
        box: the reference, [x1, y1, x2, y2]; its edges belong to it.
        size, seen, within, units: see `iou`.

    Returns:
        0 or 1; the detail `problem` says why an answer is unusable.

    >>> from guerdon.rewards import grounding
    >>> grounding.inside()(["?", "?"], ["click(x=150, y=120)", "(90, 120)"], box=[[100, 100, 200, 140]] * 2)
    [1.0, 0.0]

    Source: the hit reward of GUI-G1 (arXiv 2505.15810).
    """
    sides = _sides(completion, box, size, seen, within, units, points=True)
    return sides.scores(geometry.inside(sides.answers[:, :2], sides.references).astype(np.float64))


@reward(range=(0, 1), lane="batch", columns=_columns)
def gaussian(
    completion: Sequence[Completion],
    box: Sequence[Any],
    size: Sequence[Any] | None = None,
    seen: Sequence[Any] | None = None,
    *,
    spread: float = 0.5,
    within: Passage = "reply",
    units: Units = "pixels",
) -> Scores:
    """How near the point that the reply gives, or the middle of its box, is to the middle of the reference.

        exp(−½ Σ (distance / (spread · extent of the reference))²)

    Near the target every step towards it pays, also outside of it, where a hit is 0 all over.

    Args:
        completion: the reply: text or chat messages; see `inside` for how a click is written.
        box: the reference, [x1, y1, x2, y2].
        spread: see `geometry.gaussian`.
        size, seen, within, units: see `iou`.

    Returns:
        In [0, 1]; the detail `problem` says why an answer is unusable.

    >>> from guerdon.rewards import grounding
    >>> grounding.gaussian()(["?"], ["(150, 120)"], box=[[100, 100, 200, 140]])
    [1.0]

    Source: the point reward of GUI-G² (arXiv 2507.15846); the proximity of Sweet Spot Learning (2601.22491).
    """
    sides = _sides(completion, box, size, seen, within, units, points=True)
    return sides.scores(geometry.gaussian(sides.answers[:, :2], sides.references, spread=spread))


@reward(range=(0, 1), lane="batch", columns=_columns)
def coverage(
    completion: Sequence[Completion],
    box: Sequence[Any],
    size: Sequence[Any] | None = None,
    seen: Sequence[Any] | None = None,
    *,
    spread: float = 0.5,
    within: Passage = "reply",
    units: Units = "pixels",
) -> Scores:
    """How far the box that the reply gives and the reference cover each other, seen as Gaussians.

    Beside `gaussian`, which knows only the middle, it keeps boxes from growing: the whole screen covers a button
    badly however well it is centred.

    Args:
        completion: the reply: text or chat messages; see `iou`.
        box: the reference, [x1, y1, x2, y2].
        spread: see `geometry.coverage`.
        size, seen, within, units: see `iou`.

    Returns:
        In [0, 1]; the detail `problem` says why an answer is unusable.

    >>> from guerdon.rewards import grounding
    >>> grounding.coverage()(["?"], ["[50, 80, 250, 160]"], box=[[100, 100, 200, 140]])
    [0.8]

    Source: the coverage reward of GUI-G² (arXiv 2507.15846).
    """
    sides = _sides(completion, box, size, seen, within, units)
    return sides.scores(geometry.coverage(sides.answers, sides.references, spread=spread))


@reward(range=(0, 1), lane="batch", columns=_columns_and_size)
def edges(
    completion: Sequence[Completion],
    box: Sequence[Any],
    size: Sequence[Any],
    seen: Sequence[Any] | None = None,
    *,
    within: Passage = "reply",
    units: Units = "pixels",
) -> Scores:
    """How near the edges of the box that the reply gives are to the reference's: their harmonic mean.

    Beside a hit, which any box around the right middle is, it keeps boxes from growing or shrinking.

    Args:
        completion: the reply: text or chat messages; see `iou`.
        box: the reference, [x1, y1, x2, y2].
        size: [width, height] of the picture.
        seen, within, units: see `iou`.

    Returns:
        In [0, 1]; the detail `problem` says why an answer is unusable.

    >>> from guerdon.rewards import grounding
    >>> grounding.edges()(["?"], ["[0, 0, 50, 100]"], box=[[0, 0, 100, 100]], size=[[100, 100]])  # 4/(1 + 1 + 2 + 1)
    [0.8]

    Source: the box-size constraint of GUI-G1 (arXiv 2505.15810).
    """
    sides = _sides(completion, box, size, seen, within, units)
    wide = sizes_of(size, len(box), "size", sides.rows.reasons)
    return sides.scores(geometry.edge_agreement(sides.answers, sides.references, wide))


def _sides(
    completion: Sequence[Completion],
    box: Sequence[Any],
    size: Sequence[Any] | None,
    seen: Sequence[Any] | None,
    within: Passage,
    units: Units,
    *,
    edges: Edges = "continuous",
    points: bool = False,
) -> _Sides:
    """What the replies say, in the units of the references; points stand at both corners of a box without extent."""
    reasons: dict[int, str] = {}
    expected = vectors(box, 4, NOT_A_BOX, reasons)
    for row in np.flatnonzero(~geometry.usable(expected, edges=edges)).tolist():
        reasons.setdefault(row, f"{NOT_A_BOX}: {expected[row].tolist()}")
    scale = scales(units, size, seen, len(box), reasons)
    read = [
        None if text is None else numbers(text, *((2, 4) if points else (4,))) for text in passages(completion, within)
    ]
    boxes = np.array([(found * 2 if len(found) == 2 else found) if found else [np.nan] * 4 for found in read])
    boxes = boxes.reshape(-1, 4) * np.tile(scale, 2)
    fits = geometry.usable(boxes, edges=edges)
    if points:
        single = np.array([found is not None and len(found) == 2 for found in read], bool)
        fits = np.where(single, np.isfinite(boxes).all(1), fits)
        boxes = np.where(single[:, None], boxes, np.tile(geometry.centers(boxes), 2))
    problems = [
        None if good else "no point" if points and found is None else "no box" if found is None else _fault(found)
        for good, found in zip(fits.tolist(), read, strict=True)
    ]
    return _Sides(boxes, expected, Rows(reasons, problems), points)


def _fault(found: list[float]) -> str:
    if not all(map(np.isfinite, found)):
        return f"not a finite place: {found}"
    return f"not a box: {found} has no extent, or a high coordinate below the low one"
