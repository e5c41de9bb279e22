"""A simulated body and object against a video of them: each part only where its estimate can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from guerdon.algebra import reward
from guerdon.core.parsing import shown
from guerdon.core.scores import Scores
from guerdon.rewards.video.geometry import Numbers, project

Combine = Literal["sum", "product"]


def joints_term(
    joints: Float[Numbers, "*n j 3"], targets: Float[Numbers, "*n j 3"], *, k: float = 100.0
) -> Float[Numbers, "*n"]:
    """exp(−k · meanⱼ ‖xⱼ − x*ⱼ‖²), of joints in metres.

    >>> joints_term(np.array([[0.1, 0, 0]]), np.zeros((1, 3))).round(4)
    np.float64(0.3679)

    Source: DeVI (arXiv 2604.20841).
    """
    return np.asarray(np.exp(-k * ((joints - targets) ** 2).sum(-1).mean(-1)))[()]


def rotations_term(
    rotations: Float[Numbers, "*n j 4"], targets: Float[Numbers, "*n j 4"], *, k: float = 2.0
) -> Float[Numbers, "*n"]:
    """exp(−k · meanⱼ θⱼ²), θ the angle between two rotations, unit quaternions of either sign and any order of parts:

        θ = 2 arccos |⟨q, q*⟩|

    >>> rotations_term(np.array([[1.0, 0, 0, 0]]), np.array([[-1.0, 0, 0, 0]]))
    np.float64(1.0)

    Source: DeVI (arXiv 2604.20841).
    """
    lengths = np.linalg.norm(rotations, axis=-1) * np.linalg.norm(targets, axis=-1)
    cosine = np.abs((rotations * targets).sum(-1)) / np.maximum(lengths, 1e-12)
    angles = 2 * np.arccos(np.clip(cosine, 0.0, 1.0))
    return np.asarray(np.exp(-k * (angles**2).mean(-1)))[()]


def pixels_term(
    points: Float[Numbers, "*n m 3"],
    pixels: Float[Numbers, "*n m 2"],
    visible: Bool[Numbers, "*n m"],
    intrinsics: Float[Numbers, "3 3"],
    pose: Float[Numbers, "3 4"],
    *,
    size: tuple[float, float],
    k: float = 500.0,
) -> Float[Numbers, "*n"]:
    """exp(−k · meanₘ ‖π(K[R|t] Xₘ) − u*ₘ‖² / diag²), over the points that are seen: an object in the image only.

    How far away the object is cannot be told from one video, and is not claimed: along the ray of the camera nothing
    changes.

    Args:
        points: X, of the simulated object, in the world.
        pixels: u*, where the video shows them.
        visible: whether it does.
        intrinsics: K.
        pose: [R|t], from the world to the camera.
        size: width and height of the video.
        k: how fast it falls.

    Returns:
        In [0, 1]: 1 where no point is seen, and 0 where one that is seen is behind the camera.

    Source: DeVI (arXiv 2604.20841).
    """
    found, _ = project(points, intrinsics, pose)
    away = ((found - pixels) ** 2).sum(-1) / (size[0] ** 2 + size[1] ** 2)
    away = np.where(visible, np.where(np.isnan(away), np.inf, away), 0.0)
    return np.asarray(np.exp(-k * away.sum(-1) / np.maximum(visible.sum(-1), 1)))[()]


def lost(
    joints: Float[Numbers, "*n j 3"],
    targets: Float[Numbers, "*n j 3"],
    points: Float[Numbers, "*n m 3"],
    intrinsics: Float[Numbers, "3 3"],
    pose: Float[Numbers, "3 4"],
    *,
    size: tuple[float, float],
    most: float = 0.5,
) -> Bool[Numbers, "*n"]:
    """Whether an episode is to end: the mean joint error is above `most` metres, or no point of the object is in frame.

    Source: DeVI (arXiv 2604.20841).
    """
    error = np.linalg.norm(joints - targets, axis=-1).mean(-1)
    pixels, _ = project(points, intrinsics, pose)
    inside = (pixels >= 0).all(-1) & (pixels[..., 0] < size[0]) & (pixels[..., 1] < size[1])
    return np.asarray((error > most) | ~inside.any(-1))


def _options(
    *, weights: tuple[float, float, float], joints: float, rotations: float, object: float, **options: Any
) -> tuple[str, ...]:
    scales = (joints, rotations, object)
    if min(weights) < 0 or not 0 < sum(weights) < math.inf or min(scales) < 0 or not max(scales) < math.inf:
        raise ValueError(f"weights and scales are not negative, weights not all 0; got {weights} and {scales}")
    return ()


@reward(range=(0, 1), lane="batch", requires=_options)
def tracking(
    motion: Sequence[Any],
    video: Sequence[Any],
    *,
    combine: Combine = "sum",
    weights: tuple[float, float, float] = (0.5, 0.4, 0.1),
    joints: float = 100.0,
    rotations: float = 2.0,
    object: float = 500.0,
    error: float = 0.5,
) -> Scores:
    """How well a simulated body and object follow a video: the body in space, the object in the image only.

        r = w_h r_h + w_o r_o + w_c r_c, or r_h · r_o · r_c        r_h = bodies · hands · rotations

    of each step, and their mean. From the step on in which the episode is `video.lost`, steps count 0.

    Args:
        motion: what was simulated, a mapping of arrays, one entry per step: `joints` "t j 3" in metres, `points` of the
            object "t m 3", and as far as the video has them `hands` "t h 3", `rotations` "t q 4" and `contact` "t".
        video: what is seen, likewise: `joints`, `pixels` "t m 2", `visible` "t m", the camera's `intrinsics` "3 3",
            `pose` "3 4" from the world and `size` [width, height]; `hands`, `rotations` (quaternions) and `contact`,
            whether hand and object are shown to touch, where they are known.
        combine: 'sum', or 'product', of which all must hold.
        weights: of body, object and contact; what the video does not have does not weigh.
        joints: how fast `video.joints_term` falls, per square metre.
        rotations: how fast `video.rotations_term` falls.
        object: how fast `video.pixels_term` falls.
        error: mean joint error in metres beyond which an episode ends.

    Returns:
        In [0, 1], and as details the mean of each term and the step at which the episode ended. A motion that is not
        finite or lacks what the video shows gets 0, with the reason as `problem`.

    Source: DeVI (arXiv 2604.20841), in the form that its project describes; coefficients are not public.
    """
    reasons: dict[int, str] = {}
    problems: list[str | None] = [None] * len(motion)
    values = np.zeros(len(motion))
    details: dict[str, list[Any]] = {name: [None] * len(motion) for name in ("body", "object", "contact", "ended")}
    for row in range(len(motion)):
        try:
            seen = _seen(video[row])
        except ValueError as fault:
            reasons[row] = str(fault)
            continue
        try:
            done = _done(motion[row], seen)
        except ValueError as fault:
            problems[row] = str(fault)
            continue
        size = float(seen["size"][0]), float(seen["size"][1])
        body = joints_term(done["joints"], seen["joints"], k=joints)
        if "hands" in seen:
            body = body * joints_term(done["hands"], seen["hands"], k=joints)
        if "rotations" in seen:
            body = body * rotations_term(done["rotations"], seen["rotations"], k=rotations)
        camera = seen["intrinsics"], seen["pose"]
        terms = [body, pixels_term(done["points"], seen["pixels"], seen["visible"] != 0, *camera, size=size, k=object)]
        if "contact" in seen:
            terms.append(np.where(seen["contact"] != 0, done["contact"] != 0, True).astype(np.float64))
        gone = lost(done["joints"], seen["joints"], done["points"], *camera, size=size, most=error)
        alive = ~np.logical_or.accumulate(gone)
        weighed = np.array(weights[: len(terms)])
        if combine == "product":
            steps = np.prod(terms, 0)
        elif weighed.sum() > 0:
            steps = np.tensordot(weighed / weighed.sum(), np.stack(terms), 1)
        else:
            reasons[row] = "the video has nothing that weighs"
            continue
        values[row] = float(np.clip((steps * alive).mean(), 0.0, 1.0))
        for name, term in zip(("body", "object", "contact"), terms, strict=False):
            details[name][row] = float(term.mean())
        details["ended"][row] = None if alive.all() else int(alive.argmin())
    valid = np.ones(len(values), bool)
    valid[list(reasons)] = False
    return Scores(values, valid=valid, reasons=reasons, details={**details, "problem": problems})


_SHAPES = {
    "joints": ("t", "j", 3), "hands": ("t", "h", 3), "rotations": ("t", "q", 4), "points": ("t", "m", 3),
    "pixels": ("t", "m", 2), "visible": ("t", "m"), "contact": ("t",),
    "intrinsics": (3, 3), "pose": (3, 4), "size": (2,),
}  # fmt: skip
_NEEDED = ("joints", "pixels", "visible", "intrinsics", "pose", "size")
_MAYBE = ("hands", "rotations", "contact")


def _seen(video: Any) -> dict[str, Numbers]:
    extents: dict[str, int] = {}
    read = _arrays(video, [*_NEEDED, *(name for name in _MAYBE if _has(video, name))], "video", extents)
    if not (read["size"] > 0).all() or extents["t"] < 1 or extents["j"] < 1:
        raise ValueError("column 'video' has no picture, no step or no joint")
    return read


def _done(motion: Any, seen: Mapping[str, Numbers]) -> dict[str, Numbers]:
    extents = {
        letter: size
        for name, found in seen.items()
        for letter, size in zip(_SHAPES[name], found.shape, strict=True)
        if isinstance(letter, str)
    }
    return _arrays(motion, ["joints", "points", *(name for name in _MAYBE if name in seen)], "motion", extents)


def _has(mapping: Any, name: str) -> bool:
    return isinstance(mapping, Mapping) and mapping.get(name) is not None


def _arrays(mapping: Any, names: Sequence[str], column: str, extents: dict[str, int]) -> dict[str, Numbers]:
    """The arrays of a column's entry, in shapes that fit each other."""
    if not isinstance(mapping, Mapping):
        raise ValueError(f"column {column!r} is not a mapping of arrays: {shown(mapping)}")
    found = {}
    for name in names:
        try:
            read = np.array(mapping.get(name), np.float64)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{name!r} of column {column!r} is not an array of numbers") from None
        shape = tuple(
            extents.setdefault(size, read.shape[at]) if isinstance(size, str) and at < read.ndim else size
            for at, size in enumerate(_SHAPES[name])
        )
        if read.shape != shape:
            raise ValueError(f"{name!r} of column {column!r} has the shape {read.shape}, not {shape}")
        if not np.isfinite(read).all():
            raise ValueError(f"{name!r} of column {column!r} is not finite")
        found[name] = read
    return found
