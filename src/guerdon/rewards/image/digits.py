"""Handwritten digits: which one a small picture shows, and how close together its ink is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.core.extras import needs
from guerdon.core.scores import Scores
from guerdon.rewards.image.reading import shown_by

SIDE = 8


@cache
def _classifier(smoothing: float) -> Any:
    """A softmax regression on scikit-learn's digits, fitted on the spot."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    found = load_digits()
    return LogisticRegression(C=1 / smoothing, max_iter=1000).fit(found.data / 16, found.target)


@reward(range=(0, 1), lane="batch", requires=needs("image.digit", "sklearn", extra="diffusion"))
def digit(completion: Sequence[Any], prompt: Sequence[Any], *, smoothing: float = 1.0) -> Scores:
    """How sure a classifier is that a picture shows the digit that was asked for.

    The classifier is a softmax regression, fitted on the spot to scikit-learn's 1 797 handwritten digits; the same in
    every run. It knows digits only: what is none gets some class all the same, so a policy can be paid for pictures
    that no person would read. Look at them, and at their distance to real ones.

    Args:
        completion: the picture, light ink on dark, of 8 × 8 pixels.
        prompt: the digit, as text.
        smoothing: the weight of the penalty on its weights, above 0: the more, the less sure it ever is.

    Returns:
        A probability; 0 for what is no such picture, with the reason as `problem`. A prompt that is no digit abstains.

    Source: ours.
    """
    asked = [int(p) if isinstance(p, str) and p in "0123456789" and len(p) == 1 else None for p in prompt]
    pixels, problems = np.zeros((len(asked), SIDE * SIDE)), list[str | None]()
    for i, one in enumerate(completion):
        try:
            grey = shown_by(one).mean(-1) / 255
            problems.append(
                None if grey.shape == (SIDE, SIDE) else f"{grey.shape[1]} × {grey.shape[0]} pixels, not 8 × 8"
            )
        except ValueError as error:
            problems.append(str(error))
        if problems[-1] is None:
            pixels[i] = grey.ravel()
    chances = _classifier(smoothing).predict_proba(pixels) if len(pixels) else np.zeros((0, 10))
    values = [
        None if which is None else 0.0 if problem else float(row[which])
        for which, problem, row in zip(asked, problems, chances, strict=True)
    ]
    reasons = {i: f"the prompt is no digit: {prompt[i]!r:.40}" for i, which in enumerate(asked) if which is None}
    details = {"problem": problems} if any(problems) else {}
    return Scores.of(values, reasons=reasons, details=details)


@reward(range=(0, 1), lane="batch")
def compactness(completion: Sequence[Any], *, dark: bool = False) -> Scores:
    r"""How close together the ink of a picture is: 1 − spread / spread of a picture that is all ink, at least 0.

        spread = √(Σᵢ wᵢ ‖pᵢ − c‖² / Σᵢ wᵢ)        c = Σᵢ wᵢ pᵢ / Σᵢ wᵢ,  w the ink of a pixel, p its place

    Alone it is greatest for a single dot: it stands beside a reward of what is shown.

    Args:
        completion: the picture.
        dark: ink is what is dark, on light; else what is light.

    Returns:
        1 for a dot, 0 for an even picture or ink at its edges; 0 without ink or for what is no picture, with the
        reason as `problem`.

    Source: ours.

    >>> dot, even = [[0, 0, 0], [0, 255, 0], [0, 0, 0]], [[9, 9, 9], [9, 9, 9], [9, 9, 9]]
    >>> compactness()([""] * 2, [dot, even])
    [1.0, 0.0]
    """
    values, problems = list[float](), list[str | None]()
    for one in completion:
        try:
            ink = shown_by(one).mean(-1) / 255
            ink = 1 - ink if dark else ink
            problems.append(None if ink.any() else "no ink")
        except ValueError as error:
            problems.append(str(error))
        values.append(0.0 if problems[-1] else max(0.0, 1.0 - _spread(ink)))
    return Scores.of(values, details={"problem": problems} if any(problems) else {})


def _spread(ink: Float[np.ndarray[Any, Any], "h w"]) -> float:
    """The spread of ink, as a share of that of a picture that is all ink."""
    height, width = ink.shape
    widest = math.sqrt((height**2 - 1 + width**2 - 1) / 12)
    if not widest:
        return 0.0
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)
    weights = (ink / ink.sum())[..., None]
    centre = (weights * places).sum((0, 1))
    return round(math.sqrt(float((weights * (places - centre) ** 2).sum())) / widest, 12)
