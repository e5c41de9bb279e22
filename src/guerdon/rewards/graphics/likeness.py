"""How near two pictures are, pixel by pixel, by their edges and by their structure; and how long code is."""

from __future__ import annotations

from math import sqrt
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from guerdon.rewards.image.reading import Picture

Flat = Literal["uncorrelated", "published"]
Paper = Literal["out", "in"]
Map = UInt8[np.ndarray[Any, Any], "h w"] | Picture

_EPS = 255e-6  # beside a standard deviation
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def l2(answer: Map, reference: Map, *, flat: Flat = "uncorrelated") -> float:
    """One minus the mean squared difference of two standardised pictures, which is 2ρ − 1 of their correlation ρ:

        R = clip(1 − ‖zn(I) − zn(J)‖² / N, −1, 1)

    with zn each channel at mean 0 and standard deviation 1, or 0 throughout where it is flat. Brightness and contrast
    do not count, the same shape does.

    Args:
        answer: bytes, of red, green and blue or of one channel.
        reference: likewise.
        flat: of a channel that is one value in the answer only. As 'published' it is 1 away from anything, where an
            honest but wrong drawing is 2 away: drawing nothing would pay. 'uncorrelated' makes it 2 as well.

    Returns:
        In [−1, 1].

    Raises:
        ValueError: if the pictures are of different sizes.

    >>> a, b, none = (np.array([row], np.uint8) for row in ([0, 0, 200, 200], [0, 100, 0, 100], [9, 9, 9, 9]))
    >>> l2(a, a), round(l2(a, b), 4), round(l2(none, b), 4), round(l2(none, b, flat="published"), 4)
    (1.0, -1.0, -1.0, 0.0)

    Source: R_L2 of RLRF (arXiv 2505.20793).
    """
    import cv2

    if answer.shape != reference.shape:
        raise ValueError(f"pictures of shapes {answer.shape} and {reference.shape} cannot be compared")
    away = [_away(*planes, flat) for planes in zip(cv2.split(answer), cv2.split(reference), strict=True)]
    return min(1.0, max(-1.0, 1.0 - sum(away) / len(away)))


def _away(a: Any, b: Any, flat: Flat) -> float:
    """The mean squared difference of two standardised channels, from sums of whole numbers, which are exact."""
    import cv2

    mean_a, mean_b = (cv2.sumElems(channel)[0] / channel.size for channel in (a, b))
    aa, bb = (cv2.norm(x, cv2.NORM_L2SQR) / x.size - mean * mean for x, mean in ((a, mean_a), (b, mean_b)))
    ab = (aa + bb - cv2.norm(a, b, cv2.NORM_L2SQR) / a.size + (mean_a - mean_b) ** 2) / 2
    scale_a, scale_b = (1 / (sqrt(square) + _EPS) if square > _EPS**2 else 0.0 for square in (aa, bb))
    if flat == "uncorrelated" and scale_a == 0 < scale_b:
        return 2.0
    return float(aa * scale_a * scale_a + bb * scale_b * scale_b - 2 * ab * scale_a * scale_b)


def edge_map(picture: Picture, *, low: float = 100.0, high: float = 200.0) -> UInt8[np.ndarray[Any, Any], "h w"]:
    """Where a picture has edges: Canny's, dilated by 3 × 3 and blurred by 13 × 13.

    The blur lets an outline that is a few pixels off overlap still. An edge is one in any colour, also between two that
    are equally bright.

    Args:
        picture: bytes of red, green and blue.
        low: Canny's lower threshold.
        high: the upper.

    Source: R_L2edge of RLRF (arXiv 2505.20793); Canny's thresholds are not stated there.
    """
    import cv2

    edges = cv2.dilate(cv2.Canny(picture, low, high), np.ones((3, 3), np.uint8))
    kernel = cv2.getGaussianKernel(13, 0, cv2.CV_32F)
    return np.asarray(cv2.convertScaleAbs(cv2.sepFilter2D(edges, cv2.CV_32F, kernel, kernel)), np.uint8)


def ssim(answer: Picture, reference: Picture, *, paper: Paper = "out") -> float:
    """The mean structural similarity of two pictures, of their brightness, in windows of 11 × 11 with σ = 1.5:

        (2 μ_a μ_b + C₁)(2 σ_ab + C₂) / ((μ_a² + μ_b² + C₁)(σ_a² + σ_b² + C₂))

    Args:
        answer: bytes of red, green and blue.
        reference: likewise.
        paper: most of an icon is white, and so is most of an empty canvas, whose similarity to it may be 0.9. With
            'out', windows in which both are flat and alike are left out.

    Returns:
        In [−1, 1]; 1 where no window counts.

    Raises:
        ValueError: if the pictures are of different sizes, or smaller than a window.

    Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    """
    import cv2

    if answer.shape != reference.shape or min(answer.shape[:2]) < _WINDOW:
        raise ValueError(f"pictures of shapes {answer.shape} and {reference.shape} have no structural similarity")
    a, b = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) for picture in (answer, reference))
    edge = _WINDOW // 2

    def mean(values: Any) -> Any:
        return cv2.GaussianBlur(values, (_WINDOW, _WINDOW), _SIGMA)[edge:-edge, edge:-edge]

    mean_a, mean_b = mean(a), mean(b)
    aa, bb, ab = mean_a * mean_a, mean_b * mean_b, mean_a * mean_b
    # The sum of the two variances is all that is wanted of them.
    spread, shared = mean(a * a + b * b) - aa - bb, mean(a * b) - ab
    quality = (2 * ab + _C1) * (2 * shared + _C2) / ((aa + bb + _C1) * (np.maximum(spread, 0.0) + _C2))
    if paper == "in":
        return float(np.clip(quality.mean(), -1.0, 1.0))
    counted = (spread > 0.5) | (np.abs(mean_a - mean_b) > 0.5)
    return float(np.clip(quality[counted].mean(), -1.0, 1.0)) if counted.any() else 1.0


def brevity(length: float, reference: float, *, free: float = 0.5) -> float:
    """What code of a length is worth beside a reference's: falling once it is longer than a share of it.

        R = 1 − (max(0, L − φ L_ref) / L_ref)²

    Args:
        length: L, in any unit.
        reference: L_ref, in the same unit.
        free: φ, up to which length costs nothing.

    Returns:
        At most 1; without a lower bound.

    Raises:
        ValueError: if the reference has no length.

    >>> [brevity(length, 100) for length in (50, 100, 150, 200)]
    [1.0, 0.75, 0.0, -1.25]

    Source: the SVG length deviation of RLRF (arXiv 2505.20793).
    """
    if not reference > 0:
        raise ValueError(f"a reference of length {reference} has no half")
    return 1.0 - (max(0.0, length - free * reference) / reference) ** 2
