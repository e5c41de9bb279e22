"""How far two boxes are the same: overlap, likeness of edges, Gaussians, and points in them.

A box is its low corner and then its high one: [start, end] in time, [x1, y1, x2, y2] in a picture,
[x1, y1, z1, x2, y2, z2] in space. All functions are elementwise over the leading axes, which broadcast. A box is
usable if its coordinates are finite and every high one is above its low one, by 10⁻¹⁰⁰ at least and 10¹⁰⁰ at most;
with one that is not, every measure has its lowest value, and no NaN comes out.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

Boxes = Float[np.ndarray[Any, Any], "*n 2k"]
Points = Float[np.ndarray[Any, Any], "*n k"]
Values = Float[np.ndarray[Any, Any], "*n"]
Edges = Literal["continuous", "pixels"]

FARTHEST = 1e100  # three extents of this size still have a product
THINNEST = 1e-100  # and three of this one
BLOCK = 16_000  # rows at a time, so that what is between two operations stays in the cache


def _in_blocks(measure: Callable[..., Any]) -> Callable[..., Any]:
    """An elementwise measure of arrays, computed on some rows at a time where there are many."""

    @functools.wraps(measure)
    def blockwise(*arrays: Any, **options: Any) -> Any:
        given = [np.asarray(array, np.float64) for array in arrays]
        n = len(given[0]) if given[0].ndim == 2 else 0
        # What is not a number is dealt with by comparisons, all of which it fails.
        with np.errstate(invalid="ignore", over="ignore", divide="ignore", under="ignore"):
            if n <= BLOCK or any(array.shape[:-1] != (n,) for array in given):
                return measure(*given, **options)
            cuts = range(0, n, BLOCK)
            return np.concatenate([measure(*(array[i : i + BLOCK] for array in given), **options) for i in cuts])

    return blockwise


def usable(boxes: Boxes, *, edges: Edges = "continuous") -> Bool[np.ndarray[Any, Any], "*n"]:
    """Where a box has finite coordinates and every high one above its low one.

    Args:
        boxes: low corner, then high corner.
        edges: with 'pixels', a high coordinate may equal the low one: a box of one pixel.

    >>> usable(np.array([[0, 0, 2, 1], [2, 0, 0, 1], [0, 0, 0, 1], [0, 0, np.nan, 1.0]]))
    array([ True, False, False, False])

    Source: ours; the releases of GUI-G² and VLM-R1 score such boxes as they come.
    """
    lows, highs = _columns(np.asarray(boxes, np.float64))
    known: Any = True
    with np.errstate(invalid="ignore", over="ignore"):
        for low, high in zip(lows, highs, strict=True):
            known = known & _extends(high - low, edges)
    return np.asarray(known)


@_in_blocks
def iou(a: Boxes, b: Boxes, *, edges: Edges = "continuous", generalized: bool = False) -> Values:
    """Intersection over union of two boxes, in any number of axes.

        IoU = |a ∩ b| / |a ∪ b|        GIoU = IoU − (|hull| − |a ∪ b|) / |hull|

    with the hull the smallest box around both. IoU is the same 0 for a near miss and a far one; GIoU is not.

    Args:
        a: boxes, low corner then high corner.
        b: as many, or as broadcasts.
        edges: 'continuous', or 'pixels': the high coordinate names the last pixel inside, so that extents are
            high − low + 1.
        generalized: GIoU instead.

    Returns:
        IoU in [0, 1], 0 if either box is unusable; GIoU in [−1, 1], −1 if either is.

    Raises:
        ValueError: if the boxes have different numbers of axes.

    >>> iou(np.array([0, 0, 2, 1]), np.array([1, 0, 3, 1])), iou(np.array([2, 6]), np.array([4, 8]))
    (array(0.33333333), array(0.33333333))
    >>> iou(np.array([0, 0, 1, 1]), np.array([3, 0, 4, 1]), generalized=True)
    array(-0.5)

    Source: Jaccard 1912; GIoU: Rezatofighi et al. (arXiv 1902.09630); whole pixels: the PASCAL VOC development kit.
    Over one axis, the temporal IoU of Temporal-R1 (2506.01908), whose denominator is the hull: the two differ only
    where both are 0.
    """
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"boxes of {a.shape[-1]} and of {b.shape[-1]} coordinates cannot be compared")
    more = 1.0 if edges == "pixels" else 0.0
    a_known: Any = True
    b_known: Any = True
    first: Any = 1.0
    second: Any = 1.0
    hull: Any = 1.0
    both = []
    for a_low, a_high, b_low, b_high in zip(*_columns(a), *_columns(b), strict=True):
        a_size, b_size = a_high - a_low, b_high - b_low
        a_known, b_known = a_known & _extends(a_size, edges), b_known & _extends(b_size, edges)
        size = np.minimum(a_high, b_high)
        size -= np.maximum(a_low, b_low)
        if more:
            size += more
        both.append(np.maximum(size, 0.0))
        first = first * (a_size + more)
        second = second * (b_size + more)
        if generalized:
            hull = hull * (np.maximum(a_high, b_high) - np.minimum(a_low, b_low) + more)
    shared = functools.reduce(operator.mul, both)
    union = first + second
    union -= shared
    known = a_known & b_known & (union > 0)
    # Sums of products of very different size may round a little past 1.
    shared /= union
    overlap = _floored(np.minimum(shared, 1.0), known)
    if not generalized:
        return overlap
    known = known & (hull <= FARTHEST**3)
    hull = np.where(known, hull, 1.0)
    return np.asarray(np.where(known, np.clip(overlap - (hull - union) / hull, -1.0, 1.0), -1.0))


def centers(boxes: Boxes) -> Points:
    """The middle of each box.

    >>> centers(np.array([100, 100, 200, 140]))
    array([150., 120.])

    Source: arithmetic.
    """
    lows, highs = _columns(np.asarray(boxes, np.float64))
    return np.moveaxis(0.5 * lows + 0.5 * highs, 0, -1)


@_in_blocks
def inside(points: Points, boxes: Boxes) -> Bool[np.ndarray[Any, Any], "*n"]:
    """Whether a point lies in a box, its edges included.

    >>> inside(np.array([[150, 140], [150, 141]]), np.array([100, 100, 200, 140]))
    array([ True, False])

    Source: the hit of GUI-G1 (arXiv 2505.15810).
    """
    within = []
    for place, low, high in zip(_along(points), *_columns(boxes), strict=True):
        between = low <= place
        between &= place <= high
        between &= _extends(high - low)
        within.append(between)
    return np.asarray(functools.reduce(operator.iand, within))


@_in_blocks
def gaussian(points: Points, boxes: Boxes, *, spread: float = 0.5) -> Values:
    """How near a point is to the middle of a box, in units of the box: an elliptic bell over it.

        exp(−½ Σ ((p − c) / (spread · extent))²)

    A small button asks for as much precision relative to its size as a large panel: scaling everything changes
    nothing. With spread ½, the middle of an edge is worth e^(−½) = 0.607.

    Args:
        points: one point per box.
        boxes: low corner, then high corner.
        spread: σ of the bell, in extents of the box.

    Returns:
        In [0, 1]: 0 where the point is not finite or the box unusable.

    Raises:
        ValueError: if the spread is not positive and finite.

    >>> round(float(gaussian(np.array([175, 130]), np.array([100, 100, 200, 140]))), 4)
    0.7788

    Source: the point reward of GUI-G² (arXiv 2507.15846); the proximity of Sweet Spot Learning (2601.22491).
    """
    _positive(spread)
    whole, squares = [], []
    for place, low, high in zip(_along(points), *_columns(boxes), strict=True):
        size = high - low
        whole.append(_extends(size))
        away = place - low
        away /= size
        away -= 0.5
        away *= away
        squares.append(away)
    total = functools.reduce(operator.iadd, squares)
    total *= -0.5 / max(spread, THINNEST) ** 2
    value = np.exp(total)
    return _floored(value, functools.reduce(operator.iand, whole) & (value <= 1.0))


@_in_blocks
def coverage(a: Boxes, b: Boxes, *, spread: float = 0.5) -> Values:
    """How far two boxes, seen as Gaussians, cover each other: their Bhattacharyya coefficient.

        exp(−⅛ Σ d²/s̄ − ½ Σ ln(s̄ / √(s_a s_b)))        s = (spread · extent)²,  s̄ = (s_a + s_b)/2

    with d the difference of the centres. A box that is too large loses as much as one that is too small, so that
    covering the screen does not pay; boxes that do not touch still say in which direction to go.

    Args:
        a: boxes, low corner then high corner.
        b: as many, or as broadcasts.
        spread: σ of each Gaussian, in extents of its own box.

    Returns:
        In [0, 1]: 1 for equal boxes, 0 if either is unusable.

    Raises:
        ValueError: if the spread is not positive and finite.

    >>> float(coverage(np.array([50, 80, 250, 160]), np.array([100, 100, 200, 140])))  # same centre, twice the size
    0.8

    Source: the coverage reward of GUI-G² (arXiv 2507.15846), without its ε and its rounding to three decimals.
    """
    _positive(spread)
    known: Any = True
    shape: Any = 2.0 ** (a.shape[-1] // 2)
    squares = []
    columns = (*_columns(a), *_columns(b), *_columns(a - b))
    for a_low, a_high, b_low, b_high, below, above in zip(*columns, strict=True):
        a_size, b_size = a_high - a_low, b_high - b_low
        known = known & _extends(a_size) & _extends(b_size)
        product = a_size * b_size
        a_size *= a_size
        b_size *= b_size
        variances = a_size + b_size
        apart = below + above
        apart *= apart
        apart /= variances
        squares.append(apart)
        product /= variances
        shape *= product
    distance = functools.reduce(operator.iadd, squares)
    distance *= -0.0625 / max(spread, THINNEST) ** 2
    value = np.sqrt(shape)
    value *= np.exp(distance)
    return _floored(np.minimum(value, 1.0), known & (value <= 2.0))


@_in_blocks
def edge_agreement(a: Boxes, b: Boxes, sizes: Float[np.ndarray[Any, Any], "*n k"]) -> Values:
    """The harmonic mean of how near each edge of a box is to that of another, in sizes of the picture.

        4 / Σ 1/eⱼ        eⱼ = 1 − |aⱼ − bⱼ| / (width or height)

    The overlap rewards a box that is too small no better than one too large, but the two err in different
    directions in training; the worst edge decides here, in either. It is 0 as soon as an edge is a picture away.

    Args:
        a: boxes, low corner then high corner.
        b: as many, or as broadcasts.
        sizes: the extents of the picture: width, height.

    Returns:
        In [0, 1]: 0 where a box is unusable, or a size not positive.

    >>> ours, theirs = np.array([110, 100, 200, 150]), np.array([100, 100, 200, 140])
    >>> round(float(edge_agreement(ours, theirs, np.array([1000, 500]))), 5)
    0.99243

    Source: the box-size constraint of GUI-G1 (arXiv 2505.15810).
    """
    known: Any = True
    total: Any = 0.0
    for a_low, a_high, b_low, b_high, size in zip(*_columns(a), *_columns(b), _along(sizes), strict=True):
        known = known & _extends(a_high - a_low) & _extends(b_high - b_low) & (size > 0) & (size <= FARTHEST)
        for one, other in ((a_low, b_low), (a_high, b_high)):
            near = 1.0 - np.abs(one - other) / size
            known = known & (near > 0)
            total = total + 1.0 / near
    return _floored(a.shape[-1] / total, known)


def size_weights(
    boxes: Float[np.ndarray[Any, Any], "n 4"],
    sizes: Float[np.ndarray[Any, Any], "n 2"],
    *,
    low: float = 0.5,
    high: float = 1.5,
) -> Float[np.ndarray[Any, Any], "n"]:
    """The weight of each question by how small its target is: 1/share of the picture, with mean 1, clipped.

    Write it to a column and weigh the reward by it: `weigh(reward, by="weight")`. Without a standard deviation in
    the advantages that is the weight of the question in the loss.

    Args:
        boxes: of the targets, over the whole data set: the mean is taken over these rows.
        sizes: width and height of the pictures.
        low: the least weight; as `high`, the greatest, it keeps a few tiny targets from being all that is learned.

    Raises:
        ValueError: if a box is unusable or a size not positive, or unless 0 ≤ low ≤ high.

    >>> size_weights(np.array([[0, 0, 10, 10], [0, 0, 20, 10.0]]), np.array([[100, 100], [100, 100]])).round(3)
    array([1.333, 0.667])

    Source: the difficulty weights of GUI-G1 (arXiv 2505.15810), which come with its data; that they follow relative
    box size is from the paper, the form is ours.
    """
    boxes, sizes = np.asarray(boxes, np.float64), np.asarray(sizes, np.float64)
    if not 0 <= low <= high < np.inf:
        raise ValueError(f"low and high are weights, 0 ≤ low ≤ high, got {low} and {high}")
    wrong = ~(usable(boxes) & (sizes > 0).all(-1) & np.isfinite(sizes).all(-1))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"row {row}: a box {boxes[row].tolist()} in a picture of {sizes[row].tolist()} has no share")
    inverse = sizes.prod(-1) / (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return np.asarray(np.clip(inverse / (inverse.mean() if len(inverse) else 1.0), low, high))


def fill(boxes: Sequence[Sequence[float]] | Boxes, height: int, width: int) -> Bool[np.ndarray[Any, Any], "h w"]:
    """The mask of the pixels whose middle lies in one of some boxes.

    >>> fill([[0, 0, 2, 1]], 2, 3).astype(int)
    array([[1, 1, 0],
           [0, 0, 0]])

    Source: the fallback of VEASON-R1 without a segmenter; rasterisation by pixel centres.
    """
    several = np.asarray(boxes, np.float64).reshape(-1, 4)
    several = several[usable(several)]
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    across = (several[:, 0, None] <= columns) & (columns < several[:, 2, None])
    down = (several[:, 1, None] <= rows) & (rows < several[:, 3, None])
    return np.asarray((down[:, :, None] & across[:, None, :]).any(0))


def _columns(boxes: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The low and the high coordinates, one array per axis."""
    last = boxes.shape[-1] if boxes.ndim else 0
    if last not in (2, 4, 6):
        raise ValueError(f"boxes have 2, 4 or 6 coordinates along their last axis, got shape {boxes.shape}")
    along = _along(boxes)
    return along[: last // 2], along[last // 2 :]


def _along(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.moveaxis(points, -1, 0)


def _extends(size: Any, edges: Edges = "continuous") -> Any:
    """Whether an extent is one: not NaN, not negative, not boundless."""
    extends = size >= (THINNEST if edges == "continuous" else 0)
    extends &= size <= FARTHEST
    return extends


def _floored(values: Any, known: Any) -> np.ndarray[Any, Any]:
    """The values, with 0 in place of those that are not known. Where few are not, faster than `np.where`."""
    found = np.asarray(values)
    np.putmask(found, ~known, 0.0)
    return found


def _positive(spread: float) -> None:
    if not 0 < spread < np.inf:
        raise ValueError(f"spread must be positive and finite, got {spread}")
