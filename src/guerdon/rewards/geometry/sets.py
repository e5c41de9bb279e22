"""Sets of boxes, one per row, of any sizes: which of one set is matched with which of the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.rewards.geometry.boxes import Boxes, Edges, iou, usable

Match = Literal["hungarian", "greedy", "order", "best"]
Cost = Literal["quality", "detr"]

AT_ONCE = 1 << 15  # pairs that are looked at together: few enough to stay in the cache
WORTHLESS = -1e300  # the likeness of a pair that may not be matched


@dataclass(frozen=True, eq=False)
class Sets:
    """One set of boxes per row, one after the other.

    Args:
        boxes: of all rows.
        counts: how many of them each row has.
        labels: what each box shows, as numbers; boxes with −1 show nothing known.

    Raises:
        ValueError: if the counts are not those of the boxes.

    >>> Sets.of([[[0, 0, 1, 1]], [], [[0, 0, 2, 2], [1, 1, 3, 3]]]).counts
    array([1, 0, 2])

    Source: ours; the ragged layout of segment sums.
    """

    boxes: Float[np.ndarray[Any, Any], "m 2k"]
    counts: Int[np.ndarray[Any, Any], "n"]
    labels: Int[np.ndarray[Any, Any], "m"] | None = None

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or int(self.counts.sum()) != len(self.boxes) or (self.counts < 0).any():
            raise ValueError(f"counts sum to {int(self.counts.sum())}, the boxes have shape {self.boxes.shape}")
        if self.labels is not None and len(self.labels) != len(self.boxes):
            raise ValueError(f"{len(self.labels)} labels for {len(self.boxes)} boxes")

    @classmethod
    def of(cls, rows: Sequence[Sequence[Sequence[float]]], *, axes: int = 2) -> Sets:
        """From a list of boxes per row."""
        flat = [box for row in rows for box in row]
        boxes = np.array(flat, np.float64).reshape(len(flat), 2 * axes)
        return cls(boxes, np.array([len(row) for row in rows], np.int64))

    @cached_property
    def rows(self) -> Int[np.ndarray[Any, Any], "m"]:
        """The row of each box."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def coordinates(self) -> Float[np.ndarray[Any, Any], "2k m"]:
        """The boxes, one row of memory per coordinate."""
        return np.ascontiguousarray(self.boxes.T)

    @cached_property
    def starts(self) -> Int[np.ndarray[Any, Any], "n"]:
        """Where each row's boxes begin."""
        return np.asarray(np.cumsum(self.counts) - self.counts)


class Pairs(NamedTuple):
    """For each box of the first sets: its partner among all boxes of the second (−1: none), and their quality."""

    partner: Int[np.ndarray[Any, Any], "m"]
    quality: Float[np.ndarray[Any, Any], "m"]


