"""Rays through spherical surfaces, by Snell's law in three dimensions; many lenses and rays at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from guerdon.rewards.optics.lenses import Lenses
from guerdon.rewards.optics.paraxial import Paraxial

Grid = Float[np.ndarray[Any, Any], "n k"]

RINGS = 4


class Rays(NamedTuple):
    """Where rays meet the image.

    Args:
        x, y: nan for a ray that does not come through.
        through: False where a ray misses a surface, or cannot leave a medium.
        highest: the distance from the axis at which each surface is met, as a share of its semi-diameter, at most.
    """

    x: Grid
    y: Grid
    through: Bool[np.ndarray[Any, Any], "n k"]
    highest: Grid


def bundle(rings: int = RINGS) -> Float[np.ndarray[Any, Any], "k 2"]:
    """Points of a unit disc, in rings of six more each; the first is its middle, the last ring its rim.

    >>> bundle(1).round(2)[:3]
    array([[0.  , 0.  ],
           [1.  , 0.  ],
           [0.5 , 0.87]])

    Source: the hexapolar pattern.
    """
    points = [(0.0, 0.0)]
    for ring in range(1, rings + 1):
        angles = 2 * np.pi * np.arange(6 * ring) / (6 * ring)
        points += [(ring / rings * np.cos(a), ring / rings * np.sin(a)) for a in angles]
    return np.array(points)


def trace(lenses: Lenses, near_axis: Paraxial, field: Float[np.ndarray[Any, Any], "n"], *, rings: int = RINGS) -> Rays:
    """Rays from far away, through all of the entrance pupil, to the image.

    Args:
        lenses: n of them.
        near_axis: `paraxial(lenses)`, for the pupil.
        field: the angle that the light comes at, degrees, one for each lens.
        rings: of `bundle`.

    Source: sequential ray tracing, Welford (1986), §4.
    """
    disc = bundle(rings)
    radius = near_axis.aperture[:, None] / 2
    angle = np.deg2rad(field)[:, None]
    x, y = radius * disc[:, 0], radius * disc[:, 1]
    z = np.broadcast_to(near_axis.pupil[:, None], x.shape)
    dx, dy, dz = np.zeros_like(x), np.broadcast_to(np.sin(angle), x.shape), np.broadcast_to(np.cos(angle), x.shape)
    before = np.ones((len(x), 1))
    highest = np.zeros_like(x)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for k in range(lenses.curvature.shape[1]):
            curved, after = lenses.curvature[:, k, None], lenses.indices[:, k, None]
            x, y, z = x - z / dz * dx, y - z / dz * dy, np.zeros_like(x)  # onto the plane of the vertex
            f, g = curved * (x**2 + y**2), dz - curved * (x * dx + y * dy)
            cosine = np.sqrt(g**2 - curved * f)  # nan where the ray misses
            step = f / (g + cosine)
            x, y, z = x + step * dx, y + step * dy, step * dz
            share = np.hypot(x, y) / np.where(lenses.used[:, k], lenses.semi_diameter[:, k], np.inf)[:, None]
            highest = np.maximum(highest, share)
            leaving = np.sqrt(after**2 - before**2 * (1 - cosine**2))  # nan where all is reflected
            turn = leaving - before * cosine
            dx, dy = (before * dx - curved * turn * x) / after, (before * dy - curved * turn * y) / after
            dz = (before * dz - curved * turn * z + turn) / after
            z, before = z - lenses.thickness[:, k, None], after
        x, y = x - z / dz * dx, y - z / dz * dy
    through = np.isfinite(x) & np.isfinite(y)
    return Rays(np.where(through, x, np.nan), np.where(through, y, np.nan), through, highest)


def rms_spot(rays: Rays) -> Float[np.ndarray[Any, Any], "n"]:
    """The root of the mean squared distance of the rays from their middle, on the image; nan if a ray is missing.

    Source: the RMS spot radius.
    """
    offsets = [points - points.mean(1, keepdims=True) for points in (rays.x, rays.y)]
    return np.asarray(np.sqrt((offsets[0] ** 2 + offsets[1] ** 2).mean(1)))
