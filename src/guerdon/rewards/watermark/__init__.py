"""Marks in a text that a detector finds: green lists, how they bias what is written, and rewards for choosing them.

A green list says of every token of a vocabulary whether it is green. Text written with the green tokens made likelier
has more of them than chance; how many more is the detection score. Whoever chooses the lists is paid by how far the
score of marked text is from that of other text, and never for a high score by itself: a list of all tokens has that.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from guerdon.rewards.watermark.anchored import anchored, balance
from guerdon.rewards.watermark.detection import Detection, detect, gate, green_share

if TYPE_CHECKING:
    from guerdon.rewards.watermark.marking import biased, green_lists, token_dimensions

__all__ = [
    "Detection",
    "anchored",
    "balance",
    "biased",
    "detect",
    "gate",
    "green_lists",
    "green_share",
    "token_dimensions",
]

_NEEDS_TORCH = ("biased", "green_lists", "token_dimensions")


def __getattr__(name: str) -> Any:
    if name in _NEEDS_TORCH:
        return getattr(import_module(f"{__name__}.marking"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
