"""Tables of surfaces, read and stacked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.core.errors import MissingExtra
from guerdon.core.parsing import Completion, last_fenced, last_tag, passage, read_json, shown, text_of

if TYPE_CHECKING:
    from optiland.optic.optic import Optic

Catalogue = Literal["none", "optiland"]

MASKED = "?"  # a cell that is to be filled in
MOST = 64  # surfaces
CELLS = ("radius", "thickness", "index", "glass", "semi_diameter", "stop")

_GLASS = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,39}")


class Lenses(NamedTuple):
    """Some lenses; behind the last surface of one stand planes between equal media, which change no ray.

    Args:
        curvature: 1/radius, 0 for a plane.
        thickness: behind each surface.
        indices: of what is behind each surface; in front of the first is air.
        semi_diameter: 0 behind the last surface.
        stop: the number of the surface that is the stop.
        used: True at a surface.
    """

    curvature: Float[np.ndarray[Any, Any], "n s"]
    thickness: Float[np.ndarray[Any, Any], "n s"]
    indices: Float[np.ndarray[Any, Any], "n s"]
    semi_diameter: Float[np.ndarray[Any, Any], "n s"]
    stop: Int[np.ndarray[Any, Any], "n"]
    used: Bool[np.ndarray[Any, Any], "n s"]

    @classmethod
    def of(cls, tables: Sequence[Sequence[Mapping[str, Any]]], catalogue: Catalogue = "none") -> Lenses:
        """Tables that `read_lens` gave, stacked."""
        n, s = len(tables), max(map(len, tables), default=0)
        found = {name: np.zeros((n, s)) for name in ("curvature", "thickness", "semi_diameter")}
        indices, used = np.ones((n, s)), np.zeros((n, s), bool)
        stop = np.zeros(n, np.int64)
        for row, surfaces in enumerate(tables):
            for k, surface in enumerate(surfaces):
                radius = surface["radius"]
                found["curvature"][row, k] = 0.0 if math.isinf(radius) else 1 / radius
                found["thickness"][row, k] = surface["thickness"]
                found["semi_diameter"][row, k] = surface["semi_diameter"]
                indices[row, k] = refractive_index(surface["glass"]) if "glass" in surface else surface["index"]
                used[row, k] = True
                stop[row] = k if surface["stop"] else stop[row]
            if surfaces:
                indices[row, len(surfaces) :] = indices[row, len(surfaces) - 1]
        return cls(indices=indices, stop=stop, used=used, **found)

    def select(self, rows: Any) -> Lenses:
        """Some of them."""
        return Lenses(*(column[rows] for column in self))


def read_lens(completion: Completion | Any, *, catalogue: Catalogue = "none") -> list[dict[str, Any]]:
    """The table of a reply: radius (inf for a plane), thickness, index or glass, semi_diameter and stop, each surface.

    Args:
        completion: the reply, or the table itself.
        catalogue: 'optiland' also takes names of glasses.

    Raises:
        ValueError: if there is none, or a cell is missing or cannot be meant; says which.

    >>> read_lens('[{"radius": 50, "thickness": 3, "index": 1.5, "semi_diameter": 9, "stop": true}]')[0]["index"]
    1.5

    Source: the lens tables of OPTIAGENT (arXiv 2602.23761).
    """
    table = written(completion)
    if not 1 <= len(table) <= MOST:
        raise ValueError(f"a lens has 1 to {MOST} surfaces, not {len(table)}")
    surfaces = [_surface(surface, place, catalogue) for place, surface in enumerate(table, 1)]
    if sum(surface["stop"] for surface in surfaces) != 1:
        raise ValueError("the stop is at exactly one surface")
    return surfaces


def written(completion: Completion | Any) -> list[Mapping[str, Any]]:
    """The surfaces of a table as they are written, cells unread.

    Raises:
        ValueError: if there is no table.
    """
    if isinstance(completion, str) or _is_chat(completion):
        reply = passage(text_of(completion), "reply") or ""
        found: Any = read_json(last_fenced(reply, "", "json") or last_tag(reply, "answer") or reply)
    else:
        found = completion
    table = found.get("surfaces") if isinstance(found, Mapping) else found
    table = table.tolist() if isinstance(table, np.ndarray) else table
    if not isinstance(table, list) or not all(isinstance(surface, Mapping) for surface in table):
        raise ValueError("no list of surfaces")
    return table


def _is_chat(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(m, Mapping) and "content" in m for m in value)


def _surface(surface: Mapping[str, Any], place: int, catalogue: Catalogue) -> dict[str, Any]:
    for name in surface:
        if name not in CELLS:
            raise ValueError(f"surface {place}: there is no cell {shown(name)}")
    found: dict[str, Any] = {"radius": _radius(surface, place), "stop": surface.get("stop") or False}
    if not isinstance(found["stop"], bool):
        raise ValueError(f"surface {place}: stop is true or false, not {shown(surface['stop'])}")
    for name in ("thickness", "semi_diameter"):
        found[name] = _number(surface, name, place)
    glass = surface.get("glass")
    if glass is None or catalogue == "none":
        return {**found, "index": _number(surface, "index", place)}
    if not isinstance(glass, str) or not _GLASS.fullmatch(glass) or not refractive_index(glass):
        raise ValueError(f"surface {place}: there is no glass {shown(glass)}")
    return {**found, "glass": glass}


def _radius(surface: Mapping[str, Any], place: int) -> float:
    if "radius" not in surface:
        raise ValueError(f"surface {place}: the cell 'radius' is missing")
    if surface["radius"] is None or surface["radius"] in ("inf", "infinity"):
        return math.inf
    return _number(surface, "radius", place) or math.inf


def _number(surface: Mapping[str, Any], name: str, place: int) -> float:
    value = surface.get(name)
    if value is None:
        raise ValueError(f"surface {place}: the cell {name!r} is missing")
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not abs(float(value)) < 1e9:
        raise ValueError(f"surface {place}: {name} is no number below 1e9: {shown(value)}")
    found = float(value)
    if name == "radius" and 0 < abs(found) < 1e-6:
        raise ValueError(f"surface {place}: a radius of {found:g} is none")
    return found


@lru_cache(4096)
def refractive_index(glass: str, wavelength: float = 0.5876) -> float:
    """The index of a glass at a wavelength in µm, from optiland's catalogue; 0 if there is no such glass.

    Raises:
        MissingExtra: without optiland.
    """
    try:
        from optiland.materials import Material
    except ModuleNotFoundError:
        raise MissingExtra("optics with catalogue='optiland'", "optics") from None
    try:
        index = float(np.squeeze(Material(glass).n(wavelength)))
    except Exception:  # the catalogue raises in several ways for a glass that it has not, and for one without data
        return 0.0
    return index if math.isfinite(index) else 0.0


def to_optiland(
    table: Sequence[Mapping[str, Any]], *, aperture: float, field: float = 0.0, wavelength: float = 0.5876
) -> Optic:
    """A lens as an optic of optiland, for its analyses, plots and optimisers.

    Args:
        table: as `read_lens` gives it.
        aperture: the diameter of the entrance pupil.
        field: half of the angle, degrees; with it there are two fields, the axis and this.
        wavelength: µm.

    Raises:
        MissingExtra: without optiland.

    Source: optiland (HarrisonKramer/optiland).
    """
    try:
        from optiland.materials import IdealMaterial
        from optiland.optic.optic import Optic
    except ModuleNotFoundError:
        raise MissingExtra("optics.to_optiland", "optics") from None
    optic = Optic()
    optic.surfaces.add(index=0, thickness=np.inf)
    for place, surface in enumerate(table, 1):
        index = refractive_index(surface["glass"], wavelength) if "glass" in surface else surface["index"]
        optic.surfaces.add(
            index=place,
            radius=surface["radius"],
            thickness=surface["thickness"],
            material=IdealMaterial(index),
            is_stop=surface["stop"],
        )
    optic.surfaces.add(index=len(table) + 1)
    optic.set_aperture("EPD", aperture)
    optic.fields.set_type("angle")
    for angle in (0.0, field)[: 2 if field else 1]:
        optic.fields.add(y=angle)
    optic.wavelengths.add(wavelength, is_primary=True)
    return optic
