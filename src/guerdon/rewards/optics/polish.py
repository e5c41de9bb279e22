"""The radii of a lens, improved by a numeric optimiser."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from guerdon.core.errors import MissingExtra
from guerdon.rewards.optics.lenses import Catalogue, Lenses
from guerdon.rewards.optics.paraxial import paraxial
from guerdon.rewards.optics.tracing import trace

STEP = 1e-7  # of a curvature times the focal length
LOST = 1.0  # a residual of what cannot be traced


def polish(
    table: Sequence[Mapping[str, Any]],
    *,
    focal_length: float,
    field: float = 0.0,
    weight: float = 10.0,
    catalogue: Catalogue = "none",
    most: int = 100,
) -> list[dict[str, Any]]:
    """The same lens with better radii: its focal length nearer the target, and its spots smaller.

        min over curvatures  (w (f/f* − 1))² + Σ_rays (|x − x̄|² + |y − ȳ|²) / f*²

    What is proposed is a model's, what can be computed is not: thicknesses, media, apertures and planes stay.

    Args:
        table: as `read_lens` gives it.
        focal_length: f*, not 0.
        field: degrees.
        weight: w > 0, of the focal length.
        catalogue: see `table`.
        most: evaluations of the gradient.

    Returns:
        The table with other radii; where nothing is better, as it was.

    Raises:
        MissingExtra: without scipy.
        ValueError: if f* or w cannot be meant.

    Source: the polishing of radii behind OPTIAGENT (arXiv 2602.23761); Levenberg–Marquardt in a trust region by scipy.
    """
    try:
        from scipy.optimize import least_squares
    except ModuleNotFoundError:
        raise MissingExtra("optics.polish", "optics") from None
    if focal_length == 0 or not math.isfinite(focal_length) or not 0 < weight < math.inf:
        raise ValueError(f"focal_length is not 0 and weight positive, got {focal_length} and {weight}")
    lens = Lenses.of([table], catalogue)
    curved = np.flatnonzero(lens.curvature[0])
    if not len(curved):
        return [dict(surface) for surface in table]

    def residuals(bends: Float[np.ndarray[Any, Any], "k c"]) -> Float[np.ndarray[Any, Any], "k r"]:
        """Of many variants of the lens at once."""
        lenses = Lenses(*(np.repeat(column, len(bends), 0) for column in lens))
        lenses.curvature[:, curved] = bends / focal_length
        near_axis = paraxial(lenses)
        found = [weight * (near_axis.focal_length / focal_length - 1)[:, None]]
        for angle in {0.0, field}:
            rays = trace(lenses, near_axis, np.full(len(bends), angle))
            found += [(at - at.mean(1, keepdims=True)) / focal_length for at in (rays.x, rays.y)]
        return np.asarray(np.nan_to_num(np.concatenate(found, 1), nan=LOST, posinf=LOST, neginf=LOST))

    def slopes(bends: Float[np.ndarray[Any, Any], "c"]) -> Float[np.ndarray[Any, Any], "r c"]:
        moved = residuals(bends + STEP * np.concatenate([np.eye(len(bends)), -np.eye(len(bends))]))
        return np.asarray((moved[: len(bends)] - moved[len(bends) :]).T / (2 * STEP))

    start = lens.curvature[0, curved] * focal_length
    found = least_squares(lambda bends: residuals(bends[None])[0], start, jac=slopes, max_nfev=most)
    better = found.cost < 0.5 * (residuals(start[None]) ** 2).sum()
    radii = dict(zip(curved.tolist(), (focal_length / found.x).tolist(), strict=True)) if better else {}
    return [{**surface, "radius": radii.get(place, surface["radius"])} for place, surface in enumerate(table)]
