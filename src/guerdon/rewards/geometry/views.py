"""Which views of a scene a model is shown."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from guerdon.core.arrays import Array, to_numpy


def view_worth(
    text: Float[Array, "*n v"],
    coverage: Float[Array, "*n v"],
    picture: Float[Array, "*n v"],
    *,
    weights: tuple[Any, Any, Any] = (0.3, 0.5, 0.5),
) -> Float[Array, "*n v"]:
    """What each candidate view is worth: its likeness to the question, what it covers, and how it looks.

        U = w_t · text + (w_c · coverage + w_p · picture) / (w_c + w_p)

    Args:
        text: similarity of the view to the question; NumPy or torch.
        coverage: the share of the scene that is seen.
        picture: similarity of the view to other views or captions, by an image encoder.
        weights: w_t, w_c, w_p: numbers, or learned tensors, whose w_t `view_anchor` holds near its start.

    Raises:
        ValueError: if w_c and w_p are numbers that are negative or sum to 0.

    >>> view_worth(np.array([1.0, 0.0]), np.array([0.2, 0.8]), np.array([0.4, 0.4]))
    array([0.6, 0.6])

    Source: the dynamic view selection of 3D-R1 (arXiv 2507.23478).
    """
    w_text, w_coverage, w_picture = weights
    total = w_coverage + w_picture
    if isinstance(total, (int, float)) and not (min(w_coverage, w_picture) >= 0 and 0 < total < math.inf):
        raise ValueError(f"the weights of coverage and picture are not negative and not both 0, got {weights[1:]}")
    return w_text * text + (w_coverage * coverage + w_picture * picture) / total


def view_anchor(weight: Any, *, start: float = 0.3) -> Any:
    """The penalty that holds a learned weight of `view_worth` near its start: (w − start)².

    >>> round(view_anchor(0.5), 6)
    0.04

    Source: the L2 pull on w_t in 3D-R1 (arXiv 2507.23478).
    """
    return (weight - start) ** 2


def top_views(worth: Float[Array, "*n v"], *, keep: int = 4) -> Int[np.ndarray[Any, Any], "*n k"]:
    """The numbers of the most valuable views, best first; of equal ones the earlier.

    Args:
        worth: as `view_worth` gives it.
        keep: so many, or all there are.

    Raises:
        ValueError: if `keep` is not positive, or a value is not finite.

    >>> top_views(np.array([0.1, 0.9, 0.5, 0.9]), keep=3)
    array([1, 3, 2])

    Source: the dynamic view selection of 3D-R1 (arXiv 2507.23478): four of eight.
    """
    values = to_numpy(worth)
    if keep < 1 or not np.isfinite(values).all():
        raise ValueError("keep must be positive and every value finite")
    return np.argsort(-values, axis=-1, kind="stable")[..., :keep]
