"""Light near the axis: products of 2×2 matrices, many lenses at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from guerdon.rewards.optics.lenses import Lenses

Vector = Float[np.ndarray[Any, Any], "n"]


class Paraxial(NamedTuple):
    """What a lens is to light near its axis; nan or inf where it is nothing, as the focal length of a window.

    Args:
        focal_length: −1/C, behind which is air.
        back_focal_length: from the last surface to the focus.
        aperture: the diameter of the entrance pupil, which the stop's aperture makes.
        pupil: where that pupil is, from the first surface on.
        f_number: |focal length| / aperture.
        track: from the first surface to the image.
    """

    focal_length: Vector
    back_focal_length: Vector
    aperture: Vector
    pupil: Vector
    f_number: Vector
    track: Vector


def abcd(lenses: Lenses) -> tuple[Float[np.ndarray[Any, Any], "n 2 2"], Float[np.ndarray[Any, Any], "n 2 2"]]:
    """The matrix of each lens from its first to its last surface, and that from the first surface to its stop.

        refraction  [[1, 0], [−(n₂ − n₁)/(R n₂), n₁/n₂]]        transfer  [[1, t], [0, 1]]

    They act on (height, angle). That to the stop leaves out the refraction there.

    Args:
        lenses: any.

    >>> from guerdon.rewards.optics import Lenses
    >>> thin = Lenses(*(np.array([x]) for x in ([0.01, -0.01], [0.0, 0.0], [1.5, 1.0], [9.0, 9.0], 0, [True, True])))
    >>> float(-1 / abcd(thin)[0][0, 1, 0].round(6))
    100.0

    Source: Gaussian optics; OPTIAGENT (arXiv 2602.23761).
    """
    n, s = lenses.curvature.shape
    matrix = np.broadcast_to(np.eye(2), (n, 2, 2)).copy()
    to_stop = matrix.copy()
    before = np.ones(n)
    last = lenses.used.sum(1) - 1
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # an index of 0 bends nothing that is
        for k in range(s):
            to_stop = np.where((lenses.stop == k)[:, None, None], matrix, to_stop)
            after = lenses.indices[:, k]
            bent = -(after - before) * lenses.curvature[:, k] / after
            matrix = _times(np.ones(n), np.zeros(n), bent, before / after, matrix)
            gap = np.where(k < last, lenses.thickness[:, k], 0.0)
            matrix = _times(np.ones(n), gap, np.zeros(n), np.ones(n), matrix)
            before = after
    return matrix, to_stop


def paraxial(lenses: Lenses) -> Paraxial:
    """Focal lengths, pupil, F-number and track of some lenses; see `Paraxial`.

    Source: Gaussian optics; OPTIAGENT (arXiv 2602.23761).
    """
    matrix, to_stop = abcd(lenses)
    rows = np.arange(len(matrix))
    with np.errstate(divide="ignore", invalid="ignore"):
        focal_length = -1 / matrix[:, 1, 0]
        aperture = 2 * lenses.semi_diameter[rows, lenses.stop] / np.abs(to_stop[:, 0, 0])
        return Paraxial(
            focal_length,
            -matrix[:, 0, 0] / matrix[:, 1, 0],
            aperture,
            to_stop[:, 0, 1] / to_stop[:, 0, 0],
            np.abs(focal_length) / aperture,
            lenses.thickness.sum(1),
        )


def _times(
    a: Vector, b: Vector, c: Vector, d: Vector, matrix: Float[np.ndarray[Any, Any], "n 2 2"]
) -> Float[np.ndarray[Any, Any], "n 2 2"]:
    return np.asarray(np.stack([np.stack([a, b], -1), np.stack([c, d], -1)], -2) @ matrix)
