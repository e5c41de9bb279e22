"""What can be checked or measured: one module per domain, imported when it is first named."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = [
    "agreement",
    "caption",
    "choice",
    "code",
    "distribution",
    "driving",
    "embedding",
    "format",
    "geometry",
    "graphics",
    "grounding",
    "hdl",
    "image",
    "layout",
    "likelihood",
    "math",
    "motion",
    "optics",
    "pattern",
    "probe",
    "recorded",
    "relevance",
    "speech",
    "sql",
    "text",
    "tools",
    "transit",
    "turns",
    "video",
    "views",
    "watermark",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"guerdon.rewards.{name}")
    raise AttributeError(f"module 'guerdon.rewards' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