def pair_up(
    first: Sets,
    second: Sets,
    *,
    match: Match = "hungarian",
    cost: Cost = "quality",
    edges: Edges = "continuous",
    generalized: bool = False,
    above: float = 0.0,
    inclusive: bool = False,
    same_label: bool = False,
) -> Pairs:
    """Match the boxes of each row with those of another set, no box twice.

    The quality of a pair is its IoU, or GIoU. What is matched:

        hungarian   the pairs whose qualities (or costs) sum to the best there is
        greedy      the best pair, then the best of what is left, and so on
        order       each box of the first set, in its order, with the best that is left
        best        each box of the first set with the best there is, one partner for several if need be

    Greedy matching can take a partner away from a box that has no other; 'order' lets the first set say who chooses
    first, as detectors do by confidence; under 'best' one good box, said ten times, is ten good boxes.

    Args:
        first: the predictions.
        second: the targets, with as many rows.
        match: as above.
        cost: what the Hungarian matching minimises: 'quality' sums −quality; 'detr' sums L1(boxes) − [labels equal]
            − GIoU, with the distance in the boxes' own unit.
        edges: see `iou`.
        generalized: quality is GIoU.
        above: a pair with less quality is none. It is left out before 'greedy' and 'order' choose, after 'hungarian'
            has chosen.
        inclusive: a pair with exactly that quality is one.
        same_label: only boxes with equal labels are matched.

    Raises:
        ValueError: if the rows are not as many, labels are missing, or an option is not one.

    >>> preds, targets = Sets.of([[[0, 0, 2, 1], [9, 9, 10, 10]]]), Sets.of([[[0, 0, 2, 2]]])
    >>> pair_up(preds, targets)
    Pairs(partner=array([ 0, -1]), quality=array([0.5, 0. ]))

    Source: Hungarian: Kuhn 1955, by scipy (Crouse 2016); 'detr' costs: DETR (arXiv 2005.12872) as in Vision-R1
    (2503.18013); 'order': Visual-RFT (2503.01785); 'greedy': VLM-R1 (2504.07615); 'best': 3D-R1 (2507.23478).
    """
    if len(first.counts) != len(second.counts):
        raise ValueError(f"sets of {len(first.counts)} and of {len(second.counts)} rows cannot be matched")
    if match not in ("hungarian", "greedy", "order", "best") or cost not in ("quality", "detr"):
        raise ValueError(f"match and cost are none there is: {match!r} and {cost!r}")
    if same_label and (first.labels is None or second.labels is None):
        raise ValueError("same_label=True compares labels: both sets need them")
    partner = np.full(len(first.boxes), -1, np.int64)
    quality = np.zeros(len(first.boxes))
    a_known, b_known = usable(first.boxes, edges=edges), usable(second.boxes, edges=edges)
    for rows in _batches(first.counts, second.counts):
        a, a_there, a_at = _padded(first, rows)
        b, b_there, b_at = _padded(second, rows)
        likeness = iou(a[:, None], b[None], edges=edges, generalized=generalized)
        allowed = (a_known.take(a_at) & a_there)[:, None] & (b_known.take(b_at) & b_there)[None]
        same = _same(first, second, a_at, b_at) if same_label or cost == "detr" else None
        if same_label:
            allowed = allowed & same
        enough = np.greater_equal if inclusive else np.greater
        if match == "hungarian":
            gain = likeness  # of which only pairs that are allowed are read again
            if cost == "detr":
                apart = np.where(allowed[..., None], a[:, None] - b[None], 0.0)
                gain = iou(a[:, None], b[None], edges=edges, generalized=True) - np.abs(apart).sum(-1) + same
            np.putmask(gain, ~allowed, WORTHLESS)
            found = _assigned(gain, allowed)
        else:
            found = _CHOOSE[match](np.where(allowed & enough(likeness, above), likeness, WORTHLESS))
        p, g, count = likeness.shape
        column = np.maximum(found, 0) * count + np.arange(count)
        reached = likeness.take(column + (np.arange(p) * g * count)[:, None])
        kept = (found >= 0) & enough(reached, above)
        at = a_at[kept]
        partner[at] = b_at.take(column)[kept]
        quality[at] = reached[kept]
    return Pairs(partner, quality)


def average_precision(
    first: Sets,
    second: Sets,
    *,
    thresholds: Sequence[float] = tuple(np.linspace(0.5, 0.95, 10).tolist()),
) -> Float[np.ndarray[Any, Any], "n"]:
    """COCO's average precision of each row's boxes, in the order in which they are given.

    Per label of the targets and per threshold: the boxes of that label are matched in turn, each with the best
    target left whose IoU reaches the threshold; precision, made to fall with recall, is averaged over 101 recalls.
    The mean is over thresholds and labels. Boxes whose label no target has do not count at all.

    Precision is a ranking's, so boxes behind the right ones cost nothing: see `grounding.average_precision` for what
    a flood of boxes then pays.

    Args:
        first: the predictions, the most certain first.
        second: the targets.
        thresholds: of the IoU.

    Returns:
        In [0, 1] per row: 0 without predictions, and without targets.

    Raises:
        ValueError: if the rows are not as many, or only one of the sets has labels.

    >>> target = Sets.of([[[0, 0, 10, 10]], [[0, 0, 10, 10]]])
    >>> average_precision(Sets.of([[[0, 0, 10, 7.2]], []]), target).round(3)  # found at 0.5, 0.55, …, 0.7
    array([0.5, 0. ])

    Source: the COCO evaluation (Lin et al., arXiv 1405.0312; pycocotools), without its areas and limits on numbers.
    """
    if (first.labels is None) != (second.labels is None):
        raise ValueError("labels: either both sets have them, or neither")
    if len(first.counts) != len(second.counts):
        raise ValueError(f"sets of {len(first.counts)} and of {len(second.counts)} rows cannot be compared")
    n = len(first.counts)
    # A unit is a label of a row: its targets, and the predictions of that label.
    width = 2 + max(
        (int(sets.labels.max(initial=-1)) for sets in (first, second) if sets.labels is not None), default=0
    )
    found, keys = _keys(first, width), _keys(second, width)
    wanted = np.unique(keys)
    predicted, expected = _units(first.boxes, found, wanted), _units(second.boxes, keys, wanted)
    levels = np.minimum(np.asarray(thresholds, np.float64), 1 - 1e-10)
    value = np.zeros(len(wanted))
    for units in _batches(predicted.counts, expected.counts):
        a, a_there, _ = _padded(predicted, units)
        b, b_there, _ = _padded(expected, units)
        likeness = np.where(a_there[:, None] & b_there[None], iou(a[:, None], b[None]), -1.0)
        right = _hits(np.moveaxis(likeness, -1, 0), levels)
        value[units] = _area(right, a_there.T, expected.counts[units]).mean(1)
    rows = wanted // width
    return np.asarray(np.bincount(rows, weights=value, minlength=n) / np.maximum(np.bincount(rows, minlength=n), 1))


