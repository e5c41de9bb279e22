"""Meshes: points on their surface, and what they look like from around.

A mesh is a pair of vertices (v, 3) and triangles (f, 3), which are rows of vertices; y is up, as in glTF.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

Vertices = Float[np.ndarray[Any, Any], "v 3"]
Faces = Int[np.ndarray[Any, Any], "f 3"]

PIXELS = 1 << 20  # candidates of pixels and triangles at a time


class SurfacePoints(NamedTuple):
    """Points on a mesh.

    Args:
        points: Float["n 3"].
        faces: Int["n"], the triangle that each lies on.
    """

    points: Float[np.ndarray[Any, Any], "n 3"]
    faces: Int[np.ndarray[Any, Any], "n"]


def surface_points(mesh: tuple[Any, Any], *, number: int = 10_000, seed: int = 0) -> SurfacePoints:
    """Points spread evenly over the surface of a mesh: a triangle is drawn by its area, and a point of it uniformly.

    By vertices, a model that spends its triangles on one ear would be judged by that ear.

    Args:
        mesh: vertices and triangles.
        number: of points.
        seed: of the draws; the same for all meshes that are compared.

    Returns:
        The points, and the triangle of each, which leads to its colour or part.

    Raises:
        ValueError: if it is no mesh (see `rendered`), has no area, or the number is not positive.

    >>> mesh = [[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]
    >>> found = surface_points(mesh, number=4000)
    >>> found.points.mean(0).round(1), len(found.faces)
    (array([0.3, 0.3, 0. ]), 4000)

    Source: Osada et al., Shape Distributions (2002); the point clouds of Hi-GRPO's part reward (arXiv 2512.10949).
    """
    vertices, faces = _checked(mesh)
    if number < 1:
        raise ValueError(f"number must be positive, got {number}")
    corners = vertices[faces]
    areas = np.linalg.norm(_normals(corners), axis=1)
    if not areas.sum() > 0:
        raise ValueError("the mesh has no area: none of its triangles is one")
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(faces), number, p=areas / areas.sum())
    # The root makes a point near the first corner as rare as the triangle is narrow there.
    root, along = np.sqrt(rng.random(number)), rng.random(number)
    weights = np.stack([1 - root, root * (1 - along), root * along], 1)
    return SurfacePoints(np.einsum("nk,nkd->nd", weights, corners[drawn]), drawn)


def rendered(
    mesh: tuple[Any, Any] | tuple[Any, Any, Any],
    *,
    views: int = 6,
    size: int = 128,
    elevation: float = 20.0,
) -> Float[np.ndarray[Any, Any], "views h w 3"]:
    r"""Pictures of a mesh from all around, from one height, without perspective, by the light of the camera.

        shade = |n · z|        n the normal of the triangle that is nearest, z towards the camera

    The mesh is brought to the middle and to one size, that of its bounding sphere, so that it fits into every view.
    Triangles are seen from both sides, since generated meshes seldom agree on which is which. The k-th camera stands
    at 360° k / views about the vertical.

    Args:
        mesh: vertices (v, 3), triangles (f, 3), and where there are any, the colour of each vertex (v, 3) in [0, 1].
        views: how many.
        size: pixels of each side.
        elevation: of the camera above the horizon, in degrees.

    Returns:
        In [0, 1], on white.

    Raises:
        ValueError: if it is no mesh (no triangles, numbers that are not finite, triangles of vertices that are not
            there, colours out of range), or an option is out of range.

    >>> square = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]]
    >>> seen = rendered(square, views=4, size=32, elevation=0)
    >>> seen.shape, [round(float((view < 1).any(-1).mean()), 1) for view in seen]  # a square in its own circle: ½
    ((4, 32, 32, 3), [0.5, 0.0, 0.5, 0.0])

    Source: z-buffering, Catmull (1974); the six views of Hi-GRPO (arXiv 2512.10949), whose cameras are not published.
    """
    vertices, faces = _checked(mesh)
    if min(views, size) < 1 or not -90 <= elevation <= 90:
        raise ValueError(
            f"views and size must be positive and elevation in [-90, 90], got {views}, {size} and {elevation}"
        )
    colors = np.full(vertices.shape, 0.8) if len(mesh) < 3 else _colors(mesh[2], vertices)
    used = vertices[np.unique(faces)]
    middle = (used.min(0) + used.max(0)) / 2
    reach = np.linalg.norm(used - middle, axis=1).max()
    fitted = (vertices - middle) / (reach if reach > 0 else 1.0)
    pictures = [
        _picture(fitted @ _camera(2 * math.pi * k / views, math.radians(elevation)).T, faces, colors, size)
        for k in range(views)
    ]
    return np.stack(pictures)


def _camera(azimuth: float, elevation: float) -> Float[np.ndarray[Any, Any], "3 3"]:
    """Rows: right, up and towards the camera, which stands at +z for azimuth 0 and moves towards +x."""
    (sa, ca), (se, ce) = ((math.sin(x), math.cos(x)) for x in (azimuth, elevation))
    return np.array([[ca, 0.0, -sa], [-sa * se, ce, -ca * se], [sa * ce, se, ca * ce]])


def _picture(
    seen: Vertices, faces: Faces, colors: Float[np.ndarray[Any, Any], "v 3"], size: int
) -> Float[np.ndarray[Any, Any], "h w 3"]:
    """One view of vertices in the camera's axes, in the unit sphere: of each pixel's middle the nearest triangle."""
    corners = np.stack([(seen[:, 0] + 1) / 2 * size, (1 - seen[:, 1]) / 2 * size, seen[:, 2]], 1)[faces]
    low = np.clip(np.ceil(corners[..., :2].min(1) - 0.5), 0, size).astype(np.int64)
    high = np.clip(np.floor(corners[..., :2].max(1) - 0.5) + 1, 0, size).astype(np.int64)
    extent = np.maximum(high - low, 0)
    numbers = extent.prod(1)
    depth, nearest = np.full(size * size, -np.inf), np.full(size * size, -1)
    weights = np.zeros((size * size, 3))
    for some in _chunks(numbers):
        face = np.repeat(some, numbers[some])
        place = np.arange(len(face)) - np.repeat(np.cumsum(numbers[some]) - numbers[some], numbers[some])
        x, y = low[face, 0] + place % extent[face, 0], low[face, 1] + place // extent[face, 0]
        share = _barycentric(corners[face, :, :2], np.stack([x, y], 1) + 0.5)
        within = (share >= 0).all(1)
        face, pixel, share = face[within], (y * size + x)[within], share[within]
        near = (share * corners[face, :, 2]).sum(1)
        # Written from far to near, the nearest of each pixel stays; of equally near ones the first of the mesh.
        order = np.lexsort((-face, near))
        order = order[near[order] > depth[pixel[order]]]
        at = pixel[order]
        depth[at], nearest[at], weights[at] = near[order], face[order], share[order]
    picture = np.ones((size * size, 3))
    hit = nearest >= 0
    normals = _normals(seen[faces[nearest[hit]]])
    shade = np.abs(normals[:, 2]) / np.linalg.norm(normals, axis=1)
    picture[hit] = shade[:, None] * np.einsum("nk,nkc->nc", weights[hit], colors[faces[nearest[hit]]])
    return picture.reshape(size, size, 3)


def _chunks(numbers: Int[np.ndarray[Any, Any], "f"]) -> list[Int[np.ndarray[Any, Any], "some"]]:
    """The triangles with pixels, in pieces of bounded work, one large triangle by itself."""
    there = np.flatnonzero(numbers)
    if not len(there):
        return []
    pieces = (np.cumsum(numbers[there]) - 1) // PIXELS
    return np.split(there, np.flatnonzero(np.diff(pieces)) + 1)


def _barycentric(
    corners: Float[np.ndarray[Any, Any], "n 3 2"], points: Float[np.ndarray[Any, Any], "n 2"]
) -> Float[np.ndarray[Any, Any], "n 3"]:
    """The weights of the three corners in each point; −1 for a triangle that is seen from its edge."""
    a, b, c = corners.transpose(1, 0, 2)
    whole = _cross(b - a, c - a)
    parts = np.stack(
        [_cross(b - points, c - points), _cross(c - points, a - points), _cross(a - points, b - points)], 1
    )
    flat = np.abs(whole) < 1e-12
    return np.where(flat[:, None], -1.0, parts / np.where(flat, 1.0, whole)[:, None])


def _cross(u: Any, v: Any) -> Any:
    return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]


def _normals(corners: Float[np.ndarray[Any, Any], "f 3 3"]) -> Float[np.ndarray[Any, Any], "f 3"]:
    """Of each triangle, twice as long as its area."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def _checked(mesh: Any) -> tuple[Vertices, Faces]:
    try:
        vertices, faces = np.asarray(mesh[0], np.float64), np.asarray(mesh[1])
    except (TypeError, ValueError, IndexError, KeyError) as problem:
        raise ValueError(f"a mesh is vertices (v, 3) and triangles (f, 3): {problem}") from None
    if vertices.ndim != 2 or faces.ndim != 2 or vertices.shape[1] != 3 or faces.shape[1] != 3 or not len(faces):
        raise ValueError(f"a mesh is vertices (v, 3) and triangles (f, 3), got {vertices.shape} and {faces.shape}")
    if not np.issubdtype(faces.dtype, np.integer) or faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(
            f"triangles are rows of the {len(vertices)} vertices: whole numbers from 0 to {len(vertices) - 1}"
        )
    if not np.isfinite(vertices).all() or np.abs(vertices).max() > 1e100:
        raise ValueError("vertices must be finite")
    return vertices, faces


def _colors(given: Any, vertices: Vertices) -> Float[np.ndarray[Any, Any], "v 3"]:
    colors = np.asarray(given, np.float64)
    if colors.shape != vertices.shape or not ((colors >= 0) & (colors <= 1)).all():
        raise ValueError(f"colours must be {vertices.shape} in [0, 1], one for each vertex, got {colors.shape}")
    return colors
