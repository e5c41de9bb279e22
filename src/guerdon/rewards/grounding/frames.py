"""Stretches of time, and boxes and masks in the frames of a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.core.extras import needs
from guerdon.core.parsing import Completion, Passage, shown
from guerdon.core.scores import Scores
from guerdon.rewards import geometry
from guerdon.rewards.grounding.detection import arranged
from guerdon.rewards.grounding.reading import (
    Listing,
    Rows,
    entries,
    mapping_of,
    numbers,
    passages,
    references,
    vectors,
)

NOT_A_SPAN = "reference is not a stretch of time"

Propagate = Callable[[Any, Sequence[Sequence[float]], int], Any]


def _columns(*, reference: str, **options: Any) -> tuple[str, ...]:
    return ("completion", "span", *(("duration",) if reference == "share" else ()))


@reward(range=(0, 1), lane="batch", columns=_columns)
def span(
    completion: Sequence[Completion],
    span: Sequence[Any],
    duration: Sequence[Any] | None = None,
    *,
    reference: Literal["seconds", "share"] = "seconds",
    within: Passage = "reply",
) -> Scores:
    """Intersection over union of the stretch of time that the reply gives and the reference.

    It is the first bracket of two numbers: `{"start_time": "2.0", "end_time": "6.0"}`, `[2, 6]`. Naming the whole
    video overlaps a short event by its share of the time only.

    Args:
        completion: the reply: text or chat messages, in seconds.
        span: the reference, [start, end].
        duration: seconds of the video; read if the reference is a share.
        reference: whether the reference is in 'seconds', or a 'share' of the duration, in [0, 1].
        within: see `text.exact`.

    Returns:
        In [0, 1]. A stretch that is missing, not finite, or ends before it begins, gets 0, and the detail `problem`
        says why.

    >>> from guerdon.rewards import grounding
    >>> grounding.span()(["?"] * 2, ['{"start_time": "2", "end_time": "6"}', "[6, 2]"], span=[[4, 8], [2, 6]])
    [0.3333333333333333, 0.0]

    Source: the temporal grounding of Temporal-R1 (arXiv 2506.01908).
    """
    reasons: dict[int, str] = {}
    expected = vectors(span, 2, NOT_A_SPAN, reasons)
    for row in np.flatnonzero(~geometry.usable(expected)).tolist():
        reasons.setdefault(row, f"{NOT_A_SPAN}: {shown(span[row])}")
    seconds = np.ones(len(span))
    if reference == "share":
        given = [None] * len(span) if duration is None else [[entry] for entry in duration]
        seconds = vectors(given, 1, "column 'duration' is not a length", reasons)[:, 0]
        for row in np.flatnonzero(~(seconds > 0)).tolist():
            reasons.setdefault(row, f"column 'duration' is not a length: {given[row]}")
        seconds = np.where(seconds > 0, seconds, 1.0)
    read = [None if text is None else _times(text) for text in passages(completion, within)]
    answers = np.array([found or [np.nan] * 2 for found in read]).reshape(-1, 2) / seconds[:, None]
    problems = [
        None if good else "no stretch of time" if found is None else f"not a stretch of time: {found}"
        for good, found in zip(geometry.usable(answers).tolist(), read, strict=True)
    ]
    shown_ = [None if why else found for found, why in zip(read, problems, strict=True)]
    return Rows(reasons, problems).scores(geometry.iou(answers, expected), 0.0, answer=shown_)


def _times(text: str) -> list[float] | None:
    found = numbers(text, 2)
    end, start = text.find("end"), text.find("start")
    # An object has no order: one that says its end first is no backward stretch.
    return found[::-1] if found is not None and 0 <= end < start and "{" in text else found


class Key(NamedTuple):
    """What a reply about a video says: the frame where the objects are seen best, and their boxes in it."""

    frame: int
    boxes: Listing


def read_key(text: str | None) -> Key | None:
    """The key frame and boxes of `{"keyframe_timestamp": …, "bbox_2d_list": […]}`, or None.

    >>> read_key('{"keyframe_timestamp": 3, "bbox_2d_list": [[0, 0, 4, 4]]}').frame
    3
    """
    found = None if text is None else mapping_of(text)
    if found is None:
        return None
    frame, boxes = found.get("keyframe_timestamp"), found.get("bbox_2d_list")
    if isinstance(frame, bool) or not isinstance(frame, int) or not isinstance(boxes, list):
        return None
    read = entries(boxes, 2)
    return None if read is None else Key(frame, read)


@reward(range=(0, 1), lane="batch")
def key_frame(
    completion: Sequence[Completion],
    frames: Sequence[Any],
    masks: Sequence[Any],
    *,
    within: Passage = "answer_tag",
) -> Scores:
    """How well the object is seen in the frame that the reply chooses: its area there over the largest there is.

    Args:
        completion: the reply: text or chat messages, with JSON as `read_key` reads it.
        frames: the numbers or timestamps of the frames that were shown.
        masks: for each of them, the object's mask (rows of 0 and 1), or its area.
        within: see `text.exact`.

    Returns:
        In [0, 1]: 0 for a frame that was not shown or does not have the object; the detail `problem` says which.

    >>> from guerdon.rewards import grounding
    >>> said = '<answer>{"keyframe_timestamp": 3, "bbox_2d_list": []}</answer>'
    >>> grounding.key_frame()(["?"], [said], frames=[[1, 2, 3]], masks=[[10, 40, 20]])
    [0.5]

    Source: the key-frame reward of VEASON-R1.
    """
    reasons: dict[int, str] = {}
    keys = [read_key(text) for text in passages(completion, within)]
    values, problems = np.zeros(len(keys)), _problems(keys, frames, reasons)
    for row, (key, there) in enumerate(zip(keys, masks, strict=True)):
        try:
            worth = geometry.frame_worth(np.array([np.count_nonzero(m) if np.ndim(m) else float(m) for m in there]))
        except (TypeError, ValueError, OverflowError):
            reasons.setdefault(row, f"reference is not a mask or an area per frame: {shown(there)}")
            continue
        if row in reasons:
            continue
        if len(worth) != len(frames[row]) or not worth.any():
            what = "shows the object nowhere" if len(worth) == len(frames[row]) else f"has {len(worth)} masks"
            reasons[row] = f"reference {what} in {len(frames[row])} frames"
        elif key is not None and problems[row] is None:
            values[row] = worth[list(frames[row]).index(key.frame)]
    return Rows(reasons, problems).scores(values, 0.0)


@reward(range=(0, 1), lane="batch", requires=needs("grounding.key_boxes", "scipy", extra="grounding"))
def key_boxes(
    completion: Sequence[Completion],
    frames: Sequence[Any],
    boxes: Sequence[Any],
    *,
    most: int = 120,
    within: Passage = "answer_tag",
) -> Scores:
    """How well the boxes that the reply gives are the objects in the frame that it chose.

    The sum of the IoU of inclusive pixels over the best matching, divided by the larger number of boxes, so that
    neither one safe box of many nor a flood of them pays.

    Args:
        completion: the reply: text or chat messages, with JSON as `read_key` reads it.
        frames: the numbers or timestamps of the frames that were shown.
        boxes: for each of them, the list of the objects' boxes.
        most: see `detection`.
        within: see `text.exact`.

    Returns:
        In [0, 1]: 0 for a frame that was not shown, or does not have the objects.

    >>> from guerdon.rewards import grounding
    >>> said = '<answer>{"keyframe_timestamp": 2, "bbox_2d_list": [[0, 0, 9, 9], [50, 50, 60, 60]]}</answer>'
    >>> grounding.key_boxes()(["?"], [said], frames=[[1, 2]], boxes=[[[], [[0, 0, 9, 9]]]])
    [0.5]

    Source: the box reward of VEASON-R1.
    """
    reasons: dict[int, str] = {}
    keys = [read_key(text) for text in passages(completion, within)]
    problems = _problems(keys, frames, reasons)
    targets = []
    for row, (key, per_frame) in enumerate(zip(keys, boxes, strict=True)):
        found = _per_frame(per_frame, frames[row], row, reasons)
        chosen = key is not None and problems[row] is None and row not in reasons
        targets.append(found[list(frames[row]).index(key.frame)] if chosen and key else Listing([], [], []))
    read = [None if key is None or problems[row] else key.boxes for row, key in enumerate(keys)]
    batch = arranged(read, targets, reasons, most=most)
    pairs = geometry.pair_up(batch.said, batch.there, edges="pixels")
    values = batch.total(pairs.quality) / np.maximum(np.maximum(batch.written, batch.expected), 1)
    why = [first or second for first, second in zip(problems, batch.rows.problems, strict=True)]
    return Rows(reasons, why).scores(values, 0.0, predicted=batch.written.tolist())


def _columns_of_masks(*, propagate: Propagate | None, **options: Any) -> tuple[str, ...]:
    return ("completion", "frames", "masks", "boxes" if propagate is None else "video")


@reward(range=(0, 1), lane="batch", columns=_columns_of_masks)
def segmentation(
    completion: Sequence[Completion],
    frames: Sequence[Any],
    masks: Sequence[Any],
    video: Sequence[Any],
    *,
    propagate: Any = None,
    most: int = 120,
    within: Passage = "answer_tag",
) -> Scores:
    """How well the objects are found in all frames, when the reply's boxes in its key frame are carried on.

    The mean over frames of the IoU of the masks; a frame in which neither side has anything is 1.

    Args:
        completion: the reply: text or chat messages, with JSON as `read_key` reads it.
        frames: the numbers or timestamps of the frames that were shown.
        masks: for each of them, the objects' mask (rows of 0 and 1).
        video: what `propagate` is given, a path or frames. Without it the column `boxes` is read instead: the boxes
            that a detector gives for each frame.
        propagate: a video segmenter: a function of `video`, boxes and the number of the key frame among `frames`,
            that gives one mask per frame. None: `geometry.follow`, which fills the boxes and has no model.
        most: boxes that are carried on, as listed.
        within: see `text.exact`.

    Returns:
        In [0, 1]: 0 for a frame that was not shown. Where the segmenter fails, the row abstains.

    >>> from guerdon.rewards import grounding
    >>> said = '<answer>{"keyframe_timestamp": 1, "bbox_2d_list": [[0, 0, 1, 1]]}</answer>'
    >>> there = [[[1, 0]], [[1, 1]]]
    >>> boxes = [[[0, 0, 1, 1]], [[0, 0, 2, 1]]]
    >>> grounding.segmentation()(["?"], [said], frames=[[1, 2]], masks=[there], boxes=[boxes])
    [1.0]

    Source: the mask reward of VEASON-R1, whose segmenter is SAM 2.
    """
    reasons: dict[int, str] = {}
    keys = [read_key(text) for text in passages(completion, within)]
    problems = _problems(keys, frames, reasons)
    values = np.zeros(len(keys))
    for row, key in enumerate(keys):
        truth = _masks(masks[row], frames[row], row, reasons)
        if row in reasons or key is None or problems[row] is not None or truth is None:
            continue
        place = list(frames[row]).index(key.frame)
        read = np.array(key.boxes.boxes, np.float64).reshape(-1, 4)
        whole = read[geometry.usable(read)][:most].tolist()
        try:
            found = _carried(video[row], whole, place, truth.shape, propagate)
            values[row] = float(geometry.mask_iou(found, truth).mean())
        except Exception as error:  # whatever a segmenter may raise is no score
            reasons[row] = f"the boxes could not be carried on: {type(error).__name__}: {error}"
    return Rows(reasons, problems).scores(values, 0.0)


def _carried(video: Any, boxes: list[list[float]], key: int, shape: tuple[int, ...], propagate: Any) -> Any:
    if propagate is None:
        found = geometry.follow(np.array(boxes).reshape(-1, 4), video, key, height=shape[1], width=shape[2])
    else:
        found = np.asarray(propagate(video, boxes, key))
    if found.shape != shape:
        raise ValueError(f"masks of shape {found.shape} for frames of shape {shape}")
    return found


def _problems(keys: Sequence[Key | None], frames: Sequence[Any], reasons: dict[int, str]) -> list[str | None]:
    problems: list[str | None] = []
    for row, (key, shown_frames) in enumerate(zip(keys, frames, strict=True)):
        problem = "no key frame and boxes" if key is None else None
        if not isinstance(shown_frames, (list, tuple, np.ndarray)) or not len(shown_frames):
            reasons.setdefault(row, f"column 'frames' is not a list of frames: {shown(shown_frames)}")
        elif key is not None and key.frame not in list(shown_frames):
            problem = f"frame {key.frame} was not shown"
        problems.append(problem)
    return problems


def _per_frame(per_frame: Any, frames: Any, row: int, reasons: dict[int, str]) -> list[Listing]:
    if row in reasons:
        return []
    if not isinstance(per_frame, (list, tuple, np.ndarray)) or len(per_frame) != len(frames):
        reasons[row] = f"reference is not a list of boxes per frame: {shown(per_frame)}"
        return []
    wrong: dict[int, str] = {}
    found = references(list(per_frame), 2, wrong)
    if wrong:
        reasons[row] = next(iter(wrong.values()))
    return found


def _masks(
    per_frame: Any, frames: Any, row: int, reasons: dict[int, str]
) -> Float[np.ndarray[Any, Any], "t h w"] | None:
    if row in reasons:
        return None
    try:
        found = np.asarray(per_frame, np.float64)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.ndim != 3 or len(found) != len(frames) or not found.size:
        reasons[row] = f"reference is not a mask per frame: {shown(per_frame)}"
        return None
    return found


def form_of_key(found: Mapping[str, Any] | None) -> float:
    """The share of the boxes of a key frame that are four numbers, 0 without a frame and a list."""
    boxes = None if found is None else found.get("bbox_2d_list")
    frame = None if found is None else found.get("keyframe_timestamp")
    if isinstance(frame, bool) or not isinstance(frame, int) or not isinstance(boxes, list) or not boxes:
        return 0.0
    read = entries(boxes, 2)
    return read.written / len(boxes) if read is not None else 0.0
