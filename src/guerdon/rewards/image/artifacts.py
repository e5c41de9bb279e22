"""What is wrong with a picture that needs no reference: noise, blur, and seams between blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.rewards.image.reading import shown_by

Gray = Float[np.ndarray[Any, Any], "h w"]
Measure = Literal["noise", "blur", "blocking"]

LEAST = 16  # pixels of a side, below which there is nothing to say
NOISIEST = 25.0  # of 255, at which noise is as bad as can be
_TAPS = 9


def noise(gray: Gray) -> float:
    """The standard deviation of white noise in a picture, in its own unit: √(π/2) · mean |I ∗ N| / 6.

    N is the difference of two Laplacians, blind to what is linear.

    Source: Immerkær 1996, "Fast noise variance estimation".
    """
    rows = gray[:-2] - 2 * gray[1:-1] + gray[2:]
    mask = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float(math.sqrt(math.pi / 2) * np.abs(mask).mean() / 6)


def blur(gray: Gray) -> float:
    """How little of the differences between neighbours is lost by blurring once more, in [0, 1]: the worse direction.

    Source: Crété-Roffet et al. 2007, "The blur effect".
    """
    return max(_blur(gray), _blur(gray.T))


def blocking(gray: Gray, *, block: int = 8) -> float:
    """How much larger steps are at the seams of blocks than within: (s − i)/(s + i), at least 0; the worse direction.

    Source: the blockiness of Wang, Sheikh and Bovik 2002, as a contrast.
    """
    return max(_blocking(gray, block), _blocking(gray.T, block))


_DEGREES: dict[str, Callable[[Gray], float]] = {
    "noise": lambda gray: min(1.0, noise(gray) / NOISIEST),
    "blur": blur,
    "blocking": blocking,
}


def _known(measures: tuple[Measure, ...], **options: Any) -> tuple[str, ...]:
    if not measures or not set(measures) <= set(_DEGREES):
        raise ValueError(f"artifacts measures some of {', '.join(_DEGREES)}, got {measures}")
    return ()


@reward(range=(0, 1), requires=_known)
def artifacts(
    completion: Any, *, measures: tuple[Measure, ...] = ("noise", "blur", "blocking")
) -> tuple[float, dict[str, Any]]:
    """How far a picture is free of artifacts: one minus the worst of them.

    A picture of one colour has none and shows nothing: it gets 0. It says nothing of what is seen: for that a reward
    of the contents stands beside it.

    Args:
        completion: the picture.
        measures: which: `image.noise` (25 of 255 is as bad as can be), `image.blur`, `image.blocking`.

    Returns:
        In [0, 1], and as details the degree of each; 0 for what is no picture, smaller than 16 × 16 or of one colour,
        with the reason as `problem`.

    Source: ours, of the measures' own sources.
    """
    try:
        pixels = shown_by(completion)
    except ValueError as error:
        return 0.0, {"problem": str(error)}
    gray = pixels @ np.array([0.299, 0.587, 0.114])
    if min(gray.shape) < LEAST:
        return 0.0, {"problem": f"{gray.shape[1]} × {gray.shape[0]} pixels"}
    if np.ptp(gray) < 1:
        return 0.0, {"problem": "one colour"}
    degrees: dict[str, Any] = {name: float(_DEGREES[name](gray)) for name in measures}
    return 1.0 - max(degrees.values()), {**degrees, "problem": None}


def _blur(gray: Gray) -> float:
    wide = np.pad(gray, ((_TAPS // 2, _TAPS // 2), (0, 0)), mode="edge").cumsum(0)
    wide = np.concatenate([np.zeros((1, gray.shape[1])), wide])
    smooth = (wide[_TAPS:] - wide[:-_TAPS]) / _TAPS
    before, after = np.abs(np.diff(gray, axis=0)), np.abs(np.diff(smooth, axis=0))
    whole = before.sum()
    return float(1 - np.maximum(before - after, 0.0).sum() / whole) if whole > 0 else 0.0


def _blocking(gray: Gray, block: int) -> float:
    steps = np.abs(np.diff(gray, axis=0)).mean(1)
    at_seam = np.arange(1, len(gray)) % block == 0
    if not at_seam.any() or at_seam.all():
        return 0.0
    seam, inner = steps[at_seam].mean(), steps[~at_seam].mean()
    return float(max(0.0, seam - inner) / (seam + inner)) if seam + inner > 0 else 0.0
