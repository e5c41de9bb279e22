"""Whether a picture shows what was asked for, from what a detector found in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import read_json, shown
from guerdon.rewards import geometry
from guerdon.rewards.image.colors import NAMES, color_name
from guerdon.rewards.image.reading import Picture, shown_by

Colors = Literal["detections", "picture"]

RELATIONS = ("left of", "right of", "above", "below")


def relations(box: Sequence[float], other: Sequence[float], *, slack: float = 0.1) -> set[str]:
    """Where one box is as seen from another: any of 'left of', 'right of', 'above' and 'below'.

    The distance of the middles, less a share of both sizes, has to make up half of it in a direction.

    >>> relations([0, 0, 10, 10], [50, 0, 60, 10]), relations([0, 0, 10, 10], [1, 1, 11, 11])
    ({'left of'}, set())

    Source: GenEval (arXiv 2310.11513), whose slack is 0.1.
    """
    a, b = np.asarray(box, np.float64).reshape(2, 2), np.asarray(other, np.float64).reshape(2, 2)
    offset = a.mean(0) - b.mean(0)
    beyond = np.maximum(np.abs(offset) - slack * (a[1] - a[0] + b[1] - b[0]), 0.0) * np.sign(offset)
    distance = float(np.linalg.norm(offset))
    if not np.abs(beyond).max() > 1e-3:
        return set()
    x, y = beyond / distance
    there = (x < -0.5, x > 0.5, y < -0.5, y > 0.5)
    return {name for name, holds in zip(RELATIONS, there, strict=True) if holds}


def _columns(colors: Colors, **options: Any) -> tuple[str, ...]:
    return ("detections", "expected", *(("completion",) if colors == "picture" else ()))


def _shares(least: float, slack: float, most: int, **options: Any) -> tuple[str, ...]:
    if not 0 <= least <= 1 or not 0 <= slack < 1 or most < 1:
        raise ValueError(f"composition wants shares and a positive number of objects, got {least}, {slack} and {most}")
    return ()


@reward(range=(0, 1), columns=_columns, requires=_shares)
def composition(
    detections: Any,
    expected: Any,
    completion: Any = None,
    *,
    credit: Literal["share", "all"] = "share",
    colors: Colors = "detections",
    least: float = 0.3,
    slack: float = 0.1,
    most: int = 16,
) -> tuple[float, dict[str, Any]]:
    """The share of what was asked for that a detector finds in the picture: objects, counts, colours and places.

    Filling the picture with everything does not pay: what is to be excluded counts as much as what is to be there.

    Args:
        detections: what the detector found: a list of mappings with `label`, `box` [x1, y1, x2, y2], `confidence` and,
            as far as known, `color`.
        expected: a mapping, as GenEval writes it. `include` is a list of mappings with `class`, `count`, and perhaps
            `color` and `position`, [relation, number of the entry it relates to]; `exclude` is a list of a `class` and
            the `count` from which it is too many.
        completion: the picture; read if colours are.
        credit: the 'share' of the entries that are met, or 1 only if 'all' are.
        colors: of objects: as the 'detections' say, or the name of most pixels in the middle of the box of the
            'picture'.
        least: confidence below which a detection does not count.
        slack: see `image.relations`.
        most: objects of a class that count, by confidence.

    Returns:
        In [0, 1], and as detail `missing` what is not met.

    Raises:
        Abstain: if the expectation or the detections are unusable, which are both not the policy's.

    >>> from guerdon.rewards import image
    >>> found = [{"label": "dog", "box": [0, 0, 4, 4], "confidence": 0.9, "color": "red"}]
    >>> image.composition().evaluate(found, {"include": [{"class": "dog", "color": "red"}, {"class": "cat"}]})
    (0.5, {'missing': ['1 cat'], 'problem': None})

    Source: GenEval (arXiv 2310.11513).
    """
    wanted, banned = _expected(expected)
    pixels = None
    if colors == "picture":
        try:
            pixels = shown_by(completion)
        except ValueError as error:
            return 0.0, {"missing": None, "problem": str(error)}
    there = _found(detections, least, most)
    missing: list[str] = []
    groups: list[list[Mapping[str, Any]]] = []
    for entry in wanted:
        several = there.get(entry["class"], [])
        if entry.get("color") is not None:
            several = [some for some in several if _color(some, pixels) == entry["color"]]
        if entry.get("position") is not None:
            relation, other = entry["position"]
            several = [
                some
                for some in several
                if groups[other]
                and all(relation in relations(some["box"], far["box"], slack=slack) for far in groups[other])
            ]
        count = entry.get("count", 1)
        groups.append(several[:count])
        if len(several) < count:
            asked = (count, entry.get("color"), entry["class"], entry.get("position", [None])[0])
            missing.append(" ".join(str(word) for word in asked if word is not None))
    missing += [
        f"fewer than {entry.get('count', 1)} {entry['class']}"
        for entry in banned
        if len(there.get(entry["class"], [])) >= entry.get("count", 1)
    ]
    total = len(wanted) + len(banned)
    value = float(not missing) if credit == "all" else (total - len(missing)) / total
    return value, {"missing": missing, "problem": None}


def _expected(value: Any) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    value = _json(value, "expected")
    if not isinstance(value, Mapping):
        raise Abstain(f"column 'expected' is not a mapping: {shown(value)}")
    wanted, banned = (_listed(value.get(name), "expected") for name in ("include", "exclude"))
    if not wanted and not banned:
        raise Abstain("column 'expected' asks for nothing")
    for place, entry in enumerate([*wanted, *banned]):
        position, count = entry.get("position"), entry.get("count", 1)
        known = isinstance(entry.get("class"), str) and isinstance(count, int) and count >= 1
        placed = position is None or (
            isinstance(position, (list, tuple))
            and len(position) == 2
            and position[0] in RELATIONS
            and isinstance(position[1], int)
            and 0 <= position[1] < min(place, len(wanted))
        )
        if not known or not placed or (entry.get("color") is not None and entry["color"] not in NAMES):
            raise Abstain(f"column 'expected' cannot be met: {shown(dict(entry))}")
    return wanted, banned


def _found(value: Any, least: float, most: int) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for entry in _listed(_json(value, "detections"), "detections"):
        box = np.array(entry.get("box", []), np.float64) if _flat(entry.get("box")) else np.empty(0)
        sure = entry.get("confidence", 1.0)
        if not isinstance(entry.get("label"), str) or box.shape != (4,) or not geometry.usable(box[None])[0]:
            raise Abstain(f"column 'detections' has no label or box: {shown(dict(entry))}")
        if not isinstance(sure, (int, float)) or not 0 <= sure <= 1:
            raise Abstain(f"column 'detections' has no confidence: {shown(dict(entry))}")
        if sure >= least:
            groups.setdefault(entry["label"], []).append({**entry, "confidence": sure})
    return {label: sorted(some, key=lambda one: -one["confidence"])[:most] for label, some in groups.items()}


def _flat(box: Any) -> bool:
    return isinstance(box, (list, tuple, np.ndarray)) and all(isinstance(x, (int, float, np.number)) for x in box)


def _listed(value: Any, column: str) -> list[Mapping[str, Any]]:
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if value is None and column == "expected":
        return []
    if not isinstance(value, (list, tuple)) or not all(isinstance(entry, Mapping) for entry in value):
        raise Abstain(f"column {column!r} is not a list of mappings: {shown(value)}")
    return [{name: held for name, held in entry.items() if held is not None} for entry in value]


def _json(value: Any, column: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return read_json(value)
    except ValueError as error:
        raise Abstain(f"column {column!r} is not JSON: {error}") from None


def _color(found: Mapping[str, Any], pixels: Picture | None) -> str | None:
    if pixels is None:
        said = found.get("color")
        return said if isinstance(said, str) else None
    left, top, right, bottom = found["box"]
    high, wide = pixels.shape[:2]
    x = np.clip([left + (right - left) / 4, right - (right - left) / 4], 0, wide - 1).round().astype(int)
    y = np.clip([top + (bottom - top) / 4, bottom - (bottom - top) / 4], 0, high - 1).round().astype(int)
    return color_name(pixels[y[0] : y[1] + 1, x[0] : x[1] + 1])