def _keys(sets: Sets, width: int) -> Int[np.ndarray[Any, Any], "m"]:
    """The row and label of each box as one number."""
    return np.asarray(sets.rows * width + (1 if sets.labels is None else sets.labels + 1))


def _units(boxes: Boxes, keys: Int[np.ndarray[Any, Any], "m"], wanted: Int[np.ndarray[Any, Any], "u"]) -> Sets:
    """The boxes of each wanted key, in their order."""
    order = np.argsort(keys, kind="stable")
    order = order[np.isin(keys[order], wanted)]
    return Sets(boxes[order], np.bincount(np.searchsorted(wanted, keys[order]), minlength=len(wanted)))


def _hits(
    likeness: Float[np.ndarray[Any, Any], "c p g"], levels: Float[np.ndarray[Any, Any], "t"]
) -> Bool[np.ndarray[Any, Any], "c t p"]:
    """Which predictions find a target, per threshold; of equally good targets the last is taken, as COCO does."""
    c, p, g = likeness.shape
    free = np.ones((c, len(levels), g), bool)
    right = np.zeros((c, len(levels), p), bool)
    for turn in range(p if g else 0):
        value = likeness[:, turn, None]
        value = np.where(free & (value >= levels[:, None]), value, -1.0)
        best = g - 1 - np.argmax(value[..., ::-1], -1)
        right[..., turn] = np.take_along_axis(value, best[..., None], -1)[..., 0] >= 0
        free &= ~(right[..., turn, None] & (np.arange(g) == best[..., None]))
    return right


def _area(
    right: Bool[np.ndarray[Any, Any], "c t p"],
    there: Bool[np.ndarray[Any, Any], "c p"],
    counts: Int[np.ndarray[Any, Any], "c"],
) -> Float[np.ndarray[Any, Any], "c t"]:
    """The mean over 101 recalls of the best precision at that recall or a higher one."""
    if right.shape[-1] == 0:
        return np.zeros(right.shape[:2])
    hits = right.cumsum(-1)
    precision = hits / np.maximum(there.cumsum(-1), 1)[:, None]
    envelope = np.maximum.accumulate(precision[..., ::-1], -1)[..., ::-1]
    # The k-th hit is the first to reach the recalls in ((k − 1)/n, k/n].
    share = np.zeros((len(counts), right.shape[-1] + 1))
    for n in np.unique(counts).tolist():
        reached = np.searchsorted(np.arange(1, n + 1) / n, np.linspace(0.0, 1.0, 101)) + 1
        weights = np.bincount(reached, minlength=right.shape[-1] + 1)[: right.shape[-1] + 1]
        share[counts == n] = weights / 101
    each = np.take_along_axis(share[:, None], hits, -1)
    return np.asarray((right * each * envelope).sum(-1))


