"""Which colours a picture has."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.rewards.image.reading import Picture, picture, shown_by

NAMES = {
    "black": (0, 0, 0), "gray": (128, 128, 128), "white": (255, 255, 255), "red": (220, 20, 20),
    "orange": (255, 140, 0), "yellow": (250, 230, 20), "green": (30, 150, 40), "blue": (30, 60, 220),
    "purple": (128, 20, 150), "pink": (255, 150, 190), "brown": (120, 70, 25),
}  # fmt: skip

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])


def lab(colors: UInt8[np.ndarray[Any, Any], "*n 3"]) -> Float[np.ndarray[Any, Any], "*n 3"]:
    """CIELAB of sRGB under D65: lightness, and how far red and yellow a colour is.

    >>> lab(np.array([[255, 255, 255], [255, 0, 0]])).round(1) + 0.0
    array([[100. ,   0. ,   0. ],
           [ 53.2,  80.1,  67.2]])

    Source: CIE 15:2004; IEC 61966-2-1.
    """
    unit = np.asarray(colors, np.float64) / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _TO_XYZ.T / _WHITE
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.asarray(np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1))


def color_name(pixels: UInt8[np.ndarray[Any, Any], "*n 3"]) -> str:
    """The name that most of some pixels have: of eleven basic colours the nearest in CIELAB.

    >>> color_name(np.array([[250, 10, 10], [200, 0, 30], [255, 255, 255]], np.uint8))
    'red'

    Source: the eleven basic terms of Berlin and Kay 1969; GenEval (arXiv 2310.11513) asks for ten of them.
    """
    known = lab(np.array(list(NAMES.values())))
    away = np.linalg.norm(lab(pixels.reshape(-1, 3))[:, None] - known, axis=-1)
    return list(NAMES)[int(np.bincount(away.argmin(1), minlength=len(NAMES)).argmax())]


def histogram(pixels: Picture, bins: int) -> Float[np.ndarray[Any, Any], "b"]:
    """The shares of a picture's pixels in the cells of the cube of colours."""
    cells = pixels.reshape(-1, 3).astype(np.int64) * bins // 256
    flat = (cells[:, 0] * bins + cells[:, 1]) * bins + cells[:, 2]
    return np.asarray(np.bincount(flat, minlength=bins**3) / len(flat))


def _bins(bins: int, **options: Any) -> tuple[str, ...]:
    if not 2 <= bins <= 64:
        raise ValueError(f"palette wants 2 to 64 bins of a colour, got {bins}")
    return ()


@reward(range=(0, 1), requires=_bins)
def palette(completion: Any, reference: Any, *, bins: int = 8) -> tuple[float, dict[str, Any]]:
    """How far a picture has the colours of a reference: the intersection of their histograms, whatever is where.

        Σ_c min(h_c, g_c)

    Args:
        completion: the picture.
        reference: the picture whose colours are wanted, of any size, or a path to it.
        bins: of each of red, green and blue.

    Returns:
        In [0, 1]; 0 for what is no picture.

    Raises:
        Abstain: if the reference is no picture.

    >>> from guerdon.rewards import image
    >>> image.palette().evaluate(np.array([[0.0, 1.0]]), np.array([[1.0]]))[0]
    0.5

    Source: Swain and Ballard 1991, "Color indexing".
    """
    try:
        wanted = picture(reference, paths=True)
    except ValueError as error:
        raise Abstain(f"reference is no picture: {error}") from None
    try:
        found = shown_by(completion)
    except ValueError as error:
        return 0.0, {"problem": str(error)}
    return float(np.minimum(histogram(found, bins), histogram(wanted, bins)).sum()), {"problem": None}
