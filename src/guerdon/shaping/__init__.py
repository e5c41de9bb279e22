"""Scores to scores: bounding, centring, length, schedules.

A shaper is a frozen dataclass of options; calling it is pure. `reward >> shaper` applies it.
"""

from guerdon.shaping.length import brevity, overlong
from guerdon.shaping.pointwise import bound, center, clip
from guerdon.shaping.shaper import Shaper

__all__ = ["Shaper", "bound", "brevity", "center", "clip", "overlong"]
