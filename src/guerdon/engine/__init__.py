"""Running the leaves of a reward at speed: each unit under its own deadline, no failure ever a number.

The names are imported when they are first used: a worker process imports this package and needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.engine.engine import Engine, default, require, score

__all__ = ["Engine", "default", "require", "score"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("guerdon.engine.engine"), name)
    raise AttributeError(f"module 'guerdon.engine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
