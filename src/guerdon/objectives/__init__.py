"""Objectives: from log-probabilities and advantages to a loss. Pure functions of torch tensors."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.objectives import clip
    from guerdon.objectives.aggregate import denominator
    from guerdon.objectives.kl import kl_penalty
    from guerdon.objectives.policy import policy_gradient, token_means
    from guerdon.objectives.ratio import importance_ratio

__all__ = ["clip", "denominator", "importance_ratio", "kl_penalty", "policy_gradient", "token_means"]

_HOMES = {
    "denominator": "aggregate",
    "importance_ratio": "ratio",
    "kl_penalty": "kl",
    "policy_gradient": "policy",
    "token_means": "policy",
}


def __getattr__(name: str) -> Any:
    if name == "clip":
        return import_module(f"{__name__}.clip")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
