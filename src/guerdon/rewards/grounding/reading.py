"""Boxes, points and spans of time as replies and data write them."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from guerdon.core.parsing import Completion, Passage, last_fenced, passage, read_json, shown, text_of
from guerdon.core.scores import Scores

Units = Literal["pixels", "unit", "thousand", "seen"]
Form = Literal["json", "brackets", "either"]

_BRACKETS = re.compile(r"[\[({]([^\[\](){}]*)[\])}]")
_BOX = ("bbox_2d", "bbox", "box", "position", "bbox_3d", "box_3d", "box_2d", "bounding_box")
_LABEL = ("label", "category", "class", "name")
_CONFIDENCE = ("confidence", "score")
_SEVERAL = ("bbox_2d_list", "bboxes", "boxes", "objects", "detections")
_NOTHING = ("none", "[]")


class Listing(NamedTuple):
    """The boxes that a text lists, as they stand there; one that is not written as a box is all NaN."""

    boxes: list[list[float]]
    labels: list[str | None]
    confidences: list[float]

    def take(self, places: Iterable[int]) -> Listing:
        """The boxes at some places."""
        chosen = list(places)
        return Listing(
            [self.boxes[i] for i in chosen], [self.labels[i] for i in chosen], [self.confidences[i] for i in chosen]
        )

    @property
    def written(self) -> int:
        """How many of them are as many numbers as a box has."""
        return sum(not math.isnan(box[0]) or not all(map(math.isnan, box)) for box in self.boxes)


class Rows(NamedTuple):
    """What is known of each row: why it abstains, and what is wrong with its answer."""

    reasons: dict[int, str]
    problems: list[str | None]

    def scores(self, values: Float[np.ndarray[Any, Any], "n"], floor: float, **details: Sequence[Any]) -> Scores:
        """The values, with the floor where there is a problem and an abstention where there is a reason."""
        wrong = np.array([problem is not None for problem in self.problems], bool)
        valid = np.ones(len(values), bool)
        valid[list(self.reasons)] = False
        found = np.where(wrong | ~valid, floor, values)
        return Scores(found, valid=valid, reasons=self.reasons, details={**details, "problem": self.problems})


def passages(completions: Sequence[Completion], within: Passage) -> list[str | None]:
    """The part of each completion that counts."""
    return [passage(text_of(completion), within) for completion in completions]


def numbers(text: str, *counts: int) -> list[float] | None:
    """The numbers of the first bracket that holds as many, or None.

    >>> numbers("from [1] to click(x=10, y=20.5)", 2), numbers('{"start_time": "3", "end_time": 7}', 2)
    ([10.0, 20.5], [3.0, 7.0])
    """
    for found in _BRACKETS.finditer(text):
        parts = found[1].split(",")
        if len(parts) in counts and (read := _floats(parts)) is not None:
            return read
    return None


def _floats(parts: list[str]) -> list[float] | None:
    try:
        return list(map(float, parts))
    except ValueError:
        pass
    try:
        return [float(part.rpartition("=")[2].rpartition(":")[2].strip(" \t\n\"'")) for part in parts]
    except ValueError:
        return None


def listing(text: str, *, axes: int = 2, form: Form = "either") -> Listing | None:
    """The boxes that a reply lists, or None if it cannot be read.

    It reads the last block of JSON, or all of the text as JSON: a list of boxes, of mappings with a box, a label
    and a confidence, or a mapping that holds such a list. Under 'either', JSON that was cut off is read up to its
    last whole entry, and text that is no JSON by its brackets.

    >>> listing('[{"bbox_2d": [1, 2, 3, 4], "label": "cat"}, {"bbox_2d": [5, 6]}]').labels
    ['cat', None]
    >>> listing("a cat at [1, 2, 3, 4]").boxes, listing("None").boxes, listing("no idea")
    ([[1.0, 2.0, 3.0, 4.0]], [], None)
    """
    block = last_fenced(text, "json", "")
    said = (text if block is None else block).strip()
    if said.casefold().strip(" .") in _NOTHING:
        return Listing([], [], [])
    if form != "brackets":
        found = entries(_json(said, mend=form == "either"), axes)
        if found is not None or form == "json":
            return found
    width = 2 * axes
    boxes = [
        read
        for found in _BRACKETS.finditer(said)
        if found[1].count(",") == width - 1 and (read := _floats(found[1].split(","))) is not None
    ]
    return Listing(boxes, [None] * len(boxes), [math.nan] * len(boxes)) if boxes else None


def entries(value: Any, axes: int) -> Listing | None:
    """The boxes of a JSON value."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, Mapping):
        several = _held(value, _SEVERAL)
        value = [value] if several is None else several
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        return None
    if len(value) == 2 * axes and all(isinstance(entry, (int, float)) for entry in value):
        value = [value]
    read = [_entry(entry, axes) for entry in value]
    return Listing([box for box, _, _ in read], [label for _, label, _ in read], [sure for _, _, sure in read])


