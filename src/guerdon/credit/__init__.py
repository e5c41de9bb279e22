"""Credit: from scores and the structure of a batch to advantages. Pure functions of torch tensors."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.credit.group import group_relative
    from guerdon.credit.tokens import spread

__all__ = ["group_relative", "spread"]

_HOMES = {"group_relative": "group", "spread": "tokens"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
