"""Lenses: is the table whole, can it be built, does it focus where it should, and how sharply?

A lens is a table of surfaces in the order that light meets them, from an object far away: JSON, a list or
{"surfaces": […]}, in the reply's last code block, its `<answer>`, or all of it:

    {"radius": 61.5, "thickness": 4.0, "index": 1.5168, "semi_diameter": 12.5, "stop": true}

radius          of curvature, positive if the centre lies behind the surface; null, 0 or "inf" for a plane
thickness       to the next surface; of the last one, to the image
index           of what follows, 1 for air; or "glass", a name in optiland's catalogue
semi_diameter   half of the clear aperture
stop            true at exactly one surface

The targets of a row are a mapping: `focal_length`, `f_number`, and if wanted `field` (half of the angle, degrees),
`back_focal_length` and `track` (the most that all thicknesses may sum to). Lengths are in one unit, say mm.

The tiers of a lexicographic reward are parts of their own, so that a judge can stand in for one:

    tiers(optics.table(), optics.feasible(), optics.focus(), optics.spot())
"""

from guerdon.rewards.optics.lenses import Lenses, read_lens, to_optiland
from guerdon.rewards.optics.paraxial import Paraxial, abcd, paraxial
from guerdon.rewards.optics.polish import polish
from guerdon.rewards.optics.scoring import feasible, focus, spot, table
from guerdon.rewards.optics.tracing import Rays, bundle, rms_spot, trace

__all__ = [
    "Lenses",
    "Paraxial",
    "Rays",
    "abcd",
    "bundle",
    "feasible",
    "focus",
    "paraxial",
    "polish",
    "read_lens",
    "rms_spot",
    "spot",
    "table",
    "to_optiland",
    "trace",
]
