"""Whether a training run has begun to answer briefly for the wrong reason, from its history."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class Collapse(NamedTuple):
    """Where a run collapses, at each of its steps.

    Args:
        length: completions become short fast while the reward rises: brevity itself is what is paid.
        training: completions become short fast while the reward falls: the policy is being lost.
    """

    length: Bool[np.ndarray[Any, Any], "e"]
    training: Bool[np.ndarray[Any, Any], "e"]


def collapses(
    lengths: Float[np.ndarray[Any, Any], "e"],
    rewards: Float[np.ndarray[Any, Any], "e"],
    *,
    window: int = 10,
    fall: float = 0.3,
    change: float = 0.0,
) -> Collapse:
    """Compare the last steps of a run with those before them, at each step.

        L = (L₀ − L₁)/L₀ > fall        length:  R₁ − R₀ > change        training:  R₀ − R₁ > change

    with 0 the mean over the `window` steps before the last `window`, and 1 the mean over those. A step that two
    windows do not reach to is in no collapse.

    Args:
        lengths: mean length of the completions at each step; any unit, not negative.
        rewards: mean reward at each step.
        window: steps in each mean.
        fall: the share of its length that a run loses from one window to the next when it falls fast.
        change: what a reward has to rise or fall by, in its unit. The source states no number of the three.

    Raises:
        ValueError: if the shapes differ, a number is not finite, a length is negative, or an option is out of range.

    Source: "Efficient Reasoning via Reward Model" (arXiv 2511.09158): length collapse and training collapse.

    >>> collapses(np.array([100.0, 100, 40, 40]), np.array([0.5, 0.5, 0.7, 0.7]), window=2).length
    array([False, False, False,  True])
    """
    lengths, rewards = np.asarray(lengths, np.float64), np.asarray(rewards, np.float64)
    if lengths.ndim != 1 or lengths.shape != rewards.shape:
        raise ValueError(f"lengths {lengths.shape} and rewards {rewards.shape} need one shape (e,)")
    if not (np.isfinite(lengths).all() and np.isfinite(rewards).all()) or (lengths < 0).any():
        raise ValueError("lengths and rewards must be finite, and lengths not negative")
    if window < 1 or not 0 <= fall < 1 or not change >= 0:
        raise ValueError(
            f"window is at least 1, fall a share in [0, 1) and change not negative, got {window}, {fall} and {change}"
        )
    before, now = (np.full((2, len(lengths)), np.nan) for _ in range(2))
    if len(lengths) >= 2 * window:
        means = np.stack([np.convolve(side, np.full(window, 1 / window), "valid") for side in (lengths, rewards)])
        before[:, 2 * window - 1 :], now[:, 2 * window - 1 :] = means[:, :-window], means[:, window:]
    short = before[0] - now[0] > fall * before[0] * (1 + 1e-12)
    return Collapse(short & (now[1] - before[1] > change), short & (before[1] - now[1] > change))
