"""A plan of where things are to be, written before a picture: judged as words, as a drawing, and in the picture."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, Passage, passage, shown, text_of
from guerdon.rewards.geometry.boxes import iou, usable
from guerdon.rewards.image.reading import Picture
from guerdon.rewards.text.verdict import ask

__all__ = ["Plan", "drawing", "grounded", "judged", "planned", "read_plan"]

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_BOX = re.compile(rf"\({_NUMBER},{_NUMBER}\)\s*,\s*\({_NUMBER},{_NUMBER}\)")
_EDGE = re.compile(r"[.;:\n()\[\]]|,\s|\band\b")
_WORDS = re.compile(r"[^\W_][\w' -]*")


class Plan(NamedTuple):
    """What is to be where.

    Args:
        names: of the objects, as the words before each box have them.
        boxes: Float["k 4"], x₁, y₁, x₂, y₂ as shares of the canvas; all in [0, 1] and none of them empty.
    """

    names: list[str]
    boxes: Float[np.ndarray[Any, Any], "k 4"]


def read_plan(text: str, *, canvas: float = 1000.0) -> Plan:
    """The objects of a chain of reasoning, each a phrase and behind it its box '(x1,y1),(x2,y2)'.

    Args:
        text: the chain.
        canvas: the extent of both axes, in the unit of the numbers.

    Returns:
        Those with a box that lies on the canvas and is not empty; maybe none.

    Raises:
        ValueError: if the canvas has no extent.

    >>> plan = read_plan("A red cat (0,0),(500,1000) and a dog (500,0),(1000,1000).")
    >>> plan.names, plan.boxes[1].tolist()
    (['A red cat', 'a dog'], [0.5, 0.0, 1.0, 1.0])

    Source: GoT-R1 (gogoduan/GoT-R1; arXiv 2505.17022); the scale of its boxes is not stated.
    """
    if not 0 < canvas < math.inf:
        raise ValueError(f"canvas must be positive, got {canvas}")
    names, boxes, begin = [], [], 0
    for found in _BOX.finditer(text):
        box = np.array([float(x) for x in found.groups()]) / canvas
        phrase = _EDGE.split(text[begin : found.start()].strip(" ,"))[-1]
        words = _WORDS.findall(phrase)
        begin = found.end()
        if words and usable(box) and (box >= 0).all() and (box <= 1).all():
            names.append(words[-1].strip())
            boxes.append(box)
    return Plan(names, np.array(boxes).reshape(-1, 4))


def drawing(plan: Plan, *, side: int = 512) -> Picture:
    """A plan as a picture: each box as an outline on white, in a colour of its own, with its name at its corner.

    A judge sees from it what stands left of what; from numbers in a text it has to work that out.

    Args:
        plan: see `read_plan`.
        side: pixels, from 16.

    Raises:
        ValueError: if the side is too short.

    >>> drawing(read_plan("a cat (0,0),(500,500)"), side=64).shape
    (64, 64, 3)

    Source: the spatial reward of GoT-R1 (arXiv 2505.17022).
    """
    from PIL import Image, ImageDraw

    if side < 16:
        raise ValueError(f"side must be at least 16 pixels, got {side}")
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    for i, (name, box) in enumerate(zip(plan.names, plan.boxes, strict=True)):
        colour = f"hsl({round(i * 137.508) % 360}, 85%, 40%)"
        left, top, right, bottom = (round(float(x) * (side - 1)) for x in box)
        draw.rectangle((left, top, right, bottom), outline=colour, width=max(1, side // 128))
        draw.text((left + 4, top + 4), name, fill=colour)
    return np.asarray(image)


def _positive(scale: float, **options: Any) -> tuple[str, ...]:
    if not 0 < scale < math.inf:
        raise ValueError(f"scale is the judge's highest mark, got {scale}")
    return ()


def _entry(column: str, **options: Any) -> tuple[str, ...]:
    return ("prompt", column)


@reward(range=(0, 1), columns=_entry, requires=_positive, retries=2)
async def judged(
    prompt: Completion, entry: Any, *, judge: Any, scale: float = 10.0, column: str = "completion"
) -> tuple[float, dict[str, Any]]:
    """What a judge says of a plan beside its prompt, or of the picture: the mean of its marks, of the highest.

    Args:
        prompt: what was asked for.
        entry: the chain of reasoning; or the picture, if the column holds it.
        judge: a function, `async` or not, from prompt and entry to a mark or several, such as those for completeness,
            faithfulness, consistency and clarity.
        scale: the highest mark.
        column: of what is judged.

    Returns:
        The score, and the marks as a detail. A text without words earns 0 without asking.

    Raises:
        Abstain: if there is nothing to judge, or a mark is no number from 0 to the highest.
        ValueError: at once, if the highest mark is not positive.

    Source: R_sem and R_PI of GoT-R1 (arXiv 2505.17022), whose scale we take to be 10.
    """
    if entry is None:
        raise Abstain(f"nothing to judge in {column}")
    if isinstance(entry, str) and not entry.strip():
        return 0.0, {"marks": []}
    said = await ask(judge, prompt, entry)
    marks = _marks(said, scale)
    return sum(marks) / len(marks) / scale, {"marks": marks}


@reward(range=(0, 1), requires=_positive, retries=2)
async def planned(
    prompt: Completion,
    completion: Completion,
    *,
    judge: Any,
    scale: float = 10.0,
    canvas: float = 1000.0,
    side: int = 512,
    within: Passage = "completion",
) -> tuple[float, dict[str, Any]]:
    """What a judge says of the drawing of a plan: whether things stand to each other as the prompt has it.

    Args:
        prompt: what was asked for.
        completion: the chain of reasoning, with boxes.
        judge: a function, `async` or not, from prompt and `drawing` to a mark or several.
        scale: the highest mark.
        canvas: of `read_plan`.
        side: of `drawing`.
        within: see `text.exact`.

    Returns:
        The score, and the objects as a detail. A plan without a box earns 0 without asking.

    Raises:
        Abstain: if a mark is no number from 0 to the highest.
        ValueError: at once, if the highest mark is not positive.

    Source: R_spa of GoT-R1 (arXiv 2505.17022).
    """
    plan = read_plan(passage(text_of(completion), within) or "", canvas=canvas)
    if not plan.names:
        return 0.0, {"objects": []}
    marks = _marks(await ask(judge, prompt, drawing(plan, side=side)), scale)
    return sum(marks) / len(marks) / scale, {"objects": plan.names}


@reward(range=(0, 1), columns=lambda column, **options: ("completion", column), retries=2)
async def grounded(
    completion: Completion,
    picture: Any,
    *,
    detector: Callable[..., Any],
    canvas: float = 1000.0,
    within: Passage = "completion",
    column: str = "image",
) -> tuple[float, dict[str, Any]]:
    """Whether things are where the plan said: the mean over the planned objects of their overlap with the picture's.

    Args:
        completion: the chain of reasoning, with boxes.
        picture: what was made of it.
        detector: a function, `async` or not, from picture and names to one box for each, as shares of the picture, or
            None for one that is not there.
        canvas: of `read_plan`.
        within: see `text.exact`.
        column: of the picture.

    Returns:
        The mean IoU, 0 for what is missing; and each as a detail. A plan without a box earns 0 without asking.

    Raises:
        Abstain: if there is no picture, or the detector does not answer for each name.

    Source: R_RI of GoT-R1 (arXiv 2505.17022).
    """
    plan = read_plan(passage(text_of(completion), within) or "", canvas=canvas)
    if not plan.names:
        return 0.0, {"overlaps": []}
    if picture is None:
        raise Abstain(f"no picture in {column}")
    found = await ask(detector, picture, plan.names)
    if not isinstance(found, Sequence) or len(found) != len(plan.names):
        raise Abstain(f"the detector answered {shown(found)} for {len(plan.names)} names")
    boxes = np.array([_box(one) for one in found], np.float64)
    overlaps = iou(boxes, plan.boxes)
    return float(overlaps.mean()), {"overlaps": overlaps.tolist()}


def _box(entry: Any) -> list[float]:
    if entry is None:
        return [math.nan] * 4
    try:
        box = [float(x) for x in entry]
    except (TypeError, ValueError):
        box = []
    if len(box) != 4:
        raise Abstain(f"the detector's box is not four numbers: {shown(entry)}")
    return box


def _marks(said: Any, scale: float) -> list[float]:
    entries = list(said.values()) if hasattr(said, "values") else said
    entries = list(entries) if isinstance(entries, (list, tuple, np.ndarray)) else [entries]
    try:
        marks = [float(x) for x in entries]
    except (TypeError, ValueError):
        marks = []
    if not marks or not all(0 <= mark <= scale for mark in marks):
        raise Abstain(f"judge's marks are not numbers from 0 to {scale:g}: {shown(said)}")
    return marks
