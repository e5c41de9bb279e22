"""The bounded, monotone curves that scores are squashed by."""

from __future__ import annotations

import sys
from typing import Any, Literal, get_args

import numpy as np

from guerdon.core import arrays
from guerdon.core.arrays import Array, is_tensor

Curve = Literal["sigmoid", "tanh", "arctan", "polynomial", "log-sigmoid", "linear"]

# Least-squares fit of a·x + b·x³ + c·x⁵ + ½ to the sigmoid at 100 even points of [−5, 5].
_FIT = (0.22878851177826087, -0.01013091205649203, 0.00020266916983218423)


def squash(kind: str, x: Any) -> Array:
    """The curve at x, elementwise; increasing, and finite wherever its limits are.

    sigmoid: σ(x) ∈ (0, 1); tanh ∈ (−1, 1); arctan ∈ (−π/2, π/2); polynomial ∈ [0, 1], the fifth-degree fit to the
    sigmoid on [−5, 5], cut to [0, 1]; log-sigmoid: log σ(x) ≤ 0, bounded above only; linear: x.
    """
    if kind == "sigmoid":
        return arrays.sigmoid(x)
    if kind == "tanh":
        return arrays.tanh(x)
    if kind == "arctan":
        return x.atan() if is_tensor(x) else np.arctan(x)
    if kind == "polynomial":
        a, b, c = _FIT
        near = arrays.clip(x, -5.0, 5.0)
        return arrays.clip(0.5 + near * (a + near * near * (b + c * near * near)), 0.0, 1.0)
    if kind == "log-sigmoid":
        return sys.modules["torch"].nn.functional.logsigmoid(x) if is_tensor(x) else -np.logaddexp(0.0, -x)
    return x


def check_curve(kind: str, *, without: str = "") -> None:
    """Refuse a curve that there is not.

    Raises:
        ValueError: naming those there are.
    """
    known = [name for name in get_args(Curve) if name != without]
    if kind not in known:
        raise ValueError(f"kind is {', '.join(map(repr, known[:-1]))} or {known[-1]!r}, got {kind!r}")
