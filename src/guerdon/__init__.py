"""Everything between a generation and a gradient: rewards that compose, cannot lie and train policies."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("guerdon")

_PUBLIC = {
    "Abstain": "core",
    "Context": "core",
    "GuerdonError": "core",
    "Rollouts": "core",
    "Scores": "core",
    "Engine": "engine",
    "Leaf": "algebra",
    "Learned": "algebra",
    "Reward": "algebra",
    "available": "algebra",
    "gate": "algebra",
    "geometric": "algebra",
    "harmonic": "algebra",
    "lexicographic": "algebra",
    "product": "algebra",
    "reduce": "algebra",
    "reward": "algebra",
    "route": "algebra",
    "tiers": "algebra",
    "weigh": "algebra",
}
_ROOMS = ("algebra", "core", "credit", "engine", "objectives", "rewards", "shaping", "train")

__all__ = ["__version__", *_PUBLIC, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"guerdon.{_PUBLIC[name]}"), name)
    if name in _ROOMS:
        return import_module(f"guerdon.{name}")
    raise AttributeError(f"module 'guerdon' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
