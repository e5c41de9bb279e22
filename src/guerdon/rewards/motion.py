"""How things move towards, away from and along with one another: distance, speed and direction as rewards of steps.

A track is a column with a point for each step of a rollout: a list of lists of coordinates; one point alone is a place
that does not move, such as a goal. `geometric` combines what is measured here, `shaping.gain` makes a wage of it, and
`shaping.team_spirit` shares it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.core.errors import MissingExtra
from guerdon.core.parsing import shown
from guerdon.core.scores import Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["aligned", "approach", "direction", "landscape", "near", "nearness", "towards"]

Points = Float[np.ndarray[Any, Any], "*n d"]
Values = Float[np.ndarray[Any, Any], "*n"]


def nearness(
    distance: Values, *, scale: float = 1.0, dispersion: float = 1.0, density: float = 1.0, signed: bool = False
) -> Values:
    """A reward of being near.

        v = exp(−½ d / (scale · dispersion))        r = v^(1/density)
        signed: r = sign(u) |u|^(1/density) with u = 2 (v − ½)

    Args:
        distance: d ≥ 0; what is less counts as 0.
        scale: > 0, in the unit of the distance: what is a long way, as the speed that is driven at.
        dispersion: > 0; more of it reaches farther.
        density: > 0; above 1 the reward stays high for longer.
        signed: in [−1, 1], and negative beyond scale · dispersion · 2 ln 2, instead of in [0, 1].

    Raises:
        ValueError: if an option is not positive.

    >>> nearness(np.array([0.0, 2 * np.log(2)])), nearness(np.array([2 * np.log(2)]), signed=True)
    (array([1. , 0.5]), array([0.]))

    Source: the parameterised distance rewards of Lucy-SKG (Enkhai/lucy-utils; arXiv 2305.15801), after Liu et al.
    (2105.12196).
    """
    _positive(scale=scale, dispersion=dispersion, density=density)
    value = np.exp(-0.5 * np.maximum(distance, 0.0) / (scale * dispersion))
    if not signed:
        return np.asarray(value ** (1 / density))
    middle = 2 * (value - 0.5)
    return np.asarray(np.sign(middle) * np.abs(middle) ** (1 / density))


def direction(first: Points, second: Points) -> Values:
    """The cosine of the angle between two vectors, in [−1, 1]; 0 where one has no length.

    >>> direction(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 0.0]]))
    array([1., 0.])

    Source: the alignment rewards of Lucy-SKG (Enkhai/lucy-utils; arXiv 2305.15801).
    """
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    cosine = (first * second).sum(-1) / np.where(lengths > 0, lengths, 1.0)
    return np.asarray(np.clip(np.where(lengths > 0, cosine, 0.0), -1, 1))


def approach(position: Points, velocity: Points, target: Points, *, top: float = 1.0) -> Values:
    """How fast something moves towards a target, as a share of the speed it can have: clip(v · û / top, −1, 1).

    Args:
        position, velocity, target: in one unit of length, velocity per second.
        top: > 0, the highest speed.

    Raises:
        ValueError: if `top` is not positive.

    >>> approach(np.zeros((1, 2)), np.array([[3.0, 4.0]]), np.array([[10.0, 0.0]]), top=6.0)
    array([0.5])

    Source: the velocity rewards of Lucy-SKG (Enkhai/lucy-utils; arXiv 2305.15801).
    """
    _positive(top=top)
    way = np.asarray(target) - position
    length = np.linalg.norm(way, axis=-1)
    speed = (velocity * way).sum(-1) / np.where(length > 0, length, 1.0)
    return np.asarray(np.clip(speed / top, -1, 1))


def landscape(
    values: Callable[[Points], Values],
    *,
    x: tuple[float, float],
    y: tuple[float, float],
    points: int = 101,
    marks: Sequence[tuple[str, tuple[float, float]]] = (),
    title: str = "",
) -> Figure:
    """A picture of a reward over the places where something can be: is its top where it should be?

    Args:
        values: from places, "n 2", to what each is worth.
        x, y: from where to where.
        points: on each axis, at least 2.
        marks: names and places to show, such as a ball and two goals.
        title: of the picture.

    Returns:
        A figure of matplotlib, drawn without a display; the values are its mesh's array. Save it by `savefig`.

    Raises:
        MissingExtra: without matplotlib.
        ValueError: if there are too few points, or not one finite value for each place.

    Source: the reward analysis of Lucy-SKG (Enkhai/lucy-utils; arXiv 2305.15801).
    """
    if points < 2:
        raise ValueError(f"points must be at least 2, got {points}")
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtra("motion.landscape", "plots") from None
    across, up = np.meshgrid(np.linspace(*x, points), np.linspace(*y, points))
    found = np.asarray(values(np.stack([across.ravel(), up.ravel()], -1)), np.float64)
    if found.shape != (points**2,) or not np.isfinite(found).all():
        raise ValueError(f"values gives one finite number for each of {points**2} places, got shape {found.shape}")
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    signed = found.min() < 0
    size = float(np.abs(found).max()) if signed else None
    mesh = axes.pcolormesh(
        across,
        up,
        found.reshape(across.shape),
        cmap="RdBu" if signed else "viridis",
        vmin=-size if size else None,
        vmax=size,
        shading="nearest",
    )
    figure.colorbar(mesh, ax=axes, label="reward")
    for name, place in marks:
        axes.plot(*place, "k+")
        axes.annotate(name, place, xytext=(4, 4), textcoords="offset points")
    axes.set(title=title, aspect="equal")
    return figure


def _near_range(*, scale: float, dispersion: float, density: float, signed: bool, **names: Any) -> tuple[float, float]:
    _positive(scale=scale, dispersion=dispersion, density=density)
    return (-1.0 if signed else 0.0), 1.0


def _two(*, track: str, target: str, **options: Any) -> tuple[str, ...]:
    return (track, target)


def _three(*, track: str, velocity: str, target: str, **options: Any) -> tuple[str, ...]:
    return (track, velocity, target)


def _ways(*, track: str, via: str, goal: str) -> tuple[str, ...]:
    return (track, via, goal)


@reward(lane="batch", level="step", range=_near_range, columns=_two)
def near(
    positions: Sequence[Any],
    targets: Sequence[Any],
    *,
    track: str,
    target: str,
    radius: float = 0.0,
    scale: float = 1.0,
    dispersion: float = 1.0,
    density: float = 1.0,
    signed: bool = False,
) -> Scores:
    """How near one track is to another at each step; see `nearness`.

    Args:
        positions: points; see the module's docstring.
        targets: points.
        track: the column of the one.
        target: the column of the other.
        radius: taken off the distance: two bodies touch before their middles meet.
        scale, dispersion, density, signed: see `nearness`.

    Abstains where a track is missing, not finite, or of another length or dimension: what was recorded is at fault.

    Raises:
        ValueError: at once, if an option is not positive.

    >>> from guerdon.rewards import motion
    >>> from guerdon import Rollouts
    >>> batch = Rollouts(["?"], [""], {"car": [[[0, 0], [3, 4]]], "ball": [[3, 4]]})
    >>> motion.near(track="car", target="ball", scale=5).score(batch).read(0.0).round(4)
    array([[0.6065, 1.    ]])

    Source: Lucy-SKG (Enkhai/lucy-utils; arXiv 2305.15801).
    """
    options: dict[str, Any] = {"scale": scale, "dispersion": dispersion, "density": density, "signed": signed}

    def measured(points: Points, others: Points) -> Values:
        return nearness(np.linalg.norm(points - others, axis=-1) - radius, **options)

    return _scored(measured, (track, target), positions, targets)


def _towards_range(*, top: float, **names: str) -> tuple[float, float]:
    _positive(top=top)
    return -1.0, 1.0


@reward(lane="batch", level="step", range=_towards_range, columns=_three)
def towards(
    positions: Sequence[Any],
    velocities: Sequence[Any],
    targets: Sequence[Any],
    *,
    track: str,
    velocity: str,
    target: str,
    top: float,
) -> Scores:
    """How fast something moves towards something else at each step, as a share of its top speed; see `approach`.

    Args:
        positions: points.
        velocities: the same, per second.
        targets: points.
        track: the column of what moves.
        velocity: the column of how it moves.
        target: the column of what it should move to.
        top: its highest speed.

    Abstains as `near` does.

    Raises:
        ValueError: at once, if `top` is not positive.

    Source: Lucy-SKG (Enkhai/lucy-utils; arXiv 2305.15801).
    """

    def measured(points: Points, speeds: Points, others: Points) -> Values:
        return approach(points, speeds, others, top=top)

    return _scored(measured, (track, velocity, target), positions, velocities, targets)


@reward(lane="batch", level="step", range=(-1, 1), columns=_ways)
def aligned(
    positions: Sequence[Any], between: Sequence[Any], ends: Sequence[Any], *, track: str, via: str, goal: str
) -> Scores:
    """How well two ways are in line at each step, there and on: the cosine of (via − track) and (goal − via).

    1 if a player stands behind the ball as seen from the goal, −1 if between the two.

    Args:
        positions: points.
        between: points.
        ends: points.
        track: the column of who comes, as a player.
        via: the column of what is met, as a ball.
        goal: the column of where that is to go.

    Abstains as `near` does.

    >>> from guerdon.rewards import motion
    >>> from guerdon import Rollouts
    >>> batch = Rollouts(["?"], [""], {"car": [[[0, 0], [2, 0]]], "ball": [[1, 0]], "goal": [[9, 0]]})
    >>> motion.aligned(track="car", via="ball", goal="goal").score(batch).read(0.0)
    array([[ 1., -1.]])

    Source: the ball-to-goal alignment of Lucy-SKG (Enkhai/lucy-utils; arXiv 2305.15801), after RLGym.
    """

    def measured(points: Points, met: Points, goals: Points) -> Values:
        return direction(met - points, goals - met)

    return _scored(measured, (track, via, goal), positions, between, ends)


def _scored(measured: Callable[..., Values], names: Sequence[str], *columns: Sequence[Any]) -> Scores:
    """A measure of the tracks of all rollouts at once, step by step."""
    rows: list[list[np.ndarray[Any, Any]]] = []
    reasons: dict[int, str] = {}
    for place, entries in enumerate(zip(*columns, strict=True)):
        found = _tracks(names, entries)
        if isinstance(found, str):
            reasons[place] = found
        rows.append([np.zeros((1, 1)) for _ in columns] if isinstance(found, str) else found)
    lengths = np.array([len(row[0]) for row in rows], np.int64)
    mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
    dimensions = max((row[0].shape[1] for row in rows), default=1)
    held = np.zeros((len(columns), *mask.shape, dimensions))  # further coordinates are 0, and change no distance
    for place, row in enumerate(rows):
        for k, points in enumerate(row):
            held[k, place, : len(points), : points.shape[1]] = points
    failed = np.isin(np.arange(len(rows)), list(reasons))
    return Scores(measured(*held), mask=mask, valid=mask & ~failed[:, None], reasons=reasons)


def _tracks(names: Sequence[str], entries: Sequence[Any]) -> list[np.ndarray[Any, Any]] | str:
    """Points of one length, or why there are none."""
    found = []
    for name, entry in zip(names, entries, strict=True):
        try:
            points = np.asarray(entry, np.float64)
        except (TypeError, ValueError):
            points = np.array(math.nan)
        if points.ndim not in (1, 2) or not points.size or not np.isfinite(points).all():
            return f"track {name!r} is no list of points: {shown(entry)}"
        found.append(points)
    steps = {len(points) for points in found if points.ndim == 2} or {1}
    if len(steps) > 1 or len({points.shape[-1] for points in found}) > 1:
        shapes = ", ".join(f"{name} {points.shape}" for name, points in zip(names, found, strict=True))
        return f"tracks do not fit together: {shapes}"
    length = steps.pop()
    return [np.broadcast_to(points, (length, points.shape[-1])) for points in found]


def _positive(**options: float) -> None:
    for name, value in options.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, got {value}")