def _entry(entry: Any, axes: int) -> tuple[list[float], str | None, float]:
    label, sure, box = None, math.nan, entry
    if isinstance(entry, Mapping):
        box, named, confident = (_held(entry, keys) for keys in (_BOX, _LABEL, _CONFIDENCE))
        label = named if isinstance(named, str) else None
        sure = _number(confident)
    box = box.tolist() if isinstance(box, np.ndarray) else box
    if not isinstance(box, (list, tuple)) or len(box) != 2 * axes:
        return [math.nan] * (2 * axes), label, sure
    return [_number(x) for x in box], label, sure


def _held(mapping: Mapping[Any, Any], keys: tuple[str, ...]) -> Any:
    lowered = {key.casefold(): value for key, value in mapping.items() if isinstance(key, str)}
    return next((lowered[key] for key in keys if lowered.get(key) is not None), None)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _json(text: str, *, mend: bool) -> Any:
    """The JSON value of a text, None if there is none."""
    whole = text.rfind("}") + 1  # where the last entry of a list that was cut off ends
    tries = [text, *([text[:whole] + "]"] if mend and whole and text.startswith("[") else [])]
    if '"' not in text:
        tries += [written.replace("'", '"') for written in tries]
    for written in tries:
        try:
            return read_json(written, duplicates="accept", nan="accept")
        except ValueError:
            continue
    return None


def mapping_of(text: str) -> Mapping[str, Any] | None:
    """The JSON object of a reply, in a code block or by itself; None if there is none."""
    block = last_fenced(text, "json", "")
    value = _json((text if block is None else block).strip(), mend=False)
    return value if isinstance(value, Mapping) else None


def vectors(
    column: Sequence[Any], width: int, what: str, reasons: dict[int, str]
) -> Float[np.ndarray[Any, Any], "n w"]:
    """A column of data that holds as many numbers in each row; rows that do not abstain, and are NaN.

    A row is a list, a list of one such list, a mapping with a box, or the JSON text of one of these.
    """
    read = None
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        read = np.array(column, np.float64)
    if read is None or read.shape != (len(column), width):
        read = np.array([_vector(entry, width) for entry in column], np.float64).reshape(len(column), width)
    for row in np.flatnonzero(~np.isfinite(read).all(1)).tolist():
        reasons.setdefault(row, f"{what}: {shown(column[row])}")
    return read


def _vector(entry: Any, width: int) -> list[float]:
    if isinstance(entry, str):
        entry = _json(entry, mend=False)
    entry = entry.tolist() if isinstance(entry, np.ndarray) else entry
    if isinstance(entry, Mapping):
        entry = _held(entry, _BOX)
    if isinstance(entry, (list, tuple)) and len(entry) == 1:
        return _vector(entry[0], width) if not isinstance(entry[0], str) else [math.nan] * width
    if not isinstance(entry, (list, tuple)) or len(entry) != width:
        return [math.nan] * width
    return [_number(x) for x in entry]


def references(column: Sequence[Any], axes: int, reasons: dict[int, str]) -> list[Listing]:
    """The boxes that each row should have found; rows where they are missing or unusable abstain."""
    from guerdon.rewards.geometry import usable

    found = []
    for row, entry in enumerate(column):
        value = _json(entry, mend=False) if isinstance(entry, str) else entry
        read = None if value is None else entries(value, axes)
        if read is None or not usable(np.array(read.boxes, np.float64).reshape(-1, 2 * axes)).all():
            reasons.setdefault(row, f"reference is not a list of boxes: {shown(entry)}")
            read = None
        found.append(read or Listing([], [], []))
    return found


def scales(
    units: Units, size: Sequence[Any] | None, seen: Sequence[Any] | None, n: int, reasons: dict[int, str]
) -> Float[np.ndarray[Any, Any], "n 2"]:
    """What x and y of an answer are multiplied by to be pixels of the picture; rows where it is not known abstain."""
    if units == "pixels":
        return np.ones((n, 2))
    wide = sizes_of(size, n, "size", reasons)
    if units == "unit":
        return wide
    return wide / (1000.0 if units == "thousand" else sizes_of(seen, n, "seen", reasons))


def sizes_of(
    column: Sequence[Any] | None, n: int, name: str, reasons: dict[int, str]
) -> Float[np.ndarray[Any, Any], "n 2"]:
    """Widths and heights; rows without a positive one abstain."""
    what = f"column {name!r} is not a width and a height"
    given: Sequence[Any] = [None] * n if column is None else column
    read = vectors(given, 2, what, reasons)
    unusable = ~np.asarray(((read > 0) & (read < 1e9)).all(1))
    for row in np.flatnonzero(unusable).tolist():
        reasons.setdefault(row, f"{what}: {shown(given[row])}")
    return np.where(unusable[:, None], 1.0, read)


def columns_of(reference: str, units: Units = "pixels", *, size: bool = False) -> tuple[str, ...]:
    """The columns that a part reads: its reference, and the sizes that its units need."""
    more = ("size", "seen") if units == "seen" else ("size",) if units != "pixels" or size else ()
    return ("completion", reference, *more)
