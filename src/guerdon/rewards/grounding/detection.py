"""The boxes that a reply lists against those there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from guerdon.algebra import reward
from guerdon.core.extras import needs
from guerdon.core.parsing import Completion, Passage
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores
from guerdon.rewards import geometry
from guerdon.rewards.geometry.boxes import Edges
from guerdon.rewards.geometry.sets import Cost, Match, Sets
from guerdon.rewards.grounding.reading import (
    Form,
    Listing,
    Rows,
    Units,
    columns_of,
    listing,
    passages,
    references,
    scales,
)

Per = Literal["max", "pred", "gt", "matched"]
Labels = Literal["ignore", "before", "after"]
Duplicates = Literal["count", "drop"]


@dataclass(frozen=True, eq=False)
class Scene:
    """The boxes of a batch: what was said, what there is, and how many boxes were said, looked at or not."""

    said: Sets
    there: Sets
    written: Int[np.ndarray[Any, Any], "n"]
    confidences: Float[np.ndarray[Any, Any], "m"]
    rows: Rows

    @property
    def expected(self) -> Int[np.ndarray[Any, Any], "n"]:
        """How many targets each row has."""
        return self.there.counts

    def total(self, values: Any) -> Float[np.ndarray[Any, Any], "n"]:
        """The sum of one value per box that was said, row by row."""
        return np.bincount(self.said.rows, weights=values, minlength=len(self.written))


def _options(*, match: Match = "greedy", above: float, **options: Any) -> tuple[str, ...]:
    if not -1 <= above <= 1:
        raise ValueError(f"above is an overlap, from −1 to 1; got {above}")
    band = options.get("band")
    if band is not None and not 0 <= band[0] <= band[1] <= 1:
        raise ValueError(f"a band rises within [0, 1], got {band}")
    return _scipy() if match == "hungarian" else ()


_scipy = needs("grounding with match='hungarian'", "scipy", extra="grounding")


def _columns(*, units: Units = "pixels", **options: Any) -> tuple[str, ...]:
    return columns_of("boxes", units)


def _range(*, generalized: bool, above: float, band: tuple[float, float] | None, **options: Any) -> Range:
    return (-1.0 if generalized and above < 0 and band is None else 0.0), 1.0


@reward(range=_range, lane="batch", requires=_options, columns=_columns)
def detection(
    completion: Sequence[Completion],
    boxes: Sequence[Any],
    size: Sequence[Any] | None = None,
    seen: Sequence[Any] | None = None,
    *,
    credit: Literal["quality", "count"] = "quality",
    per: Per = "max",
    match: Match = "hungarian",
    cost: Cost = "quality",
    labels: Labels = "ignore",
    above: float = 0.0,
    inclusive: bool = False,
    band: tuple[float, float] | None = None,
    generalized: bool = False,
    edges: Edges = "continuous",
    axes: int = 2,
    duplicates: Duplicates = "count",
    most: int = 120,
    form: Form = "either",
    within: Passage = "reply",
    units: Units = "pixels",
) -> Scores:
    """How well the boxes that the reply lists are the targets: Σ quality of matched pairs / how many there should be.

    Where nothing is there, saying so ([] or None) is right: 1; a box then is 0, as is no box where something is.

    Args:
        completion: the reply: text or chat messages. See `form` for how boxes are read.
        boxes: the targets: a list of boxes, or of mappings with a box (`bbox_2d`, `bbox`, `box`, …) and a `label`;
            or its JSON text, which is safer in Parquet. An empty list wants none.
        size, seen: see `iou`.
        credit: 'quality' sums the IoU (or GIoU) of the matched pairs, 'count' counts them.
        per: what the sum is divided by. 'max' of the numbers said and wanted: what is missed and what is made up
            both cost. 'gt' alone leaves a flood of boxes free, 'pred' alone saying one safe box of many, and
            'matched', the mean quality of the pairs, both.
        match: 'hungarian', 'greedy', 'order' (by confidence, else as listed) or 'best'; see `geometry.pair_up`.
            Under 'best' one good box said twice counts twice.
        cost: of the Hungarian matching: 'quality' or 'detr'.
        labels: 'ignore' them; 'before': only boxes of equal labels (in any case) are matched; 'after': matched by
            place, and worth nothing where labels differ.
        above: pairs of no more quality are none.
        inclusive: those of exactly that quality are some.
        band: (a, b): a pair's quality is 0 below a and 1 above b. For rules that tighten with training add two of
            these, one that `anneal` lets go and one that it brings in.
        generalized: quality is GIoU; with a negative `above` pairs that do not touch count, down to −1.
        edges: see `geometry.iou`.
        axes: 2, or 3 for boxes [x1, y1, z1, x2, y2, z2] in space.
        duplicates: whether a box that is said again, exactly, counts as another or is dropped.
        most: only so many boxes are looked at, as listed; all of them count in the denominator.
        form: 'json' wants the passage, or its last code block, to be JSON; 'brackets' takes every bracket of as many
            numbers as a box has, without labels; 'either' the first that can be read, and cut JSON up to the cut.
        within: see `text.exact`.
        units: see `iou`; of axes=2 only.

    Returns:
        In [0, 1], or [−1, 1] as above, and as details how many boxes were said and matched. A reply that cannot be
        read gets the floor, and the detail `problem` says why. A box that is none (NaN, high below low) is said and
        matched with nothing.

    Raises:
        ValueError: at once, if `above` or `band` is out of range.
        MissingExtra: if the matching is Hungarian and scipy is not installed.

    >>> from guerdon.rewards import grounding
    >>> two = [{"bbox_2d": [0, 0, 10, 10], "label": "cat"}, {"bbox_2d": [20, 0, 30, 10], "label": "dog"}]
    >>> grounding.detection()(["?"] * 3, ["[[0, 0, 10, 10]]", "[]", "none of it"], boxes=[two, [], two])
    [0.5, 1.0, 0.0]

    Source: per 'max': v2 of Visual-RFT (arXiv 2503.01785; v1 is 'pred'), VEASON-R1; bands: Vision-R1 (2503.18013), its
    recall is credit 'count' per 'gt'; greedy: VLM-R1 (2504.07615); 'best' in space: 3D-R1 (2507.23478).
    """
    scene = _scene(completion, boxes, size, seen, axes, duplicates, most, form, within, units)
    if match == "order":
        scene = _by_confidence(scene)
    pairs = geometry.pair_up(
        scene.said, scene.there, match=match, cost=cost, edges=edges, generalized=generalized, above=above,
        inclusive=inclusive, same_label=labels == "before",
    )  # fmt: skip
    found = pairs.partner >= 0
    if labels == "after":
        found &= _same_label(scene, pairs.partner)
    worth = np.where(found, pairs.quality if credit == "quality" else 1.0, 0.0)
    if band is not None and credit == "quality":
        worth = np.where(worth < band[0], 0.0, np.where(worth > band[1], 1.0, worth))
    matched = scene.total(found)
    share = scene.total(worth) / np.maximum(_denominator(per, scene, matched), 1)
    floor = -1.0 if generalized and above < 0 and band is None else 0.0
    nothing = (scene.written == 0) & (scene.expected == 0)
    silent = (scene.written == 0) != (scene.expected == 0)
    values = np.where(nothing, 1.0, np.where(silent, floor, share))
    return scene.rows.scores(values, floor, predicted=scene.written.tolist(), matched=matched.astype(int).tolist())


@reward(range=(0, 1), lane="batch", requires=_options, columns=_columns)
def confidence(
    completion: Sequence[Completion],
    boxes: Sequence[Any],
    size: Sequence[Any] | None = None,
    seen: Sequence[Any] | None = None,
    *,
    misses: Literal["paid", "unpaid"] = "paid",
    match: Match = "order",
    above: float = 0.5,
    inclusive: bool = False,
    duplicates: Duplicates = "drop",
    most: int = 120,
    within: Passage = "reply",
    units: Units = "pixels",
) -> Scores:
    """How well the confidences of the boxes that the reply lists say which of them are right.

        mean of c where a box is matched, 1 − c where it is not        ('paid')
        (Σ c where matched − Σ c where not) / max(said, wanted)        ('unpaid'; at least 0)

    A flood of boxes with confidence 0 is perfectly calibrated: under 'paid' it earns nearly all there is, and has to
    lose more beside it, by `detection` per 'max'; under 'unpaid' it earns nothing.

    Args:
        completion: the reply: text or chat messages; a list of mappings with a box and a `confidence` in [0, 1].
            A box without one is wrong either way.
        boxes: see `detection`.
        misses: as above.
        match, above, inclusive, duplicates, most: see `detection`.
        size, seen, within, units: see `iou`.

    Returns:
        In [0, 1]; the detail `problem` says why a reply cannot be read.

    >>> from guerdon.rewards import grounding
    >>> said = '[{"box": [0, 0, 10, 10], "confidence": 0.9}, {"box": [50, 50, 60, 60], "confidence": 0.2}]'
    >>> grounding.confidence(misses="unpaid")(["?"], [said], boxes=[[[0, 0, 10, 10]]])  # (0.9 − 0.2)/2
    [0.35]

    Source: the confidence reward of Visual-RFT (arXiv 2503.01785); 'unpaid' is ours.
    """
    scene = _by_confidence(_scene(completion, boxes, size, seen, 2, duplicates, most, "either", within, units))
    pairs = geometry.pair_up(scene.said, scene.there, match=match, above=above, inclusive=inclusive)
    found = pairs.partner >= 0
    known = (scene.confidences >= 0) & (scene.confidences <= 1)
    sure = np.where(known, scene.confidences, np.where(found, 0.0, 1.0))
    if misses == "paid":
        share = scene.total(np.where(found, sure, 1.0 - sure)) / np.maximum(scene.written, 1)
    else:
        both = np.maximum(np.maximum(scene.written, scene.expected), 1)
        share = np.maximum(scene.total(np.where(found, sure, -sure)), 0.0) / both
    values = np.where((scene.written == 0) & (scene.expected == 0), 1.0, share)
    return scene.rows.scores(values, 0.0, predicted=scene.written.tolist())


@reward(range=(0, 1), lane="batch", columns=_columns)
def average_precision(
    completion: Sequence[Completion],
    boxes: Sequence[Any],
    size: Sequence[Any] | None = None,
    seen: Sequence[Any] | None = None,
    *,
    flood: Literal["costs", "free"] = "costs",
    labels: Literal["ignore", "before"] = "before",
    thresholds: tuple[float, ...] = tuple(round(0.5 + 0.05 * i, 2) for i in range(10)),
    most: int = 120,
    form: Form = "either",
    within: Passage = "reply",
    units: Units = "pixels",
) -> Scores:
    """COCO's mean average precision of the boxes that the reply lists, times min(1, wanted/said).

    Average precision is a ranking's: boxes behind the right ones cost nothing, so listing a hundred is a good bet.
    The factor makes every box too many cost.

    Args:
        completion: the reply: text or chat messages; boxes in the order of their confidence, else as listed.
        boxes: see `detection`; with labels, unless they are ignored.
        flood: 'free' leaves the factor out.
        labels: 'before': a box counts for its label only, and boxes of labels that no target has only in the number
            said; 'ignore': there is one kind of box.
        thresholds: of the IoU; see `geometry.average_precision`.
        most, form: see `detection`.
        size, seen, within, units: see `iou`.

    Returns:
        In [0, 1]; the detail `problem` says why a reply cannot be read. Where nothing is there, saying so is 1.

    >>> from guerdon.rewards import grounding
    >>> grounding.average_precision(labels="ignore")(
    ...     ["?"], ["[[0, 0, 10, 10], [50, 50, 60, 60]]"], boxes=[[[0, 0, 10, 10]]])
    [0.5]

    Source: odLength of VLM-R1 (arXiv 2504.07615).
    """
    scene = _by_confidence(_scene(completion, boxes, size, seen, 2, "count", most, form, within, units))
    said, there = scene.said, scene.there
    if labels == "ignore":
        said, there = Sets(said.boxes, said.counts), Sets(there.boxes, there.counts)
    values = geometry.average_precision(said, there, thresholds=thresholds)
    if flood == "costs":
        values = values * np.minimum(1.0, scene.expected / np.maximum(scene.written, 1))
    values = np.where((scene.written == 0) & (scene.expected == 0), 1.0, values)
    return scene.rows.scores(values, 0.0, predicted=scene.written.tolist())


@reward(range=(-1, 0), lane="batch")
def repetition(completion: Sequence[Completion], *, axes: int = 2, within: Passage = "reply") -> Scores:
    """A penalty for listing the same box with the same label again: −(1 − different/all), 0 without boxes.

    Args:
        completion: the reply: text or chat messages.
        axes: see `detection`.
        within: see `text.exact`.

    >>> from guerdon.rewards import grounding
    >>> grounding.repetition()(["?"], ["[[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 2], [0, 0, 1, 1]]"])
    [-0.5]

    Source: the repetition penalty on boxes of VLM-R1 (arXiv 2504.07615).
    """
    values = []
    for text in passages(completion, within):
        found = None if text is None else listing(text, axes=axes)
        entries = [] if found is None else list(zip(map(tuple, found.boxes), found.labels, strict=True))
        # NaN differs from itself: two entries that are no boxes are compared as text.
        values.append(len(set(map(repr, entries))) / len(entries) - 1.0 if entries else 0.0)
    return Scores.of(values)


def _scene(
    completion: Sequence[Completion],
    boxes: Sequence[Any],
    size: Sequence[Any] | None,
    seen: Sequence[Any] | None,
    axes: int,
    duplicates: Duplicates,
    most: int,
    form: Form,
    within: Passage,
    units: Units,
) -> Scene:
    reasons: dict[int, str] = {}
    targets = references(boxes, axes, reasons)
    read = [None if text is None else listing(text, axes=axes, form=form) for text in passages(completion, within)]
    scale = scales(units, size, seen, len(boxes), reasons) if axes == 2 else None
    return arranged(read, targets, reasons, axes=axes, scale=scale, duplicates=duplicates, most=most)


def arranged(
    read: Sequence[Listing | None],
    targets: Sequence[Listing],
    reasons: dict[int, str],
    *,
    axes: int = 2,
    scale: Float[np.ndarray[Any, Any], "n 2"] | None = None,
    duplicates: Duplicates = "count",
    most: int = 120,
) -> Scene:
    """What was read, as arrays; None is what could not be read."""
    said = [found or Listing([], [], []) for found in read]
    if duplicates == "drop":
        said = [_different(found) for found in said]
    written = np.array([len(found.boxes) for found in said], np.int64)
    said = [found.take(range(min(len(found.boxes), most))) for found in said]
    names: dict[str | None, int] = {None: -1}
    for label in (label for found in (*targets, *said) for label in found.labels):
        names.setdefault(_known(label), len(names) - 1)
    first, second = (_sets(listings, names, axes) for listings in (said, targets))
    if scale is not None:
        first = Sets(first.boxes * np.tile(scale, axes)[first.rows], first.counts, first.labels)
    broken = np.bincount(first.rows[~geometry.usable(first.boxes)], minlength=len(said))
    problems = [
        "no boxes that can be read" if found is None else f"none of {count} is a box" if bad and bad == held else None
        for found, count, bad, held in zip(read, written.tolist(), broken, first.counts, strict=True)
    ]
    sure = np.array([c for found in said for c in found.confidences], np.float64)
    return Scene(first, second, written, sure, Rows(reasons, problems))


def _different(found: Listing) -> Listing:
    """Without the boxes that stand there already."""
    first = {tuple(box): place for place, box in reversed(list(enumerate(found.boxes)))}
    return found.take(sorted(first.values()))


def _known(label: str | None) -> str | None:
    return None if label is None else " ".join(label.casefold().split())


def _sets(listings: Sequence[Listing], names: dict[str | None, int], axes: int) -> Sets:
    flat = [box for found in listings for box in found.boxes]
    labels = [names[_known(label)] for found in listings for label in found.labels]
    counts = np.array([len(found.boxes) for found in listings], np.int64)
    return Sets(np.array(flat, np.float64).reshape(-1, 2 * axes), counts, np.array(labels, np.int64))


def _by_confidence(scene: Scene) -> Scene:
    """The boxes of each row with the most certain first; those without a confidence last, in their order."""
    order = np.lexsort((-np.nan_to_num(scene.confidences, nan=-np.inf), scene.said.rows))
    labels = scene.said.labels
    said = Sets(scene.said.boxes[order], scene.said.counts, None if labels is None else labels[order])
    return Scene(said, scene.there, scene.written, scene.confidences[order], scene.rows)


def _same_label(scene: Scene, partner: Int[np.ndarray[Any, Any], "m"]) -> Any:
    assert scene.said.labels is not None
    assert scene.there.labels is not None
    if not len(scene.there.labels):
        return np.zeros(len(partner), bool)
    return (scene.said.labels == scene.there.labels[partner]) & (scene.said.labels >= 0)


def _denominator(per: Per, scene: Scene, matched: Any) -> Any:
    if per == "max":
        return np.maximum(scene.written, scene.expected)
    return {"pred": scene.written, "gt": scene.expected, "matched": matched}[per]