def _batches(a: Int[np.ndarray[Any, Any], "n"], b: Int[np.ndarray[Any, Any], "n"]) -> Iterator[Any]:
    """The rows that have something on both sides, some at a time, those of like sizes together."""
    order = np.lexsort((b, a))
    order = order[(a[order] > 0) & (b[order] > 0)]
    begin = 0
    while begin < len(order):
        first = max(1, int(a[order[begin]] * b[order[begin]]))
        end = min(len(order), begin + max(1, AT_ONCE // first))
        while True:
            rows = order[begin:end]
            wide = int(a[rows].max() * b[rows].max())
            if len(rows) == 1 or (wide * len(rows) <= 2 * AT_ONCE and wide <= 4 * first):
                break
            end = begin + len(rows) // 2
        yield np.sort(rows)
        begin = end


def _padded(
    sets: Sets, rows: Int[np.ndarray[Any, Any], "c"]
) -> tuple[Float[np.ndarray[Any, Any], "p c 2k"], Bool[np.ndarray[Any, Any], "p c"], Int[np.ndarray[Any, Any], "p c"]]:
    """The boxes of some rows, where there are any, and which they are of all; rows last, as there are many of them."""
    counts = sets.counts[rows]
    down = np.arange(int(counts.max()))[:, None]
    there = down < counts
    at = np.where(there, sets.starts[rows] + down, 0)
    return np.moveaxis(sets.coordinates.take(at, 1), 0, -1), there, at


def _same(first: Sets, second: Sets, a: Any, b: Any) -> Any:
    """Whether the labels of two boxes are known and equal; False where sets have none."""
    if first.labels is None or second.labels is None:
        return False
    one, other = first.labels[a][:, None], second.labels[b][None]
    return (one == other) & (one >= 0)


def _best(value: Float[np.ndarray[Any, Any], "p g c"]) -> Int[np.ndarray[Any, Any], "p c"]:
    found = _largest(value, 1)
    return np.where(value.max(1) > WORTHLESS, found, -1)


def _in_order(value: Float[np.ndarray[Any, Any], "p g c"]) -> Int[np.ndarray[Any, Any], "p c"]:
    value = value.copy()
    found = np.full((value.shape[0], value.shape[2]), -1, np.int64)
    rows = np.arange(value.shape[2])
    for turn in range(len(value)):
        best = _largest(value[turn], 0)
        taken = value[turn, best, rows] > WORTHLESS
        found[turn, taken] = best[taken]
        value[:, best[taken], rows[taken]] = WORTHLESS
    return found


def _greedy(value: Float[np.ndarray[Any, Any], "p g c"]) -> Int[np.ndarray[Any, Any], "p c"]:
    value = value.copy()
    p, g, count = value.shape
    found = np.full((p, count), -1, np.int64)
    rows = np.arange(count)
    for _ in range(min(p, g)):
        one, other = np.divmod(_largest(value.reshape(p * g, count), 0), g)
        taken = value[one, other, rows] > WORTHLESS
        if not taken.any():
            break
        one, other, chosen = one[taken], other[taken], rows[taken]
        found[one, chosen] = other
        value[one, :, chosen] = WORTHLESS
        value[:, other, chosen] = WORTHLESS
    return found


def _assigned(
    gain: Float[np.ndarray[Any, Any], "p g c"], allowed: Bool[np.ndarray[Any, Any], "p g c"]
) -> Int[np.ndarray[Any, Any], "p c"]:
    """The matching with the greatest total gain of as many allowed pairs as can be."""
    # Where each box of one side has a favourite of its own, taking the favourites is the optimum.
    p, g, _ = gain.shape
    a_there, b_there = np.asarray(allowed.any(1)), np.asarray(allowed.any(0))
    favourite = np.where(a_there, _largest(gain, 1), g + np.arange(p)[:, None])
    apart = _distinct(favourite)
    found = np.where(a_there & apart, favourite, -1)
    if apart.all():
        return found
    back = np.where(b_there, _largest(gain, 0), p + np.arange(g)[:, None])
    swapped = ~apart & _distinct(back)
    other, row = np.nonzero(swapped & b_there)
    found[back[other, row], row] = other
    hard = np.flatnonzero(~apart & ~swapped)
    if len(hard):
        from scipy.optimize import linear_sum_assignment

        for place in hard.tolist():
            one, two = np.flatnonzero(a_there[:, place]), np.flatnonzero(b_there[:, place])
            few, held = gain[:, :, place][np.ix_(one, two)], allowed[:, :, place][np.ix_(one, two)]
            # A pair that is not allowed costs more than all that could be gained by it.
            span = float(np.ptp(few[held])) + 1.0
            worst = float(few[held].min()) - (min(few.shape) + 1) * span
            left, right = linear_sum_assignment(np.where(held, few, worst), maximize=True)
            good = held[left, right]
            found[one[left[good]], place] = two[right[good]]
    return found


def _largest(values: np.ndarray[Any, Any], axis: int) -> Int[np.ndarray[Any, Any], "..."]:
    """Where the largest along an axis is, the first of equal ones. Along a few long rows, faster than argmax."""
    if values.shape[axis] > 16:
        return np.asarray(values.argmax(axis))
    along = np.moveaxis(values, axis, 0)
    best, at = along[0], np.zeros(along.shape[1:], np.int64)
    for place in range(1, len(along)):
        np.putmask(at, along[place] > best, place)
        best = np.maximum(best, along[place])
    return at


def _distinct(values: Int[np.ndarray[Any, Any], "p c"]) -> Bool[np.ndarray[Any, Any], "c"]:
    if len(values) > 8:
        ordered = np.sort(values, 0)
        return np.asarray((ordered[1:] != ordered[:-1]).all(0))
    different = np.ones(values.shape[1], bool)
    for one, other in combinations(values, 2):
        different &= one != other
    return different


_CHOOSE = {"best": _best, "order": _in_order, "greedy": _greedy}
