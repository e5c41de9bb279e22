"""Videos and views of a scene, scored by how well one geometry explains them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.algebra import reward
from guerdon.core.parsing import shown
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores
from guerdon.rewards.video.geometry import (
    Numbers,
    attended,
    moving,
    reprojection_error,
    view_agreement,
)

STILL = "the video does not move"


def _ends(*, most: float, motion: float, moves: float, **options: Any) -> Range:
    if not 0 < most < math.inf or not 0 <= motion < math.inf or not 0 <= moves <= 1:
        raise ValueError(f"most is positive, motion not negative and moves a share, got {most}, {motion} and {moves}")
    return -most, 0.0


def _columns(*, attention: bool, **options: Any) -> tuple[str, ...]:
    return ("depth", "intrinsics", "poses", "tracks", "visible", *(("heat",) if attention else ()))


@reward(range=_ends, lane="batch", columns=_columns)
def reprojection(
    depth: Sequence[Any],
    intrinsics: Sequence[Any],
    poses: Sequence[Any],
    tracks: Sequence[Any],
    visible: Sequence[Any],
    heat: Sequence[Any] | None = None,
    *,
    attention: bool = False,
    patch: int = 14,
    keep: float = 0.25,
    most: float = 1.0,
    motion: float = 0.001,
    moves: float = 0.5,
) -> Scores:
    """Minus the mean error, in diagonals of the picture, with which one rigid scene explains a video's tracked points.

    Each point is put into the world by the depth of one frame, seen from the others, and compared with where the
    tracker found it; see `video.reprojection_error`. Positions count, and never brightness. A video that stands still
    would be perfect, so it gets the floor.

    Args:
        depth: of each frame "t h w", by a geometry network.
        intrinsics: K of each frame "t 3 3", or one for all.
        poses: [R|t] of each frame "t 3 4", from the world to the camera.
        tracks: pixels (x, y) "p t 2" of each point in each frame, by a tracker.
        visible: "p t", whether the point is seen there.
        heat: of the network's attention, in the first frame, in any size; read with `attention`.
        attention: count only points that begin in the patches attended to most: see `video.attended`. A sky without
            structure has no errors to make.
        patch: see `video.attended`.
        keep: see `video.attended`.
        most: diagonals at which errors end.
        motion: diagonals by which the points of a step that moves move, in the median.
        moves: the share of steps that have to move; 0 lets a video stand still. Copying frames makes it smaller.

    Returns:
        In [−most, 0]: −most for a video that stands still, or in which no point is seen twice, with the reason as
        `problem`; as details the pairs that were compared, and the share of steps that move.

    Source: VIGOR (arXiv 2603.16271), whose network is VGGT. Patch, share and the guard against still videos are ours.
    """
    reasons: dict[int, str] = {}
    problems: list[str | None] = []
    values, counts, shares = np.full(len(depth), -most), [0] * len(depth), [0.0] * len(depth)
    for row in range(len(depth)):
        problem = None
        try:
            scene = _scene(depth[row], intrinsics[row], poses[row])
            there, seen = _tracks(tracks[row], visible[row], len(scene[0]))
            size = scene[0].shape[2], scene[0].shape[1]
            if attention:
                looked = attended(
                    _numbers(None if heat is None else heat[row], "heat"), size=size, patch=patch, keep=keep
                )
                chosen = _within(there[:, 0], looked, patch)
                there, seen = there[chosen], seen[chosen]
            diagonal = math.hypot(*size)
            errors = reprojection_error(*scene, there, seen)
            counted = np.isfinite(errors)
            counts[row] = int(counted.sum())
            shares[row] = moving(there, seen, least=motion * diagonal) if len(there) else 0.0
            if not counts[row]:
                problem = "no point is seen twice at a positive depth"
            elif shares[row] < moves:
                problem = STILL
            else:
                values[row] = max(-most, -float(np.minimum(errors[counted] / diagonal, most).mean()))
        except (ValueError, np.linalg.LinAlgError) as error:
            reasons[row] = str(error)
        problems.append(problem)
    return _scores(values, reasons, problem=problems, pairs=counts, moving=shares)


def _share(*, tolerance: float, stride: int, least: float, **options: Any) -> tuple[str, ...]:
    if not 0 < tolerance < 1 or stride < 1 or not 0 <= least < 1:
        raise ValueError(f"consistency wants shares and a positive stride, got {tolerance}, {stride} and {least}")
    return ()


@reward(range=(0, 1), lane="batch", requires=_share)
def consistency(
    depth: Sequence[Any],
    intrinsics: Sequence[Any],
    poses: Sequence[Any],
    *,
    tolerance: float = 0.05,
    stride: int = 4,
    least: float = 0.001,
) -> Scores:
    """How far the views of a scene agree on it: the mean over pairs of views of `video.view_agreement`.

    Args:
        depth: of each view "v h w".
        intrinsics: K of each view "v 3 3", or one for all.
        poses: [R|t] of each view "v 3 4".
        tolerance: relative to the depth.
        stride: pixels between the points that are looked at.
        least: how far apart, relative to the median depth, two views must be, or turned in radians; a copy of a view
            agrees with it and shows nothing. Pairs that are nearer count 0.

    Returns:
        In [0, 1]; 0 where no view sees what another does, with the reason as `problem`. As detail `views` the mean of
        each view with the others, from which `geometry.top_views` selects.

    Source: the geometric check of multi-view stereo; MVSNet (arXiv 1804.02505).
    """
    reasons: dict[int, str] = {}
    problems: list[str | None] = []
    values, details = np.zeros(len(depth)), [None] * len(depth)
    for row in range(len(depth)):
        problem = None
        try:
            scene = _scene(depth[row], intrinsics[row], poses[row])
            shares = view_agreement(*scene, tolerance=tolerance, stride=stride)
            shares[_near(scene[2], float(np.median(scene[0])), least)] = 0.0
            np.fill_diagonal(shares, np.nan)
            known = np.isfinite(shares)
            if not known.any():
                problem = "no view sees what another does"
            else:
                values[row] = float(shares[known].mean())
                each = np.where(known, shares, 0.0).sum(1) / np.maximum(known.sum(1), 1)
                details[row] = each.tolist()
        except (ValueError, np.linalg.LinAlgError) as error:
            reasons[row] = str(error)
        problems.append(problem)
    return _scores(values, reasons, problem=problems, views=details)


def _scene(depth: Any, intrinsics: Any, poses: Any) -> tuple[Numbers, Numbers, Numbers]:
    maps, cameras, places = (
        _numbers(value, name) for value, name in ((depth, "depth"), (intrinsics, "intrinsics"), (poses, "poses"))
    )
    if maps.ndim != 3 or len(maps) < 2 or min(maps.shape[1:]) < 2:
        raise ValueError(f"column 'depth' has the shape {maps.shape}, not that of two or more frames")
    if cameras.shape == (3, 3):
        cameras = np.broadcast_to(cameras, (len(maps), 3, 3))
    if cameras.shape != (len(maps), 3, 3) or places.shape[1:] not in ((3, 4), (4, 4)) or len(places) != len(maps):
        raise ValueError(
            f"{len(maps)} frames want intrinsics (t, 3, 3) and poses (t, 3, 4), got {cameras.shape} and {places.shape}"
        )
    turns = places[:, :3, :3]
    if not np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3), atol=1e-2):
        raise ValueError("column 'poses' does not begin with rotations")
    return maps, cameras, places[:, :3]


def _tracks(tracks: Any, visible: Any, frames: int) -> tuple[Numbers, Numbers]:
    there, seen = _numbers(tracks, "tracks", finite=False), _numbers(visible, "visible").astype(bool)
    if there.ndim != 3 or there.shape[1:] != (frames, 2) or seen.shape != there.shape[:2]:
        raise ValueError(
            f"{frames} frames want tracks (p, t, 2) and visible (p, t), got {there.shape} and {seen.shape}"
        )
    known = np.asarray(np.isfinite(there).all(-1))
    return np.where(known[..., None], there, 0.0), seen & known


def _numbers(value: Any, name: str, *, finite: bool = True) -> Numbers:
    try:
        read = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"column {name!r} is not an array of numbers: {shown(value)}") from None
    if read.ndim == 0 or (finite and not np.isfinite(read).all()):
        raise ValueError(f"column {name!r} is not an array of finite numbers: {shown(value)}")
    return read


def _within(places: Numbers, middles: Numbers, patch: int) -> Numbers:
    """Which places lie in one of some patches."""
    away = np.abs(places[:, None] - middles[None]).max(-1)
    return np.asarray((away <= patch / 2).any(1))


def _near(poses: Numbers, depth: float, least: float) -> Numbers:
    """Which pairs of views are one view."""
    turns, centers = poses[:, :, :3], -np.einsum("vji,vj->vi", poses[:, :, :3], poses[:, :, 3])
    apart = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
    cosine = (np.einsum("aij,bij->ab", turns, turns) - 1) / 2
    turned = np.arccos(np.clip(cosine, -1.0, 1.0))
    return np.asarray((apart < least * depth) & (turned < least))


def _scores(values: Numbers, reasons: dict[int, str], **details: Sequence[Any]) -> Scores:
    valid = np.ones(len(values), bool)
    valid[list(reasons)] = False
    return Scores(values, valid=valid, reasons=reasons, details=details)
