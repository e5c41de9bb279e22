"""Masks over pictures and frames: overlap, the best frame, and boxes carried from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from guerdon.rewards.geometry.boxes import Boxes, fill, iou

Masks = Bool[np.ndarray[Any, Any], "*n h w"]


def mask_iou(a: Masks, b: Masks, *, empty: float = 1.0) -> Float[np.ndarray[Any, Any], "*n"]:
    """Intersection over union of masks, over their last two axes.

    Args:
        a: what is not 0 belongs to the mask.
        b: as many, or as broadcasts.
        empty: the value of two masks that are both empty: nothing was to be found, and nothing was.

    Raises:
        ValueError: if the pictures are of different sizes.

    >>> mask_iou(np.array([[[1, 1, 0]], [[0, 0, 0]]]), np.array([[[0, 1, 1]], [[0, 0, 0]]]))
    array([0.33333333, 1.        ])

    Source: Jaccard 1912; frames without the object count as 1 in VEASON-R1 and in DAVIS.
    """
    a, b = np.asarray(a) != 0, np.asarray(b) != 0
    if a.shape[-2:] != b.shape[-2:] or a.ndim < 2 or b.ndim < 2:
        raise ValueError(f"masks of shapes {a.shape} and {b.shape} cannot be compared")
    shared = (a & b).sum((-2, -1))
    union = (a | b).sum((-2, -1))
    return np.asarray(np.where(union > 0, shared / np.maximum(union, 1), empty))


def frame_worth(areas: Float[np.ndarray[Any, Any], "*n t"]) -> Float[np.ndarray[Any, Any], "*n t"]:
    """How good a key frame each frame is: the area of the object in it over the largest there is.

    Args:
        areas: of the object in each frame, in any unit.

    Returns:
        In [0, 1]; 0 everywhere where the object is nowhere.

    Raises:
        ValueError: if an area is negative or not finite.

    >>> frame_worth(np.array([10, 40, 20]))
    array([0.25, 1.  , 0.5 ])

    Source: the key-frame reward of VEASON-R1.
    """
    areas = np.asarray(areas, np.float64)
    if not ((areas >= 0) & np.isfinite(areas)).all():
        raise ValueError("areas must be finite and not negative")
    largest = areas.max(-1, keepdims=True, initial=0.0)
    return np.asarray(areas / np.where(largest > 0, largest, 1.0))


def follow(
    boxes: Boxes,
    candidates: Sequence[Boxes],
    key: int,
    *,
    height: int,
    width: int,
) -> Bool[np.ndarray[Any, Any], "t h w"]:
    """Masks of some boxes in one frame and of what overlaps them most in the others: a tracker without a network.

    From the key frame outwards, each box moves to the candidate of the next frame with the highest IoU, and is lost
    where none overlaps it.

    Args:
        boxes: in the key frame.
        candidates: boxes of each frame, as a detector gives them.
        key: the number of the frame that `boxes` are in.
        height: of the masks.
        width: of the masks.

    Raises:
        ValueError: if there is no such frame.

    >>> follow([[0, 0, 1, 1]], [[[0, 0, 1, 1]], [[0, 0, 2, 1]], []], 0, height=1, width=2).astype(int)[:, 0]
    array([[1, 0],
           [1, 1],
           [0, 0]])

    Source: the fallback of VEASON-R1 without a segmenter.
    """
    if not 0 <= key < len(candidates):
        raise ValueError(f"there is no frame {key} among {len(candidates)}")
    masks = np.zeros((len(candidates), height, width), bool)
    start = np.asarray(boxes, np.float64).reshape(-1, 4)
    masks[key] = fill(start, height, width)
    for way in (range(key + 1, len(candidates)), range(key - 1, -1, -1)):
        held = start
        for frame in way:
            there = np.asarray(candidates[frame], np.float64).reshape(-1, 4)
            if not len(there) or not len(held):
                break
            likeness = iou(held[:, None], there)
            held = there[likeness.argmax(1)][likeness.max(1) > 0]
            masks[frame] = fill(held, height, width)
    return masks
