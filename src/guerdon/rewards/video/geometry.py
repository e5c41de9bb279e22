"""Pinhole cameras: points to pixels and back, and how well views of one scene agree.

A pose is [R|t], "3 4", from the world to the camera: x = R X + t, with z pointing forwards. Pixels are (x, y), the
middle of the first one being (0, 0).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

Numbers = np.ndarray[Any, Any]
Points = Float[Numbers, "*n 3"]
Pixels = Float[Numbers, "*n 2"]
Intrinsics = Float[Numbers, "*n 3 3"]
Poses = Float[Numbers, "*n 3 4"]


def project(points: Points, intrinsics: Intrinsics, pose: Poses) -> tuple[Pixels, Float[Numbers, "*n"]]:
    """Where points of the world are seen, and how far before the camera they are.

        x = K (R X + t)        u = (x₁/x₃, x₂/x₃)

    Args:
        points: X.
        intrinsics: K.
        pose: [R|t].

    Returns:
        The pixels, NaN where the depth is not positive; and the depths.

    Source: the pinhole camera, as Hartley and Zisserman, Multiple View Geometry (2004), §6.1; the projection of VIGOR
    (arXiv 2603.16271).

    >>> camera, here = np.array([[2.0, 0, 1], [0, 2, 1], [0, 0, 1]]), np.eye(3, 4)
    >>> project(np.array([[1.0, 0, 4], [0, 0, -1]]), camera, here)
    (array([[1.5, 1. ], [nan, nan]]), array([ 4., -1.]))
    """
    seen = np.einsum("...ij,...j->...i", pose[..., :3], points) + pose[..., 3]
    shifted = np.einsum("...ij,...j->...i", intrinsics, seen)
    depth = seen[..., 2]
    before = depth > 0
    pixels = shifted[..., :2] / np.where(before & (shifted[..., 2] != 0), shifted[..., 2], 1.0)[..., None]
    return np.where(before[..., None], pixels, np.nan), depth


def back_project(pixels: Pixels, depth: Float[Numbers, "*n"], intrinsics: Intrinsics, pose: Poses) -> Points:
    """The points of the world that are seen at some pixels, so far before the camera.

        X = Rᵀ (d K⁻¹ [u; 1] − t)

    Raises:
        numpy.linalg.LinAlgError: if K has no inverse.

    Source: the inverse of `project`, by which VIGOR (arXiv 2603.16271) lifts points.

    >>> camera, here = np.array([[2.0, 0, 1], [0, 2, 1], [0, 0, 1]]), np.eye(3, 4)
    >>> back_project(np.array([[1.5, 1.0]]), np.array([4.0]), camera, here)
    array([[1., 0., 4.]])
    """
    rays = np.einsum("...ij,...j->...i", np.linalg.inv(intrinsics), _homogeneous(pixels))
    return np.asarray(np.einsum("...ji,...j->...i", pose[..., :3], depth[..., None] * rays - pose[..., 3]))


def sampled(maps: Float[Numbers, "t h w"], frames: Int[Numbers, "*n"], pixels: Pixels) -> Float[Numbers, "*n"]:
    """Values of maps between their pixels, bilinear; NaN outside of them."""
    high, wide = maps.shape[-2:]
    x, y = pixels[..., 0], pixels[..., 1]
    inside = (x >= 0) & (y >= 0) & (x <= wide - 1) & (y <= high - 1)
    x, y = np.where(inside, x, 0.0), np.where(inside, y, 0.0)
    left = np.minimum(np.floor(x).astype(np.int64), max(wide - 2, 0))
    top = np.minimum(np.floor(y).astype(np.int64), max(high - 2, 0))
    right, bottom = np.minimum(left + 1, wide - 1), np.minimum(top + 1, high - 1)
    across, down = x - left, y - top
    upper = maps[frames, top, left] * (1 - across) + maps[frames, top, right] * across
    lower = maps[frames, bottom, left] * (1 - across) + maps[frames, bottom, right] * across
    return np.where(inside, upper * (1 - down) + lower * down, np.nan)


def attended(heat: Float[Numbers, "h w"], *, size: tuple[int, int], patch: int = 14, keep: float = 0.25) -> Pixels:
    """Where a geometry network looks: the middles of the patches of a frame that it attends to most.

    Args:
        heat: its attention, in any size; it is scaled up to the frame's.
        size: width and height of the frame.
        patch: pixels of a patch's side; what is left over at the edges is not looked at.
        keep: the share of patches, at least one; of equal ones the earlier.

    Returns:
        Pixels "p 2", the most attended first.

    Raises:
        ValueError: if no patch fits, the share is none, or the heat is not finite.

    >>> attended(np.array([[0.0, 1.0], [0.0, 0.0]]), size=(4, 4), patch=2)
    array([[2.5, 0.5]])

    Source: the geometry-aware sampling of VIGOR (arXiv 2603.16271), of VGGT's first global attention; patch and share
    are not stated there.
    """
    heat = np.asarray(heat, np.float64)
    wide, high = size
    if not 0 < keep <= 1 or patch < 1 or min(wide, high) < patch:
        raise ValueError(f"a share in (0, 1] and patches that fit into {size} are wanted, got {keep} and {patch}")
    if heat.ndim != 2 or not heat.size or not np.isfinite(heat).all():
        raise ValueError("heat is a map of finite numbers")
    columns, rows = wide // patch, high // patch
    y, x = np.mgrid[: rows * patch, : columns * patch]
    at = np.stack([_scaled(x, wide, heat.shape[1]), _scaled(y, high, heat.shape[0])], -1)
    up = sampled(heat[None], np.zeros(x.shape, np.int64), at)
    worth = up.reshape(rows, patch, columns, patch).mean((1, 3)).ravel()
    best = np.argsort(-worth, kind="stable")[: max(1, round(keep * worth.size))]
    return np.stack([best % columns, best // columns], -1) * patch + (patch - 1) / 2


def reprojection_error(
    depth: Float[Numbers, "t h w"],
    intrinsics: Float[Numbers, "t 3 3"],
    poses: Float[Numbers, "t 3 4"],
    tracks: Float[Numbers, "p t 2"],
    visible: Bool[Numbers, "p t"],
) -> Float[Numbers, "t t p"]:
    """How far, in pixels, each tracked point is from where the geometry puts it:

        X = R_aᵀ (d K_a⁻¹ [u_a; 1] − t_a)        e = ‖π(K_b (R_b X + t_b)) − u_b‖

    for each pair of frames a ≠ b in which it is seen.

    Args:
        depth: of each frame, along the axis of its camera.
        intrinsics: K of each frame.
        poses: [R|t] of each frame.
        tracks: u, pixels of each point in each frame.
        visible: whether it is seen there.

    Returns:
        e at [a, b, p]; NaN where the point is not seen in both, or the depth is not positive.

    Source: VIGOR (arXiv 2603.16271).
    """
    count, frames = visible.shape
    at = np.broadcast_to(np.arange(frames), (count, frames))
    near = sampled(depth, at, tracks)
    there = visible & (near > 0) & np.isfinite(tracks).all(-1)
    points = back_project(np.where(there[..., None], tracks, 0.0), np.where(there, near, 1.0), intrinsics, poses)
    pixels, _ = project(points.transpose(1, 0, 2)[:, None], intrinsics[None, :, None], poses[None, :, None])
    away = np.linalg.norm(pixels - tracks.transpose(1, 0, 2)[None], axis=-1)
    pairs = there.T[:, None] & there.T[None] & ~np.eye(frames, dtype=bool)[..., None]
    return np.where(pairs, away, np.nan)


def moving(tracks: Float[Numbers, "p t 2"], visible: Bool[Numbers, "p t"], *, least: float) -> float:
    """The share of steps between frames in which the points move: their median displacement is `least` pixels or more.

    A video of copied frames moves in none, and one that shows each frame twice in half of its steps.

    Source: ours, against the still videos that VIGOR (arXiv 2603.16271) speaks of.

    >>> there = np.array([[[0.0, 0], [0, 0], [3, 4], [3, 4]]])
    >>> round(moving(there, np.ones((1, 4), bool), least=1.0), 4)
    0.3333
    """
    both = visible[:, 1:] & visible[:, :-1]
    steps = np.where(both, np.linalg.norm(np.diff(tracks, axis=1), axis=-1), np.nan)
    seen = both.any(0)
    if not seen.any():
        return 0.0
    return float((np.nanmedian(steps[:, seen], axis=0) >= least).sum() / seen.size)


def view_agreement(
    depth: Float[Numbers, "v h w"],
    intrinsics: Float[Numbers, "v 3 3"],
    poses: Float[Numbers, "v 3 4"],
    *,
    tolerance: float = 0.05,
    stride: int = 4,
) -> Float[Numbers, "v v"]:
    """How well the views of a scene agree: the share of points of one that another sees as far away as it should.

        |z_b(X) − d_b(u_b)| ≤ τ z_b(X)

    of the points X of view a that fall into view b. A point that is farther than what b sees is hidden from it, and
    says nothing: it is left out. One that is nearer should have been seen.

    Args:
        depth: of each view, along the axis of its camera.
        intrinsics: K of each.
        poses: [R|t] of each.
        tolerance: τ, relative.
        stride: pixels between the points that are looked at.

    Returns:
        At [a, b] the share, 1 for a = b, and NaN where no point of a is seen by b.

    Source: the geometric check of multi-view stereo; MVSNet (arXiv 1804.02505).
    """
    views, high, wide = depth.shape
    y, x = (grid.ravel() for grid in np.mgrid[:high:stride, :wide:stride])
    pixels = np.stack([x, y], -1).astype(np.float64)
    found = np.eye(views)
    for first in range(views):
        near = depth[first, y, x]
        there = near > 0
        points = back_project(pixels[there], near[there], intrinsics[first], poses[first])
        for second in range(views):
            if first == second:
                continue
            at, far = project(points, intrinsics[second], poses[second])
            surface = sampled(depth, np.full(len(at), second), at)
            known = (surface > 0) & (far <= surface + tolerance * far)
            right = np.abs(far - surface) <= tolerance * far
            found[first, second] = float(right[known].mean()) if known.any() else np.nan
    return found


def _homogeneous(pixels: Pixels) -> Points:
    return np.concatenate([pixels, np.ones((*pixels.shape[:-1], 1))], -1)


def _scaled(places: Numbers, size: int, other: int) -> Numbers:
    """Pixels of one grid in another over the same frame."""
    return np.asarray(np.clip((places + 0.5) * other / size - 0.5, 0, other - 1))
