"""Whether an answer is written as boxes or stretches of time are, whatever they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from guerdon.algebra import reward
from guerdon.core.parsing import Completion, Passage, last_tag, text_of
from guerdon.core.scores import Scores
from guerdon.rewards.grounding.frames import form_of_key
from guerdon.rewards.grounding.reading import Rows, listing, mapping_of, numbers, passages, references

Kind = Literal["box", "boxes", "span", "key_boxes"]


def _columns(*, absent: str, **options: Any) -> tuple[str, ...]:
    return ("completion", "boxes") if absent == "reversed" else ("completion",)


@reward(range=(0, 1), lane="batch", columns=_columns)
def form(
    completion: Sequence[Completion],
    boxes: Sequence[Any] | None = None,
    *,
    kind: Kind = "boxes",
    credit: Literal["all", "share"] = "all",
    absent: Literal["same", "reversed"] = "same",
    within: Passage = "answer_tag",
) -> Scores:
    """1 if the answer is written as asked for, else 0; what it says does not count.

        box         nothing but [x1, y1, x2, y2]
        boxes       JSON: a list of boxes of four numbers, by themselves or in mappings
        span        JSON: an object of `start_time` and `end_time`
        key_boxes   JSON: an object of a whole `keyframe_timestamp` and a `bbox_2d_list`

    It pays for any boxes: add it to what compares them, never alone.

    Args:
        completion: the reply: text or chat messages.
        boxes: the targets; read if `absent` is 'reversed'.
        kind: as above.
        credit: 'share' gives the share of the listed boxes that have four numbers.
        absent: 'reversed': where there are no targets, 1 minus that, so that listing boxes in the right form does
            not pay on a picture without any.
        within: see `text.exact`.

    >>> from guerdon.rewards import grounding
    >>> form = grounding.form(within="reply", credit="share")
    >>> form(["?"] * 3, ['[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [1]}]', "[[1, 2, 3, 4]]", "none"])
    [0.5, 1.0, 0.0]

    Source: the format rewards of Vision-R1 (arXiv 2503.18013, 'reversed'), GUI-G² (2507.15846, 'box'), Temporal-R1
    (2506.01908, 'span') and VEASON-R1 ('key_boxes', its share).
    """
    values = np.array([0.0 if text is None else _formed(text.strip(), kind) for text in passages(completion, within)])
    if credit == "all":
        values = (values == 1.0).astype(np.float64)
    reasons: dict[int, str] = {}
    if absent == "reversed":
        targets = references([None] * len(values) if boxes is None else boxes, 2, reasons)
        values = np.where([not found.boxes for found in targets], 1.0 - values, values)
    return Rows(reasons, [None] * len(values)).scores(values, 0.0)


def _formed(text: str, kind: Kind) -> float:
    if kind == "box":
        whole = text.startswith("[") and text.endswith("]") and text.count("[") == 1
        return float(whole and numbers(text, 4) is not None)
    if kind == "boxes":
        read = listing(text, form="json")
        return 0.0 if read is None or not read.boxes else read.written / len(read.boxes)
    found = mapping_of(text)
    if kind == "key_boxes":
        return form_of_key(found)
    return float(found is not None and found.keys() == {"start_time", "end_time"} and numbers(text, 2) is not None)


@reward(range=(0, 1))
def reasoned(completion: Completion, *, think: int = 20, answer: int = 10) -> float:
    """½ for a think and an answer span, and ¼ for each of them that says something.

    Args:
        completion: the reply: text or chat messages.
        think: more characters than this, tags included, is something.
        answer: as well.

    >>> from guerdon.rewards import grounding
    >>> grounding.reasoned().evaluate("<think>The chair is left.</think><answer>left</answer>")
    1.0
    >>> grounding.reasoned().evaluate("<think></think><answer></answer>")
    0.75

    Source: the format reward of 3D-R1 (arXiv 2507.23478), which counts the tags.
    """
    text = text_of(completion)
    thought, said = last_tag(text, "think"), last_tag(text, "answer")
    if thought is None or said is None:
        return 0.0
    spans = (len(f"<think>{thought}</think>"), think), (len(f"<answer>{said}</answer>"), answer)
    return 0.5 + sum(0.25 for length, least in spans if length > least)
