"""What a part is called, and how to find it by that name.

A part's one name — in specs, recipes, the catalogue and errors — is where it is imported from,
under `guerdon`, with a leading `rewards.` left out: `math.answer`, `shaping.center`,
`credit.group_relative`. There is no registry: a name resolves by import.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any

from guerdon.core.errors import SpecError, nearest

ROOMS = (
    "algebra",
    "shaping",
    "credit",
    "objectives",
    "rewards",
    "models",
    "judges",
    "search",
    "data",
    "audit",
    "bench",
    "design",
    "train",
)


def name_of(part: Any) -> str:
    """The name of a part: the shortest door under guerdon it can be imported from, else its full path."""
    module, attribute = part.__module__, part.__qualname__
    if not module.startswith("guerdon."):
        return f"{module}.{attribute}"
    segments = module.split(".")
    for depth in range(2, len(segments) + 1):
        door = ".".join(segments[:depth])
        if door != "guerdon.rewards" and getattr(importlib.import_module(door), attribute, None) is part:
            return f"{door}.{attribute}".removeprefix("guerdon.").removeprefix("rewards.")
    return f"{module}.{attribute}".removeprefix("guerdon.").removeprefix("rewards.")


def resolve(name: str, *, allow_import: bool = False) -> Any:
    """The part of a name.

    Args:
        name: as given by `name_of`.
        allow_import: also import parts from outside guerdon. Importing runs code: only for specs
            you trust.

    Raises:
        SpecError: if there is no such part; names the nearest one.
    """
    door, _, attribute = name.rpartition(".")
    inside = f"guerdon.{door}" if door.split(".")[0] in ROOMS else f"guerdon.rewards.{door}"
    written = all(segment.isidentifier() for segment in name.split(".")) and door and not attribute.startswith("_")
    for path in (inside, *([door] if allow_import else [])) if written else ():
        try:
            found = getattr(importlib.import_module(path), attribute, None)
        except ModuleNotFoundError as error:
            if error.name is None or not (path == error.name or path.startswith(error.name + ".")):
                raise
            continue
        if found is not None and not inspect.ismodule(found):
            return found
    outside = "" if allow_import else "; a part from outside guerdon needs --allow-import"
    raise SpecError(f"there is no part {name!r}: {nearest(name, names())}{outside}")


@cache
def names() -> tuple[str, ...]:
    """The names of all parts a recipe or spec can use: rewards and shapers."""
    found = []
    for room in ("rewards", "shaping"):
        package = importlib.import_module(f"guerdon.{room}")
        modules = [package] if room == "shaping" else []
        if room == "rewards":
            modules = [
                importlib.import_module(f"guerdon.rewards.{m.name}") for m in pkgutil.iter_modules(package.__path__)
            ]
        for module in modules:
            found += [name_of(value) for value in public(module).values() if _usable(value)]
    return tuple(sorted(set(found)))


def public(module: Any) -> dict[str, Any]:
    """What a module shows: its `__all__`, or everything without a leading underscore."""
    listed = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    return {name: getattr(module, name) for name in listed}


def _usable(value: Any) -> bool:
    return hasattr(value, "__part__")
