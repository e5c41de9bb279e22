"""Driving: how far along its route a vehicle came, and what of it the rules of the road leave.

A drive is a mapping from signals to lists, one entry per tick of the simulator, or its JSON text:

    route                   % of the route that is done after the tick; it begins at 0
    speed, limit            m/s
    acceleration, lateral   m/s², along the vehicle and across it
    heading                 rad
    centre                  m from the lane's centre
    off_road                share of the vehicle that is off the road
    outside, too_close, junction, collision, red_light, stop_sign, deviation, stuck         truth values

`highway` records one from highway-env.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.algebra import reward
from guerdon.core.parsing import read_json, shown
from guerdon.core.scores import Scores

__all__ = ["Judged", "broken_limits", "counter", "highway", "judge", "kept", "route", "slope", "within_limit"]

Factor = Literal["lanes", "speed", "gap", "comfort", "centre"]
Hard = Literal["collision", "red_light", "stop_sign", "deviation", "stuck", "off_road"]
Signals = Mapping[str, np.ndarray[Any, Any]]

MARGIN = 2.23  # m/s above the limit at which nothing is left
WINDOW = 15  # ticks that a derivative is fitted to
OFF_CENTRE, OFF_ROAD = 0.5, 0.95
PENALTY = {"collision": -1.0, "red_light": -1.0}
STANDING = 100 / 2000  # of the sum: what a whole drive of 2000 ticks earns by rules kept is what its route earns

_READS: dict[str, tuple[str, ...]] = {
    "lanes": ("outside",),
    "speed": ("speed", "limit"),
    "gap": ("too_close",),
    "comfort": ("acceleration", "lateral", "heading"),
    "centre": ("centre", "junction"),
}


class Judged(NamedTuple):
    """What each tick of some drives is worth.

    Args:
        rewards: one per tick; 0 where the drive is over.
        mask: True up to the tick that ends the drive.
        ended: the tick's number, or −1 where the record stops first.
        why: the rule that ends it, "timeout", "finished", or None.
        terminated: True where a rule or the timeout ended it: finishing is a truncation.
        factors: what each rule leaves of the progress.
    """

    rewards: Float[np.ndarray[Any, Any], "n t"]
    mask: Bool[np.ndarray[Any, Any], "n t"]
    ended: Int[np.ndarray[Any, Any], "n"]
    why: list[str | None]
    terminated: Bool[np.ndarray[Any, Any], "n"]
    factors: dict[str, Float[np.ndarray[Any, Any], "n t"]]


def kept(violated: Bool[np.ndarray[Any, Any], "*n t"], ticks: int = 500) -> Bool[np.ndarray[Any, Any], "*n t"]:
    """True from each violation on, for so many ticks after the last one: a moment's violation is no bargain.

    Args:
        violated: True at a violation; the last axis is time. Each drive has a timer of its own, which begins empty.
        ticks: at least 0; 0 is the violations themselves.

    Raises:
        ValueError: if `ticks` is negative.

    >>> kept(np.array([0, 1, 0, 0, 0], bool), 2)
    array([False,  True,  True,  True, False])

    Source: the history of CaRL (autonomousvision/CaRL; arXiv 2504.17838), which its release shares among episodes.
    """
    if ticks < 0:
        raise ValueError(f"ticks must not be negative, got {ticks}")
    place = np.arange(violated.shape[-1])
    last = np.maximum.accumulate(np.where(violated, place, -1 - ticks), axis=-1)
    return np.asarray(place - last <= ticks)


def counter(violated: Bool[np.ndarray[Any, Any], "*n t"]) -> Int[np.ndarray[Any, Any], "*n t"]:
    """Counts up by 1 at each violation and down by 1 at every other tick, to 0 and no further.

        cₜ = max(0, cₜ₋₁ ± 1) = Sₜ − min(0, S₁, …, Sₜ)        S the sum of the ±1

    Args:
        violated: True at a violation; the last axis is time.

    >>> counter(np.array([0, 1, 1, 0, 0, 0, 1], bool))
    array([0, 1, 2, 1, 0, 0, 1])

    Source: the lane-centre counter of CaRL (autonomousvision/CaRL; arXiv 2504.17838).
    """
    total = np.where(violated, 1, -1).cumsum(-1)
    return np.asarray(total - np.minimum(np.minimum.accumulate(total, axis=-1), 0))


def within_limit(
    speed: Float[np.ndarray[Any, Any], "*n"], limit: Float[np.ndarray[Any, Any], "*n"], *, margin: float = MARGIN
) -> Float[np.ndarray[Any, Any], "*n"]:
    """What speeding leaves: clip(1 − (v − v_limit) / margin, 0, 1).

    Args:
        speed: in any unit, say m/s.
        limit: in the same.
        margin: > 0, in the same; so far above the limit, nothing is left.

    Raises:
        ValueError: if the margin is not positive.

    >>> within_limit(np.array([9.0, 10.0, 11.115, 12.23]), np.array(10.0)).round(3)
    array([1. , 1. , 0.5, 0. ])

    Source: CaRL (autonomousvision/CaRL; arXiv 2504.17838).
    """
    if not margin > 0:
        raise ValueError(f"margin must be positive, got {margin}")
    return np.asarray(np.clip(1 - (np.asarray(speed) - limit) / margin, 0, 1))


def slope(
    values: Float[np.ndarray[Any, Any], "*n t"],
    *,
    order: int = 1,
    degree: int = 2,
    window: int = WINDOW,
    tick: float = 0.1,
) -> Float[np.ndarray[Any, Any], "*n t"]:
    """The derivative at each tick of a polynomial fitted to the last ticks; NaN before there are enough of them.

    A Savitzky–Golay filter whose window ends where it is read: what comes later changes nothing, so that a drive is
    worth the same while it is driven as afterwards.

    Args:
        values: the last axis is time.
        order: of the derivative.
        degree: of the polynomial, at least `order` and below `window`.
        window: ticks.
        tick: seconds.

    Raises:
        ValueError: if the window is too short for the polynomial, or that for the derivative; or `tick` is not > 0.

    >>> slope(np.arange(5.0) ** 2, window=3, tick=1.0)[2:].round(6)
    array([4., 6., 8.])

    Source: Savitzky & Golay (1964), as CaRL's comfort (autonomousvision/CaRL) uses it.
    """
    if not (0 <= order <= degree < window and tick > 0):
        raise ValueError(f"want order ≤ degree < window and tick > 0, got {order}, {degree}, {window} and {tick}")
    found = np.full(values.shape, np.nan)
    if values.shape[-1] >= window:
        past = np.arange(1 - window, 1) * 1.0
        weights = np.linalg.pinv(np.vander(past, degree + 1, increasing=True))[order]
        windows = np.lib.stride_tricks.sliding_window_view(values, window, axis=-1)
        found[..., window - 1 :] = windows @ (weights * math.factorial(order) / tick**order)
    return found


def broken_limits(
    acceleration: Float[np.ndarray[Any, Any], "*n t"],
    lateral: Float[np.ndarray[Any, Any], "*n t"],
    heading: Float[np.ndarray[Any, Any], "*n t"],
    *,
    tick: float = 0.1,
) -> Bool[np.ndarray[Any, Any], "6 *n t"]:
    """Which of six limits of comfort a vehicle breaks at each tick.

        longitudinal acceleration in [−4.05, 2.40]   |lateral| ≤ 4.89   |jerk| ≤ 8.37   |longitudinal jerk| ≤ 4.13
        |yaw rate| ≤ 0.95                            |yaw acceleration| ≤ 1.93

    Args:
        acceleration: along the vehicle, m/s²; the last axis is time.
        lateral: across it.
        heading: rad; a full turn is no jump.
        tick: seconds.

    Source: the comfort of nuPlan and CaRL (autonomousvision/CaRL; arXiv 2504.17838).
    """
    turned = np.unwrap(heading, axis=-1)
    bounds = [
        ((acceleration + (4.05 - 2.40) / 2), (4.05 + 2.40) / 2),
        (lateral, 4.89),
        (slope(np.hypot(acceleration, lateral), tick=tick), 8.37),
        (slope(acceleration, tick=tick), 4.13),
        (slope(turned, tick=tick), 0.95),
        (slope(turned, order=2, degree=3, tick=tick), 1.93),
    ]
    # A rate that is not known yet is NaN, and so above nothing. 2.40 itself is not broken by rounding.
    return np.stack([np.abs(values) > bound * (1 + 1e-9) for values, bound in bounds])


def judge(
    drives: Signals,
    mask: Bool[np.ndarray[Any, Any], "n t"],
    *,
    factors: Sequence[Factor] = get_args(Factor),
    hard: Sequence[Hard] = get_args(Hard),
    form: Literal["product", "sum"] = "product",
    hold: int = 500,
    patience: int = 30,
    tick: float = 0.1,
    timeout: float = 1200.0,
) -> Judged:
    """Progress along the route, times what the rules of the road leave of it, and what an ending costs.

        rₜ = ΔRCₜ · Πₖ mₖ(t) + Tₜ

    ΔRC is what the furthest point of the route moved on by: going back and forth earns nothing, and neither does
    standing. T is −1 for a collision and for a red light, else 0. See `route` for the options.

    Args:
        drives: a signal each, "n t"; see the module's docstring.
        mask: True where there is a tick; those of a drive stand at its front.

    Source: CaRL (autonomousvision/CaRL; arXiv 2504.17838).
    """
    n, t = mask.shape
    left = _factors(drives, factors, hold, patience, tick, mask.shape)
    furthest = np.maximum.accumulate(np.concatenate([np.zeros((n, 1)), drives["route"]], 1), axis=1)
    progress = np.diff(furthest, axis=1)
    endings: dict[str, np.ndarray[Any, Any]] = {
        name: drives[name] > (OFF_ROAD if name == "off_road" else 0.5) for name in hard
    }
    endings["timeout"] = np.broadcast_to(np.arange(1, t + 1) * tick >= timeout * (1 - 1e-12), mask.shape)
    endings["finished"] = furthest[:, 1:] >= 100
    happens = np.stack(list(endings.values())) & mask
    over = happens.any(0)
    ended = np.where(over.any(1), over.argmax(1), -1) if t else np.full(n, -1)
    lasting = mask & ((np.arange(t) <= ended[:, None]) | (ended < 0)[:, None])
    names = list(endings)
    first = [names[int(happens[:, row, place].argmax())] if place >= 0 else None for row, place in enumerate(ended)]
    if form == "sum":
        whole = {name: left.get(name, np.ones(mask.shape)) == 1 for name in ("gap", "speed", "comfort")}
        rules = 5 * whole["gap"] + 4 * whole["speed"] + 2 * whole["comfort"]
        rewards = (5 * progress + STANDING * rules) / 16 * left.get("lanes", 1.0)
    else:
        rewards = progress * np.prod(list(left.values()), axis=0) if left else progress
    rows = np.flatnonzero(ended >= 0)
    rewards[rows, ended[rows]] += [
        min(PENALTY.get(name, 0.0) for name, there in zip(names, happens[:, row, ended[row]], strict=True) if there)
        for row in rows
    ]
    terminated = np.array([why not in (None, "finished") for why in first], bool)
    return Judged(np.where(lasting, rewards, 0.0), lasting, ended, first, terminated, left)


def _factors(
    drives: Signals, names: Sequence[str], hold: int, patience: int, tick: float, shape: tuple[int, ...]
) -> dict[str, Float[np.ndarray[Any, Any], "n t"]]:
    left: dict[str, np.ndarray[Any, Any]] = {}
    for name in names:
        signals = [drives[signal] for signal in _READS[name]]
        if name == "lanes":
            left[name] = np.where(signals[0] > 0.5, 0.0, 1.0)
        elif name == "speed":
            left[name] = within_limit(signals[0], signals[1])
        elif name == "gap":
            left[name] = np.where(kept(signals[0] > 0.5, hold), 0.5, 1.0)
        elif name == "comfort":
            broken = kept(broken_limits(*signals, tick=tick), hold)
            left[name] = 1 - 0.5 * broken.sum(0) / len(broken)
        else:
            away = (np.abs(signals[0]) > OFF_CENTRE) & ~(signals[1] > 0.5)
            left[name] = np.where(counter(away) > patience, 0.5, 1.0)
    return left


def _ranges(*, factors: Sequence[str], hard: Sequence[str], **options: Any) -> tuple[float, float]:
    for what, given, known in (("factors", factors, get_args(Factor)), ("hard", hard, get_args(Hard))):
        if not set(given) <= set(known) or len(set(given)) < len(given):
            raise ValueError(f"{what} are some of {', '.join(known)}, each once, got {', '.join(given)}")
    if options["hold"] < 0 or options["patience"] < 0 or not (options["tick"] > 0 and options["timeout"] > 0):
        raise ValueError("hold and patience are not negative, tick and timeout positive")
    return min((PENALTY.get(name, 0.0) for name in hard), default=0.0), 100.0


@reward(lane="batch", level="step", range=_ranges, floor=0.0)
def route(
    drive: Sequence[Any],
    *,
    factors: tuple[Factor, ...] = get_args(Factor),
    hard: tuple[Hard, ...] = get_args(Hard),
    form: Literal["product", "sum"] = "product",
    hold: int = 500,
    patience: int = 30,
    tick: float = 0.1,
    timeout: float = 1200.0,
) -> Scores:
    """A drive, tick by tick: progress along the route, times what the rules of the road leave of it.

        rₜ = ΔRCₜ · Πₖ mₖ(t) + Tₜ        in [−1, 100]; a clean drive of the whole route sums to 100

    lanes     0 outside of the route's lanes
    speed     clip(1 − (v − limit) / 2.23 m/s, 0, 1)
    gap       0.5 while `too_close` holds, and for `hold` ticks after it
    comfort   1 − 0.5 · n/6, with n of six limits broken in the last `hold` ticks; see `broken_limits`
    centre    0.5 while the counter of ticks more than 0.5 m off the lane's centre, junctions aside, is above `patience`

    An ending ends the score as well: ticks behind it are not asked for. T is −1 for a collision and a red light. Going
    back and forth pays nothing, nor does standing: ΔRC is what the furthest point moved on by. `reduce(…, "sum")` is
    the return of a drive.

    Args:
        drive: signals, as the module's docstring says.
        factors: the rules that count.
        hard: the endings that are looked for, besides the timeout and the route's end.
        form: 'product'; or 'sum', (5 ΔRC + 0.05 (5 [gap] + 4 [speed] + 2 [comfort])) / 16 · lanes + T, each bracket 1
            if nothing is taken off: a car that stands by the rules then earns 0.034 a tick for ever.
        hold: ticks.
        patience: ticks.
        tick: seconds.
        timeout: seconds.

    Returns:
        One score per tick, and as details why a drive ended, whether that is a termination, and how much of the route
        was done.

    Abstains where a signal that these rules read is missing, not finite, of another length than the route, or the
    route outside of 0 to 100: the simulator is at fault, and not the driver.

    Raises:
        ValueError: at once, for another rule or ending, or if a duration cannot be meant.

    >>> from guerdon.rewards import driving
    >>> from guerdon import reduce
    >>> crash = {"route": [10, 25, 40, 90], "collision": [0, 0, 1, 0]}
    >>> reduce(driving.route(factors=(), hard=("collision",)), "sum")(["?"], [""], drive=[crash])
    [39.0]

    Source: CaRL (autonomousvision/CaRL; arXiv 2504.17838); the sum is its form for nuPlan.
    """
    names = ("route", *dict.fromkeys(signal for name in factors for signal in _READS[name]), *hard)
    rows, reasons = [], {}
    for place, entry in enumerate(drive):
        signals, problem = _signals(entry, names)
        rows.append(signals)
        if problem:
            reasons[place] = problem
    lengths = np.array([row.shape[1] for row in rows], np.int64)
    mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
    held = np.zeros((len(names), *mask.shape))
    for place, row in enumerate(rows):
        held[:, place, : row.shape[1]] = row
    found = judge(
        dict(zip(names, held, strict=True)),
        mask,
        factors=factors,
        hard=hard,
        form=form,
        hold=hold,
        patience=patience,
        tick=tick,
        timeout=timeout,
    )
    asked = found.mask | (mask & np.isin(np.arange(len(rows)), list(reasons))[:, None])
    done = np.where(found.mask, held[0], 0.0).max(1, initial=0.0)
    return Scores(
        found.rewards,
        mask=asked,
        valid=asked & ~np.isin(np.arange(len(rows)), list(reasons))[:, None],
        reasons=reasons,
        details={
            "ended": found.why,
            "terminated": found.terminated.tolist(),
            "done": [None if place in reasons else float(x) for place, x in enumerate(done)],
        },
    )


def _signals(entry: Any, names: Sequence[str]) -> tuple[Float[np.ndarray[Any, Any], "k t"], str | None]:
    """The signals of one drive; one tick of zeros where they cannot be used, and why."""
    nothing = np.zeros((len(names), 1))
    try:
        drive = read_json(entry) if isinstance(entry, str) else entry
    except ValueError as problem:
        return nothing, f"drive not readable: {problem}"
    if not isinstance(drive, Mapping):
        return nothing, f"drive not a mapping of signals: {shown(entry)}"
    rows: list[np.ndarray[Any, Any]] = []
    for name in names:
        if drive.get(name) is None:
            return nothing, f"signal {name!r} is missing"
        try:
            row = np.asarray(drive[name], np.float64)
        except (TypeError, ValueError):
            row = np.array(math.nan)
        if row.ndim != 1 or not np.isfinite(row).all():
            return nothing, f"signal {name!r} is no list of numbers: {shown(drive[name])}"
        if len(row) != len(rows[0] if rows else row) or not len(row):
            return nothing, f"signal {name!r} has {len(row)} ticks, the route {len(rows[0]) if rows else 0}"
        rows.append(row)
    if rows[0].min() < 0 or rows[0].max() > 100 * (1 + 1e-6):
        return nothing, f"route goes from {rows[0].min():g} to {rows[0].max():g}, which is no share in percent"
    return np.stack([np.minimum(rows[0], 100.0), *rows[1:]]), None


def highway(
    env: Any, act: Callable[[Any, Any], Any], *, metres: float, seed: int | None = None, gap: float = 0.95
) -> dict[str, list[float]]:
    """Drive one episode in highway-env, and record it.

    Args:
        env: an environment of highway-env with one vehicle of ours.
        act: from the environment and an observation to an action.
        metres: the length of the route, > 0, along the lanes from where the vehicle begins.
        seed: of the episode.
        gap: seconds to a collision with who drives ahead in the same lane, below which it is too close.

    Returns:
        A drive: one entry per step of the environment.

    Raises:
        ValueError: if the route has no length.

    Source: highway-env (Leurent 2018); the signals are those CaRL (autonomousvision/CaRL) reads.
    """
    if not 0 < metres < math.inf:
        raise ValueError(f"metres must be positive, got {metres}")
    observed, _ = env.reset(seed=seed)
    drive: dict[str, list[float]] = {}
    travelled, over = 0.0, False
    place = np.array(env.unwrapped.vehicle.position)
    while not over:
        observed, _, terminated, truncated, _ = env.step(act(env, observed))
        over = terminated or truncated
        vehicle = env.unwrapped.vehicle
        along = vehicle.lane.local_coordinates(vehicle.position)[0]
        travelled += float(along - vehicle.lane.local_coordinates(place)[0])
        place = np.array(vehicle.position)
        tick = _tick(env.unwrapped, vehicle, gap) | {"route": float(np.clip(100 * travelled / metres, 0, 100))}
        for name, value in tick.items():
            drive.setdefault(name, []).append(float(value))
        over = over or tick["route"] >= 100
    return drive


def _tick(env: Any, vehicle: Any, gap: float) -> dict[str, float]:
    lane = vehicle.lane
    along, across = lane.local_coordinates(vehicle.position)
    ahead = []
    for other in env.road.vehicles:
        theirs, aside = lane.local_coordinates(other.position)
        closing = vehicle.speed * np.cos(vehicle.heading) - other.speed * np.cos(other.heading)
        if other is not vehicle and lane.on_lane(other.position, theirs, aside) and theirs > along and closing > 0:
            ahead.append((theirs - along - vehicle.LENGTH) / closing)
    slip = math.atan(0.5 * math.tan(vehicle.action["steering"]))  # of highway-env's bicycle model
    return {
        "speed": vehicle.speed,
        "limit": vehicle.MAX_SPEED if lane.speed_limit is None else lane.speed_limit,
        "acceleration": vehicle.action["acceleration"],
        "lateral": vehicle.speed**2 * math.sin(slip) / (vehicle.LENGTH / 2),
        "heading": vehicle.heading,
        "centre": abs(across),
        "angle": float(lane.local_angle(vehicle.heading, along)),
        "junction": 0.0,
        "outside": not lane.on_lane(vehicle.position),
        "too_close": bool(ahead) and min(ahead) < gap,
        "collision": vehicle.crashed,
        "off_road": not vehicle.on_road,
    }
