"""A drawing in a reply against the one that was wanted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.extras import needs
from guerdon.core.parsing import Completion, Passage, shown
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores
from guerdon.rewards.graphics import likeness
from guerdon.rewards.graphics.drawing import NotDrawn, canvas, draw
from guerdon.rewards.graphics.likeness import Flat, Paper, brevity, edge_map
from guerdon.rewards.graphics.source import Box, Source, read_svg, svg_in
from guerdon.rewards.image.reading import Picture, picture

Frame = Literal["reference", "own"]
Count = Callable[[str], int]

NO_SVG = "no SVG"
BLANK = "a blank canvas"


@dataclass(frozen=True, eq=False)
class Target:
    """The picture that was wanted, and what is compared with it.

    Args:
        pixels: the picture.
        box: the view box of its code, if it has any.
        code: its SVG, if it is one.
    """

    pixels: Picture
    box: Box | None
    code: str | None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @cached_property
    def outlines(self) -> Any:
        """Its edges."""
        return edge_map(self.pixels)

    @cached_property
    def blank(self) -> bool:
        """Whether it is one colour."""
        return one_color(self.pixels)


@dataclass(frozen=True)
class Bounds:
    """What a drawing may cost.

    Args:
        side: pixels of the shorter side.
        seconds: of CPU, for each drawing.
        memory: MiB.
        fonts: files.
    """

    side: int
    seconds: float
    memory: int
    fonts: tuple[str, ...]

    def draw(self, source: Source, box: Box, size: tuple[int, int]) -> Picture:
        """See `drawing.draw`."""
        return draw(source, box, size, seconds=self.seconds, memory=self.memory, fonts=self.fonts)


def one_color(pixels: Picture) -> bool:
    """Whether all pixels are the same."""
    return all(bool((some == pixels[0, 0]).all()) for some in (pixels[::8, ::8], pixels))


def _options(
    *, side: int, seconds: float, memory: int, weights: tuple[float, ...] = (1.0,), **options: Any
) -> tuple[str, ...]:
    if not 16 <= side <= 2048 or not 0 < seconds < math.inf or memory < 128:
        raise ValueError(
            f"a side is from 16 to 2048 pixels, seconds are positive, memory at least 128 MiB; "
            f"got {side}, {seconds} and {memory}"
        )
    if min(weights) < 0 or not 0 < sum(weights) < math.inf:
        raise ValueError(f"weights are not negative and not all 0, got {weights}")
    return ()


def _match_options(**options: Any) -> tuple[str, ...]:
    weights = tuple(options[name] for name in ("l2", "edges", "ssim", "length"))
    return needs("graphics.match", "resvg_py", "cv2", extra="graphics")() + _options(weights=weights, **options)


def _longest(*, seconds: float, **options: Any) -> float:
    """Twice two drawings on a machine that does much else, and starting what draws."""
    return 60.0 + 8 * seconds


@reward(range=(-1, 1), deadline=_longest, requires=_match_options)
def match(
    completion: Completion,
    reference: Any,
    *,
    l2: float = 1.0,
    edges: float = 1.0,
    ssim: float = 0.0,
    length: float = 1.0,
    side: int = 512,
    frame: Frame = "reference",
    flat: Flat = "uncorrelated",
    paper: Paper = "out",
    count: Count | None = None,
    within: Passage = "reply",
    fonts: tuple[str, ...] = (),
    seconds: float = 2.0,
    memory: int = 1024,
) -> tuple[float, dict[str, Any]]:
    """How near the drawing in the reply is to the reference, as a picture, and how long its code is: a weighted mean.

    The drawing is the last `<svg>…</svg>`, drawn on white at the reference's size. An answer that cannot be drawn, and
    one that draws nothing where there is something, gets −1 whatever its length is.

    Args:
        completion: the reply: text or chat messages.
        reference: SVG, or a picture: an array, a PIL image, the bytes of a file, `data:image/…;base64,` text, or a
            path.
        l2: the weight of `graphics.l2` of the colours.
        edges: the weight of the same of `graphics.edge_map`.
        ssim: the weight of `graphics.ssim`.
        length: the weight of `graphics.brevity`, not below −1. A schedule of its own is `graphics.length`.
        side: pixels of the shorter side at which SVG is drawn; the longer one is at most three times as long. A
            reference that is a picture is taken as it is.
        frame: the view box of the answer. With 'reference' it is the reference's, whatever the answer says: a small one
            of its own would make a few strokes fill the canvas. A reference that is a picture has none, and the
            answer's own is fitted into it; 'own' does so with all.
        flat: see `graphics.l2`.
        paper: see `graphics.ssim`.
        count: the unit of length: a function from code to its number of tokens. Default: characters, without white
            space between elements.
        within: see `text.exact`.
        fonts: files of fonts. Without any, text is not drawn, so that scores are the same on all machines.
        seconds: of CPU for one drawing; copies of copies and large filters may want hours.
        memory: MiB for drawing.

    Returns:
        In [−1, 1], and as details each term, or as `problem` why it could not be drawn.

    Raises:
        Abstain: if the reference is neither SVG that can be drawn nor a picture, is blank, or is a picture and `length`
            weighs.
        MissingExtra: at once, without resvg and OpenCV.
        ValueError: at once, if an option cannot be meant.

    >>> from guerdon.rewards import graphics
    >>> dot = '<svg viewBox="0 0 9 9"><circle cx="4" cy="4" r="3"/></svg>'
    >>> graphics.match(side=64).evaluate(dot, dot)
    (0.9166666666666666, {'l2': 1.0, 'edges': 1.0, 'length': 0.75})

    Source: RLRF (arXiv 2505.20793), without its perceptual term, which is `graphics.perceptual`.
    """
    bounds = Bounds(side, seconds, memory, fonts)
    target = _target(reference, bounds)
    if target.blank:
        raise Abstain("reference is a blank canvas")
    if length and target.code is None:
        raise Abstain("reference is a picture, whose code has no length: match(length=0)")
    try:
        source, pixels = _drawn(completion, target, frame, within, bounds)
    except ValueError as error:
        return -1.0, {"problem": str(error)}
    terms = {}
    if l2:
        terms["l2"] = likeness.l2(pixels, target.pixels, flat=flat)
    if edges:
        terms["edges"] = likeness.l2(edge_map(pixels), target.outlines, flat=flat)
    if ssim:
        terms["ssim"] = likeness.ssim(pixels, target.pixels, paper=paper)
    if length and target.code is not None:
        terms["length"] = _length(source.text, target.code, count)
    weights = {"l2": l2, "edges": edges, "ssim": ssim, "length": length}
    total = sum(weights[name] * value for name, value in terms.items())
    return total / sum(weights[name] for name in terms), terms


@reward(range=(-1, 1), deadline=_longest, requires=needs("graphics.length", "resvg_py", "cv2", extra="graphics"))
def length(
    completion: Completion,
    reference: Any,
    *,
    count: Count | None = None,
    within: Passage = "reply",
    seconds: float = 2.0,
    memory: int = 1024,
) -> tuple[float, dict[str, Any]]:
    """What the length of the reply's SVG is worth beside the reference's: `graphics.brevity`, not below −1.

    By itself the shortest drawing is the best. The source lets it count more and more as training goes on,
    `graphics.length() >> shaping.anneal(start=0, end=1)`, since replies collapse if it counts from the start.

    Args:
        completion: the reply: text or chat messages.
        reference: SVG.
        count, within, seconds, memory: see `match`.

    Returns:
        In [−1, 1]; −1 for an answer that cannot be drawn or is blank, with the reason as `problem`.

    Raises:
        Abstain: if the reference is not SVG that can be drawn.

    Source: RLRF (arXiv 2505.20793).
    """
    bounds = Bounds(64, seconds, memory, ())
    target = _target(reference, bounds)
    if target.code is None:
        raise Abstain("reference is a picture, whose code has no length")
    try:
        source, _ = _drawn(completion, target, "reference", within, bounds)
    except ValueError as error:
        return -1.0, {"problem": str(error)}
    return _length(source.text, target.code, count), {"characters": len(source.text)}


def _perceptual_options(**options: Any) -> tuple[str, ...]:
    return needs("graphics.perceptual", "resvg_py", "cv2", extra="graphics")() + _options(**options)


@reward(range=(-1, 1), lane="batch", requires=_perceptual_options)
def perceptual(
    completion: Sequence[Completion],
    reference: Sequence[Any],
    *,
    features: Any,
    seen: Literal["colors", "edges"] = "colors",
    side: int = 512,
    frame: Frame = "reference",
    within: Passage = "reply",
    fonts: tuple[str, ...] = (),
    seconds: float = 2.0,
    memory: int = 1024,
) -> Scores:
    """How near the drawing in the reply is to the reference for an image encoder, as DreamSim measures it.

        R = 1 − 2 (1 − cos(f(I), f(J)))

    Args:
        completion: the reply: text or chat messages.
        reference: see `match`.
        features: the encoder: a function from a list of pictures, arrays "h w 3" of bytes, to one row of numbers each.
            It is called once, in this process, with each distinct picture.
        seen: by the encoder: the pictures themselves, or their `graphics.edge_map`.
        side, frame, within, fonts, seconds, memory: see `match`.

    Returns:
        In [−1, 1]; −1 for an answer that cannot be drawn or is blank, with the reason as `problem`.

    Source: R_sem of RLRF (arXiv 2505.20793), whose encoder is DreamSim (2306.09344), or CLIP.
    """
    bounds = Bounds(side, seconds, memory, fonts)
    reasons: dict[int, str] = {}
    problems: list[str | None] = []
    pairs: dict[int, tuple[Picture, Picture]] = {}
    for row, (spoken, wanted) in enumerate(zip(completion, reference, strict=True)):
        problem = None
        try:
            target = _target(wanted, bounds)
            if target.blank:
                raise Abstain("reference is a blank canvas")
            pairs[row] = (_drawn(spoken, target, frame, within, bounds)[1], target.pixels)
        except Abstain as error:
            reasons[row] = str(error)
        except (ValueError, TypeError) as error:
            problem = str(error)
        problems.append(problem)
    values = np.full(len(completion), -1.0)
    if pairs:
        shown_ = [_as_seen(pixels, seen) for pair in pairs.values() for pixels in pair]
        rows = _encoded(features, shown_)
        near = np.einsum("nd,nd->n", rows[0::2], rows[1::2])
        values[list(pairs)] = np.clip(1 - 2 * (1 - near), -1.0, 1.0)
    return _scores(values, reasons, problems)


def _ends(low: float, high: float, **options: Any) -> Range:
    if not low < high:
        raise ValueError(f"judged wants low below high, got {low} and {high}")
    return low, high


def _judged_options(**options: Any) -> tuple[str, ...]:
    return needs("graphics.judged", "resvg_py", "cv2", extra="graphics")() + _options(**options)


@reward(range=_ends, lane="batch", requires=_judged_options)
def judged(
    prompt: Sequence[Completion],
    completion: Sequence[Completion],
    *,
    judge: Any,
    low: float = -1.0,
    high: float = 1.0,
    side: int = 512,
    within: Passage = "reply",
    fonts: tuple[str, ...] = (),
    seconds: float = 2.0,
    memory: int = 1024,
) -> Scores:
    """What a judge of pictures says of the drawing in the reply, seen as the answer to the prompt.

    Args:
        prompt: what was asked; handed on.
        completion: the reply: text or chat messages.
        judge: a function from a list of pictures, arrays "h w 3" of bytes, and a list of prompts to one number each:
            the similarity of CLIP, or the verdict of a vision-language model. It is called once, in this process.
        low: the least it may say, and what a reply gets whose drawing cannot be drawn or is blank.
        high: the most.
        side, within, fonts, seconds, memory: see `match`.

    Returns:
        In [low, high]; a row of which the judge says nothing or anything else abstains.

    Source: text-to-SVG in RLRF (arXiv 2505.20793).
    """
    bounds = Bounds(side, seconds, memory, fonts)
    problems: list[str | None] = []
    pictures: dict[int, Picture] = {}
    for row, spoken in enumerate(completion):
        problem = None
        try:
            pictures[row] = _drawn(spoken, None, "own", within, bounds)[1]
        except (ValueError, TypeError) as error:
            problem = str(error)
        problems.append(problem)
    values, reasons = np.full(len(completion), float(low)), dict[int, str]()
    if pictures:
        said = judge(list(pictures.values()), [prompt[row] for row in pictures])
        if len(said) != len(pictures):
            raise Abstain(f"judge answered for {len(said)} of {len(pictures)} pictures")
        for row, verdict in zip(pictures, said, strict=True):
            number = math.nan if verdict is None else float(verdict)
            if low <= number <= high:
                values[row] = number
            else:
                reasons[row] = f"judge said {shown(verdict)}, outside of [{low:g}, {high:g}]"
    return _scores(values, reasons, problems)


def _scores(values: Float[np.ndarray[Any, Any], "n"], reasons: Mapping[int, str], problems: list[str | None]) -> Scores:
    valid = np.ones(len(values), bool)
    valid[list(reasons)] = False
    return Scores(values, valid=valid, reasons=reasons, details={"problem": problems})


def _as_seen(pixels: Picture, seen: str) -> Picture:
    if seen == "colors":
        return pixels
    return np.repeat(edge_map(pixels)[..., None], 3, axis=2)


def _encoded(features: Any, pictures: list[Picture]) -> Float[np.ndarray[Any, Any], "n d"]:
    keys = [(pixels.shape, pixels.tobytes()) for pixels in pictures]
    distinct = dict(zip(keys, pictures, strict=True))
    rows = np.asarray(features(list(distinct.values())), np.float64)
    if rows.ndim != 2 or len(rows) != len(distinct) or not np.isfinite(rows).all():
        raise Abstain(f"the encoder gave an array of shape {rows.shape} for {len(distinct)} pictures, or is not finite")
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    at = {key: row for row, key in enumerate(distinct)}
    return np.asarray(rows[[at[key] for key in keys]])


def _target(reference: Any, bounds: Bounds) -> Target:
    """See `Target`.

    Raises:
        Abstain: if the reference cannot be drawn or read.
    """
    try:
        if isinstance(reference, (str, bytes)):
            return _remembered(reference, bounds)
        return Target(picture(reference, paths=True), None, None)
    except (ValueError, TypeError) as error:
        raise Abstain(f"reference unusable: {error}") from None


@lru_cache(maxsize=4)
def _remembered(reference: str | bytes, bounds: Bounds) -> Target:
    """The rollouts of a group share one."""
    code = svg_in(reference, "completion") if isinstance(reference, str) else None
    if code is None:
        if isinstance(reference, str) and reference.lstrip().startswith("<"):
            raise NotDrawn(NO_SVG)
        return Target(picture(reference, paths=True), None, None)
    source = read_svg(code)
    box = source.box
    return Target(bounds.draw(source, box, canvas(box, bounds.side)), box, code)


def _drawn(
    completion: Completion, target: Target | None, frame: Frame, within: Passage, bounds: Bounds
) -> tuple[Source, Picture]:
    """The answer's source and picture.

    Raises:
        ValueError: if there is none, or it cannot be drawn or is blank.
    """
    code = svg_in(completion, within)
    if code is None:
        raise NotDrawn(NO_SVG)
    source = read_svg(code)
    forced = target.box if target is not None and frame == "reference" else None
    box = source.box if forced is None else forced
    size = canvas(box, bounds.side) if target is None else target.size
    pixels = bounds.draw(source, box, size)
    if one_color(pixels):
        raise NotDrawn(BLANK)
    return source, pixels


def _length(code: str, reference: str, count: Count | None) -> float:
    return max(-1.0, brevity(*(float((_characters if count is None else count)(text)) for text in (code, reference))))


def _characters(code: str) -> int:
    return len(">".join(part.strip() for part in code.split(">")))
