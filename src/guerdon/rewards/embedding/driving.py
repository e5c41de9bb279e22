"""Driving by what a frame looks like: a dangerous view asks for a lower speed, and hard events overrule it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.core.parsing import shown
from guerdon.core.scores import Scores
from guerdon.rewards.embedding.goals import contrasted, listed

Column = Float[np.ndarray[Any, Any], "n"]


def driving_reward(
    danger: Column,
    speed: Column,
    offset: Column,
    angle: Column,
    spread: Column,
    *,
    alarm: float = 0.03,
    top_speed: float = 25.0,
    lane: float = 3.0,
    widest: float = 90.0,
    sway: float = 0.35,
) -> Column:
    """The reward of a car's state under a view that looks dangerous or not.

        v* = (1 − clip(z, 0, z₀)/z₀) v_max
        r = [1 − |v − v*|/v_max]₊ · [1 − |d|/d_max]₊ · [1 − |θ|/θ_max]₊ · [1 − σ_d/σ_max]₊

    Args:
        danger: z = cos(s, bad) − cos(s, good).
        speed: v, in the unit of `top_speed`.
        offset: d, from the middle of the lane, in the unit of `lane`.
        angle: θ, between car and road, in the unit of `widest`.
        spread: σ_d, the standard deviation of the last offsets.
        alarm: z₀ > 0, at which the car is to stand.
        top_speed: v_max > 0, in km/h.
        lane: d_max > 0, in metres; 2 to 3.
        widest: θ_max > 0, in degrees.
        sway: σ_max > 0, in metres.

    Returns:
        In [0, 1].

    Raises:
        ValueError: if a limit is not positive.

    >>> calm = np.zeros(2)
    >>> driving_reward(calm, np.array([25.0, 0.0]), calm, calm, calm)
    array([1., 0.])

    Source: VLM-RL (zihaosheng/VLM-RL; arXiv 2412.15544); that the speed's factor ends at 0 is ours: below it, leaving
    the lane would take the sting out of speeding.
    """
    check_limits(alarm=alarm, top_speed=top_speed, lane=lane, widest=widest, sway=sway)
    wanted = (1 - np.clip(danger, 0.0, alarm) / alarm) * top_speed
    factors = [(speed - wanted, top_speed), (offset, lane), (angle, widest), (spread, sway)]
    return np.asarray(math.prod(np.maximum(0.0, 1 - np.abs(value) / limit) for value, limit in factors))


def _options(good: Any, bad: Any, **options: Any) -> tuple[str, ...]:
    listed("good", good)
    listed("bad", bad)
    check_limits(**{name: options[name] for name in ("alarm", "top_speed", "lane", "widest", "sway")})
    return ()


def _columns(column: str, **options: Any) -> tuple[str, ...]:
    return (column, "speed", "offsets", "angle", "base")


@reward(lane="batch", range=(-math.inf, 1), floor=0.0, columns=_columns, requires=_options)
def driving(
    frame: Sequence[Any],
    speed: Sequence[Any],
    offsets: Sequence[Any],
    angle: Sequence[Any],
    base: Sequence[Any],
    *,
    good: tuple[Any, ...] = ("The road is clear with no car accidents",),
    bad: tuple[Any, ...] = ("Two cars have collided with each other on the road",),
    alarm: float = 0.03,
    top_speed: float = 25.0,
    lane: float = 3.0,
    widest: float = 90.0,
    sway: float = 0.35,
    encoder: Any = None,
    texts: Callable[[Sequence[str]], Any] | None = None,
    column: str = "frame",
) -> Scores:
    """`driving_reward` of a frame and the car's state, unless a hard event overrules it.

    A view that looks dangerous rewards braking. Whoever stands before one for good is paid until the base reward, in
    which standing too long is a hard event, says otherwise.

    Args:
        frame, encoder, texts, column: see `goal`.
        speed: now.
        offsets: the last distances from the middle of the lane, now's last.
        angle: between car and road.
        base: the simulator's own reward: below 0 it is the reward (a collision, off the lane, too fast, standing).
        good: see `contrast`.
        bad: see `contrast`.
        alarm, top_speed, lane, widest, sway: see `driving_reward`.

    Returns:
        One score per row, and as details the danger and the factor of meaning, 1 where nothing is dangerous. A state
        that is missing abstains, and a frame that is, unless a hard event overrules it.

    Raises:
        Abstain: as `goal`.
        ValueError: at once, if a limit is not positive, or a goal is missing.

    >>> from guerdon.rewards import embedding
    >>> part = embedding.driving(good=[[1.0, 0.0]], bad=[[0.0, 1.0]])
    >>> state = {"speed": [0.0, 25.0, 0.0], "offsets": [[0.0]] * 3, "angle": [0.0] * 3, "base": [0.0, 0.0, -10.0]}
    >>> part(["?"] * 3, [""] * 3, frame=[[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]], **state)
    [1.0, 1.0, -10.0]

    Source: VLM-RL (zihaosheng/VLM-RL; arXiv 2412.15544).
    """
    seen, towards, away = contrasted(frame, good, bad, encoder, texts, paths=column != "completion")
    danger = away - towards
    histories = [_numbers(entry) for entry in offsets]
    states = {
        "speed": [_number(entry) for entry in speed],
        "offsets": [history[-1] if history else math.nan for history in histories],
        "angle": [_number(entry) for entry in angle],
        "base": [_number(entry) for entry in base],
    }
    table = np.array(list(states.values()), np.float64).reshape(4, len(danger))
    spread = np.array([np.std(history) if history else 0.0 for history in histories])
    reasons = {**seen.missing, **seen.unreadable}
    for name, known, entries in zip(states, np.isfinite(table), (speed, offsets, angle, base), strict=True):
        for row in np.flatnonzero(~known):
            reasons.setdefault(int(row), f"{name} not usable: {shown(entries[int(row)])}")
    now, offset, turned, own = np.where(np.isfinite(table), table, 0.0)
    limits = {"alarm": alarm, "top_speed": top_speed, "lane": lane, "widest": widest, "sway": sway}
    values = driving_reward(danger, now, offset, turned, spread, **limits)
    for row in np.flatnonzero(own < 0):
        reasons.pop(int(row), None)
    meaning = 1 - np.clip(danger, 0.0, alarm) / alarm
    details = {"danger": danger.tolist(), "meaning": meaning.tolist()}
    return Scores.of(np.where(own < 0, own, values).tolist(), reasons=reasons, details=details)


def check_limits(**limits: float) -> None:
    """Refuse limits that are not positive.

    Raises:
        ValueError: naming the first.
    """
    for name, limit in limits.items():
        if not 0 < limit < math.inf:
            raise ValueError(f"{name} is positive, got {limit}")


def _number(entry: Any) -> float:
    return float(entry) if isinstance(entry, (Real, np.bool_)) else math.nan


def _numbers(entry: Any) -> list[float]:
    """A history without gaps; empty if there is none."""
    history = entry.tolist() if isinstance(entry, np.ndarray) else entry
    numbers = [_number(one) for one in history] if isinstance(history, (list, tuple)) else [_number(history)]
    return numbers if all(map(math.isfinite, numbers)) else []
