"""Scores to scores: bounding, centring, normalising, length, gates over groups, schedules, steps.

A shaper is a frozen dataclass of options; calling it is pure. `reward >> shaper` applies it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from guerdon.shaping.groups import curiosity, pool, top_groups
from guerdon.shaping.kinds import onto
from guerdon.shaping.length import brevity, overlong
from guerdon.shaping.length_group import group_length
from guerdon.shaping.length_history import history_length
from guerdon.shaping.length_target import monitored_length, target_length
from guerdon.shaping.noise import flip
from guerdon.shaping.normalization import normalize, tilt
from guerdon.shaping.pointwise import bound, center, clip, quantize, threshold
from guerdon.shaping.reference import relative
from guerdon.shaping.schedule import anneal
from guerdon.shaping.shaper import Shaper
from guerdon.shaping.steps import delta, gain, needed, pin_last
from guerdon.shaping.teams import team_spirit
from guerdon.shaping.uncertainty import trust

if TYPE_CHECKING:
    from guerdon.shaping.bilevel import blend, implicit_gradient, reinforce_update

__all__ = [
    "Shaper",
    "anneal",
    "blend",
    "bound",
    "brevity",
    "center",
    "clip",
    "curiosity",
    "delta",
    "flip",
    "gain",
    "group_length",
    "history_length",
    "implicit_gradient",
    "monitored_length",
    "needed",
    "normalize",
    "onto",
    "overlong",
    "pin_last",
    "pool",
    "quantize",
    "reinforce_update",
    "relative",
    "target_length",
    "team_spirit",
    "threshold",
    "tilt",
    "top_groups",
    "trust",
]

_NEEDS_TORCH = ("blend", "implicit_gradient", "reinforce_update")


def __getattr__(name: str) -> Any:
    if name in _NEEDS_TORCH:
        return getattr(import_module(f"{__name__}.bilevel"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
