"""Routes on a map of lines: does a plan lead where it should, and how much of it does?

A map is a mapping from each line to its stations in order, or its JSON text. A plan is read from the reply, one leg
after the other, in sections between lines of dashes:

    Route Name: Line 1
    Departure Stop: A
    Arrival Stop: C
    --
    Route Name: Line 2
    …
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, Passage, passage, read_json, shown, text_of

__all__ = ["detail", "plan", "stops"]

_FIELD = re.compile(r"^[^\w\n]*(route name|departure stop|arrival stop)[^\w\n:]*:(.*)$", re.IGNORECASE | re.MULTILINE)
_DASHES = re.compile(r"^[ \t]*-{2,}[ \t]*$", re.MULTILINE)
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|（[^（）]*）")
_STATION = re.compile(r"\b(?:metro|subway|railway|train)?\s*(?:station|stop)\b")


class Leg(NamedTuple):
    """One section of a plan, its names as they are compared."""

    line: str
    departure: str
    arrival: str


class Map(NamedTuple):
    """Lines and their stations, as they are compared."""

    lines: Mapping[str, frozenset[str]]

    def serves(self, leg: Leg) -> bool:
        """Whether the line exists and both stops lie on it."""
        return {leg.departure, leg.arrival} <= self.lines.get(leg.line, frozenset())


@reward(range=(0, 1))
def plan(
    completion: Completion,
    lines: Any,
    origin: Any,
    destination: Any,
    *,
    within: Passage = "reply",
) -> tuple[float, dict[str, Any]]:
    """1 if the plan leads from the origin to the destination, else 0.

    Each leg's line exists and both of its stops lie on it, each arrival is the next departure, the first departure is
    the origin and the last arrival the destination. Names are compared without case, white space, brackets and the word
    'station'.

    Args:
        completion: the reply, with the plan as the module's docstring says.
        lines: the map: from each line to its stations, or its JSON text.
        origin: where the route begins.
        destination: where it ends.
        within: see `text.exact`.

    Returns:
        The score, and as details the number of legs and what is wrong first: None if nothing.

    Raises:
        Abstain: if there is no map, or one of the two stations is not on it.

    >>> from guerdon.rewards import transit
    >>> lines = {"L1": ["A", "B", "C"], "L2": ["C", "D", "E"]}
    >>> legs = "Route Name: L1\\nDeparture Stop: A\\nArrival Stop: C\\n--\\n"
    >>> legs += "Route Name: L2\\nDeparture Stop: C\\nArrival Stop: E"
    >>> transit.plan().evaluate(legs, lines, "A", "E")
    (1.0, {'legs': 2, 'problem': None})

    Source: R_acc of RewardMap (fscdc/RewardMap; arXiv 2510.02240), there 10.
    """
    city, start, end = _task(lines, origin, destination)
    legs = _legs(passage(text_of(completion), within) or "")
    problem = _problem(legs, city, start, end)
    return float(problem is None), {"legs": len(legs), "problem": problem}


@reward(range=(-math.inf, 10), floor=0.0)
def detail(
    completion: Completion,
    lines: Any,
    origin: Any,
    destination: Any,
    transfers: Any,
    *,
    allowed: Literal["legs", "transfers"] = "legs",
    within: Passage = "reply",
) -> tuple[float, dict[str, Any]]:
    """How much of a plan is right, for plans whose two ends are: at most 10, and 0 for any others.

        2 + Σᵢ (3 if leg i's line exists) + (1 if leg i hands over to the next) − (5 if there may be no leg i)

    where a question without transfers pays 4 for a line that holds both stations. Legs beyond the allowed number earn
    nothing and cost 5 each, without a floor: adding legs until one is right does not pay.

    Args:
        completion: see `plan`.
        lines: see `plan`.
        origin: see `plan`.
        destination: see `plan`.
        transfers: how often the route changes, at most.
        allowed: so many legs there may be: transfers + 1; or as many as 'transfers', as the release counts, which
            takes 5 from every perfect plan.
        within: see `plan`.

    Returns:
        The score, and as a detail the number of legs.

    Raises:
        Abstain: as `plan`, or if transfers is no whole number ≥ 0.

    Source: R_detail of RewardMap (fscdc/RewardMap; arXiv 2510.02240).
    """
    city, start, end = _task(lines, origin, destination)
    if isinstance(transfers, bool) or not isinstance(transfers, (int, np.integer)) or transfers < 0:
        raise Abstain(f"transfers is no whole number ≥ 0: {shown(transfers)}")
    legs = _legs(passage(text_of(completion), within) or "")
    if not legs or legs[0].departure != start or legs[-1].arrival != end:
        return 0.0, {"legs": len(legs)}
    most = int(transfers) + (allowed == "legs")
    earned = 2.0
    for i, leg in enumerate(legs):
        if i >= most:
            earned -= 5.0
        if i >= int(transfers) + 1:
            continue
        if transfers == 0:
            earned += 4.0 if {start, end} <= city.lines.get(leg.line, frozenset()) else 0.0
        elif leg.line in city.lines:
            earned += 3.0
        if i < min(int(transfers), len(legs) - 1) and leg.arrival == legs[i + 1].departure:
            earned += 1.0
    return min(earned, 10.0), {"legs": len(legs)}


@reward(range=(-math.inf, math.inf), floor=0.0)
def stops(
    completion: Completion, via: Any, *, each: float = 0.5, within: Passage = "answer_tag"
) -> tuple[float, dict[str, Any]]:
    """What a list of stops is worth: `each` for every new right one, less `each` for a wrong or repeated one.

    Args:
        completion: the reply; stops stand between commas, semicolons or lines.
        via: the right stops: a list of texts.
        each: > 0, the reward of one.
        within: see `text.exact`.

    Returns:
        The score, and as a detail how many were right.

    Raises:
        Abstain: if there are no right stops.

    >>> from guerdon.rewards import transit
    >>> transit.stops().evaluate("<answer>B, C, C, X</answer>", ["B", "C"])  # two right, one again, one wrong
    (0.0, {'right': 2})

    Source: the stop list of RewardMap (fscdc/RewardMap; arXiv 2510.02240), off by default there.
    """
    listed = via.tolist() if isinstance(via, np.ndarray) else via
    if not isinstance(listed, (list, tuple)) or not listed or not all(isinstance(s, str) and s.strip() for s in listed):
        raise Abstain(f"stops missing: {shown(via)}")
    right = {_name(stop) for stop in listed}
    said = [_name(stop) for stop in re.split(r"[,;\n]", passage(text_of(completion), within) or "") if stop.strip()]
    new = len(set(said) & right)
    return each * (new - (len(said) - new)), {"right": new}


def _task(lines: Any, origin: Any, destination: Any) -> tuple[Map, str, str]:
    city = _map(lines)
    stations = frozenset[str]().union(*city.lines.values())
    ends = []
    for what, station in (("origin", origin), ("destination", destination)):
        if not isinstance(station, str) or _name(station) not in stations:
            raise Abstain(f"{what} not on the map: {shown(station)}")
        ends.append(_name(station))
    return city, ends[0], ends[1]


def _map(lines: Any) -> Map:
    try:
        listed = read_json(lines) if isinstance(lines, str) else lines
    except ValueError as problem:
        raise Abstain(f"map not readable: {problem}") from None
    if not isinstance(listed, Mapping) or not listed:
        raise Abstain(f"map not a mapping from lines to stations: {shown(lines)}")
    found: dict[str, frozenset[str]] = {}
    for line, stations in listed.items():
        stations = stations.tolist() if isinstance(stations, np.ndarray) else stations
        if stations is None:  # Parquet gives each row every key that any has
            continue
        if isinstance(stations, str) or not isinstance(stations, Sequence) or not all(map(_is_text, stations)):
            raise Abstain(f"stations of {line!r} are no list of texts: {shown(stations)}")
        found[_name(str(line))] = frozenset(_name(station) for station in stations)
    return Map(found)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _legs(text: str) -> list[Leg]:
    """The sections of a plan; one that lacks a field has it empty, and so serves nothing."""
    legs = []
    for section in _DASHES.split(text):
        fields = {found[1].lower(): _name(found[2].strip(" \t*")) for found in _FIELD.finditer(section)}
        if fields:
            legs.append(Leg(*(fields.get(key, "") for key in ("route name", "departure stop", "arrival stop"))))
    return legs


def _problem(legs: Sequence[Leg], city: Map, start: str, end: str) -> str | None:
    if not legs:
        return "no plan"
    if legs[0].departure != start:
        return "does not begin at the origin"
    if legs[-1].arrival != end:
        return "does not end at the destination"
    for place, leg in enumerate(legs, 1):
        if not city.serves(leg):
            return f"leg {place}: no line {leg.line!r} with both stops"
        if place < len(legs) and leg.arrival != legs[place].departure:
            return f"leg {place}: ends where leg {place + 1} does not begin"
    return None


def _name(name: str) -> str:
    """A name as it is compared.

    >>> _name("Central  Station (Line 2)"), _name("CENTRAL")
    ('central', 'central')
    """
    plain = _STATION.sub("", _BRACKETS.sub("", name.casefold()))
    return "".join(plain.split()) or "".join(name.casefold().split())
