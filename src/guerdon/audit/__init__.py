"""Audit: is this reward safe to optimise, and what can optimising it bring?"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["diversity", "theory"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"guerdon.audit.{name}")
    raise AttributeError(f"module 'guerdon.audit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
