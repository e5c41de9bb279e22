"""The tiers of a lens: `table`, `feasible`, `focus` and `spot`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.core.extras import needs
from guerdon.core.parsing import Completion, read_json, shown
from guerdon.core.scores import Scores
from guerdon.rewards.optics.lenses import MASKED, Catalogue, Lenses, read_lens, written
from guerdon.rewards.optics.paraxial import Paraxial, paraxial
from guerdon.rewards.optics.tracing import rms_spot, trace

Values = Float[np.ndarray[Any, Any], "n"]

INDICES = (1.4, 2.1)
EXACT, WIDTH = 0.01, 0.1
LONGEST = 10.0  # focal lengths that a track may be long, unless the targets say

FOCUS = ("focal_length", "f_number", "back_focal_length")
WANTED = ("focal_length", "f_number", "field", "back_focal_length", "track")


class Read(NamedTuple):
    """The lenses of a batch and what is wanted of them; an empty lens where there is none."""

    lenses: Lenses
    problems: list[str | None]
    targets: dict[str, Values]
    reasons: dict[int, str]

    def scores(self, values: Any, problems: Sequence[str | None] = (), **details: Sequence[Any]) -> Scores:
        """Scores in [0, 1]; the floor where there is no lens."""
        said = [own or other for own, other in zip(self.problems, problems or self.problems, strict=True)]
        kept = np.where([p is None for p in self.problems], np.nan_to_num(values), 0.0)
        usable = np.array([row not in self.reasons for row in range(len(kept))], bool)
        return Scores(kept, valid=usable, reasons=self.reasons, details={"problem": said, **details})


def _options(*, catalogue: Catalogue, **options: Any) -> tuple[str, ...]:
    return needs("optics with catalogue='optiland'", *(["optiland"] if catalogue != "none" else []), extra="optics")()


def _sized(*, size: float, **options: Any) -> tuple[str, ...]:
    if not 0 < size < math.inf:
        raise ValueError(f"size must be positive, got {size}")
    return _options(**options)


def _columns(*, given: str, **options: Any) -> tuple[str, ...]:
    return ("completion", *(("prescription",) if given == "keep" else ()))


@reward(lane="batch", range=(0, 1), columns=_columns, requires=_options)
def table(
    completion: Sequence[Completion],
    prescription: Sequence[Any] = (),
    *,
    given: Literal["ignore", "keep"] = "ignore",
    catalogue: Catalogue = "none",
) -> Scores:
    """1 if a reply holds a table of surfaces with every cell, else 0 with the detail `problem`.

    Args:
        completion: the reply; see the module's docstring.
        prescription: a table in which the cells to be filled in are "?"; read if `given` is 'keep'.
        given: 'keep' also wants every other cell of the prescription as it is: who may change what was given solves
            another task.
        catalogue: 'optiland' also takes names of glasses.

    Abstains if the prescription is no table, or nothing in it is to be filled in.

    Raises:
        MissingExtra: at once, without the catalogue.

    >>> from guerdon.rewards import optics
    >>> optics.table()(["?"], ['[{"radius": 50, "thickness": 3, "index": 1.5, "stop": true}]'])
    [0.0]

    Source: the format tier and the completion of prescriptions of OPTIAGENT (arXiv 2602.23761).
    """
    problems: list[str | None] = []
    reasons: dict[int, str] = {}
    for row, reply in enumerate(completion):
        problems.append(None)
        try:
            read_lens(reply, catalogue=catalogue)
            if given == "keep":
                problems[row] = _changed(reply, prescription[row])
        except ValueError as problem:
            problems[row] = str(problem)
        if given == "keep":
            reasons |= _unusable(row, prescription[row])
    valid = np.array([row not in reasons for row in range(len(problems))], bool)
    values = np.array([float(problem is None) for problem in problems])
    return Scores(values, valid=valid, reasons=reasons, details={"problem": problems})


@reward(lane="batch", range=(0, 1), requires=_options)
def feasible(completion: Sequence[Completion], targets: Sequence[Any], *, catalogue: Catalogue = "none") -> Scores:
    """1 if a lens can be built and light passes it, else 0 with the detail `problem`, the first thing that is wrong:

    a thickness that is not positive; an index that is neither 1 nor between 1.4 and 2.1, or not 1 behind the lens; no
    glass at all; a semi-diameter that is not positive, or not below the radius; an edge that is not; a track longer
    than the targets allow, or than ten focal lengths; a ray that misses a surface, cannot leave a glass, or, of the
    light along the axis and the middle of that at an angle, passes outside of a semi-diameter.

    Args:
        completion: the reply.
        targets: `focal_length`, and if wanted `field` and `track`.
        catalogue: see `table`.

    Abstains if the targets cannot be used.

    Source: the feasibility tier of OPTIAGENT (arXiv 2602.23761).
    """
    read = _read(completion, targets, catalogue)
    near_axis = paraxial(read.lenses)
    return read.scores(*_feasible(read.lenses, near_axis, read.targets))


@reward(lane="batch", range=(0, 1), requires=_options)
def focus(completion: Sequence[Completion], targets: Sequence[Any], *, catalogue: Catalogue = "none") -> Scores:
    """How well a lens does to light near its axis what it should: the mean over the targets of

        1 if e ≤ 1 %, else exp(−e / 0.1)        e = |x − x*| / |x*|

    of the focal length, the F-number, and, if there is such a target, the back focal length. The F-number is that of
    the stop's aperture: a lens cannot be sharp by being dark.

    Args:
        completion: the reply.
        targets: see the module's docstring.
        catalogue: see `table`.

    Returns:
        The score, and what was measured as a detail.

    Abstains if the targets cannot be used.

    >>> import json
    >>> from guerdon.rewards import optics
    >>> surface = {"thickness": 1e-9, "semi_diameter": 10}
    >>> thin = [{**surface, "radius": 100, "index": 1.5, "stop": True}, {**surface, "radius": -100, "index": 1}]
    >>> wanted = [{"focal_length": 100, "f_number": 5}, {"focal_length": 125, "f_number": 5}]
    >>> [round(r, 4) for r in optics.focus()(["?"] * 2, [json.dumps(thin)] * 2, targets=wanted)]
    [1.0, 0.5677]

    Source: the light-manipulation tier of OPTIAGENT (arXiv 2602.23761).
    """
    read = _read(completion, targets, catalogue)
    near_axis = paraxial(read.lenses)
    earned, count = np.zeros(len(completion)), np.zeros(len(completion))
    for name in FOCUS:
        wanted, found = read.targets[name], getattr(near_axis, name)
        there = np.isfinite(wanted)
        with np.errstate(invalid="ignore"):
            error = np.abs(found - wanted) / np.abs(wanted)
        close = np.where(error <= EXACT, 1.0, np.exp(-np.where(np.isfinite(error), error, np.inf) / WIDTH))
        earned, count = earned + np.where(there, close, 0.0), count + there
    columns = [getattr(near_axis, name) for name in FOCUS]
    measured = [dict(zip(FOCUS, map(_shown, row), strict=True)) for row in zip(*columns, strict=True)]
    return read.scores(earned / np.maximum(count, 1), measured=measured)


@reward(lane="batch", range=(0, 1), requires=_sized)
def spot(
    completion: Sequence[Completion], targets: Sequence[Any], *, size: float = 0.01, catalogue: Catalogue = "none"
) -> Scores:
    """How sharp a lens is: the mean of 1 / (1 + rms / size) over the light along the axis and that at the field angle.

    rms is that of real rays through all of the pupil, around their middle, on the image, where the last thickness says
    it is.

    Args:
        completion: the reply.
        targets: `focal_length`, and if wanted `field`.
        size: > 0, in the unit of the table: a spot so large is worth ½.
        catalogue: see `table`.

    Returns:
        The score, 0 if a ray does not come through; and both spots as details.

    Abstains if the targets cannot be used.

    Raises:
        ValueError: at once, if the size is not positive.

    Source: the heuristic tier of OPTIAGENT (arXiv 2602.23761), with the spot in the place of its judge.
    """
    read = _read(completion, targets, catalogue)
    near_axis = paraxial(read.lenses)
    angles = [np.zeros(len(completion)), read.targets["field"]]
    spots = [rms_spot(trace(read.lenses, near_axis, angle)) for angle in angles]
    earned = np.mean([np.where(np.isfinite(rms), 1 / (1 + rms / size), 0.0) for rms in spots], axis=0)
    return read.scores(earned, rms=[[_shown(x) for x in pair] for pair in zip(*spots, strict=True)])


def _feasible(lenses: Lenses, near_axis: Paraxial, targets: Mapping[str, Values]) -> tuple[Values, list[str | None]]:
    used, index, semi = lenses.used, lenses.indices, lenses.semi_diameter
    steep = np.abs(lenses.curvature) * semi
    height = np.minimum(semi, np.where(steep < 1, semi, 0.0))
    sag = lenses.curvature * height**2 / (1 + np.sqrt(1 - np.minimum(lenses.curvature**2 * height**2, 1.0)))
    edge = lenses.thickness[:, :-1] - sag[:, :-1] + sag[:, 1:]
    glass = (index > INDICES[0]) & (index < INDICES[1])
    along, across = (trace(lenses, near_axis, angle) for angle in (np.zeros(len(used)), targets["field"]))
    limit = np.where(np.isfinite(targets["track"]), targets["track"], LONGEST * np.abs(targets["focal_length"]))
    within = 1 + 1e-6
    checks: list[tuple[str, Any]] = [
        ("a thickness is not positive", (used & (lenses.thickness <= 0)).any(1)),
        ("an index is neither 1 nor between 1.4 and 2.1", (used & ~glass & (index != 1)).any(1)),
        ("there is no glass", ~(used & glass).any(1)),
        ("behind the lens is no air", index[:, -1] != 1 if index.shape[1] else np.ones(len(used), bool)),
        ("a semi-diameter is not positive, or not below the radius", (used & ((semi <= 0) | (steep >= 1))).any(1)),
        ("an edge has no thickness", (used[:, 1:] & (edge <= 0)).any(1)),
        ("the track is too long", near_axis.track > limit * within),
        ("the stop has no image", ~(np.isfinite(near_axis.pupil) & np.isfinite(near_axis.aperture))),
        ("a ray does not come through", ~(along.through.all(1) & across.through.all(1))),
        ("light passes outside of a semi-diameter", (along.highest.max(1) > within) | (across.highest[:, 0] > within)),
    ]
    problems = [next((said for said, wrong in checks if wrong[row]), None) for row in range(len(used))]
    return np.array([float(problem is None) for problem in problems]), problems


def _read(completion: Sequence[Completion], targets: Sequence[Any], catalogue: Catalogue) -> Read:
    tables: list[list[dict[str, Any]]] = []
    problems: list[str | None] = []
    for reply in completion:
        try:
            tables.append(read_lens(reply, catalogue=catalogue))
            problems.append(None)
        except ValueError as problem:
            tables.append([])
            problems.append(str(problem))
    found = {name: np.full(len(tables), np.nan) for name in WANTED}
    found["field"][:] = 0.0
    reasons: dict[int, str] = {}
    for row, entry in enumerate(targets):
        wanted = _targets(entry)
        if isinstance(wanted, str):
            reasons[row] = wanted
            continue
        for name, value in wanted.items():
            found[name][row] = value
    return Read(Lenses.of(tables, catalogue), problems, found, reasons)


def _targets(entry: Any) -> dict[str, float] | str:
    """What is wanted of a row, or why that is not known."""
    try:
        listed = read_json(entry) if isinstance(entry, str) else entry
    except ValueError as problem:
        return f"targets not readable: {problem}"
    if not isinstance(listed, Mapping):
        return f"targets not a mapping: {shown(entry)}"
    found: dict[str, float] = {}
    for name in WANTED:
        value = listed.get(name)
        if value is None and name not in ("focal_length", "f_number"):
            continue  # Parquet gives each row every key that any has
        number = math.nan if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) else float(value)
        right = number > 0 if name in ("f_number", "track") else 0 <= number < 90 if name == "field" else number != 0
        if not math.isfinite(number) or not right:
            return f"target {name!r} cannot be met: {shown(value)}"
        found[name] = number
    return found


def _changed(reply: Completion, prescription: Any) -> str | None:
    """Which cell that was given a reply changed; None if none."""
    try:
        asked = written(prescription)
    except ValueError:
        return None
    told = written(reply)
    if len(told) != len(asked):
        return f"{len(told)} surfaces where {len(asked)} were given"
    for place, (now, then) in enumerate(zip(told, asked, strict=True), 1):
        for name, value in then.items():
            if value not in (MASKED, None) and now.get(name) != value:
                return f"surface {place}: {name} was given as {shown(value)}"
    return None


def _unusable(row: int, prescription: Any) -> dict[int, str]:
    try:
        cells = [value for surface in written(prescription) for value in surface.values()]
    except ValueError as problem:
        return {row: f"prescription not a table: {problem}"}
    masked = any(isinstance(value, str) and value == MASKED for value in cells)
    return {} if masked else {row: "prescription has no cell to fill in"}


def _shown(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
