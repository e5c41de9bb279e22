"""Sets of vectors: how far from a reference, how varied, how near to exemplars; and transport between tokens.

    reward      scores                                    against
    own         each rollout's own set (chunks, frames)   a reference set
    group       the rollouts of a group together          a reference set, or nothing
    batch       all rollouts of a batch together          a reference set, or nothing
    exemplar    each rollout's one vector                 exemplars

Each of the first three takes any `measure`: 'frechet', 'kernel', 'transport' or 'vendi'.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.rewards.distribution.measures import (
        Gaussian,
        fitted,
        frechet_distance,
        gaussian,
        kernel_distance,
        likeness,
        transport_distance,
        vendi_score,
    )
    from guerdon.rewards.distribution.sets import batch, exemplar, group, own, set_value
    from guerdon.rewards.distribution.transport import (
        sinkhorn,
        token_cost,
        transported_attention,
        transported_match,
    )

__all__ = [
    "Gaussian",
    "batch",
    "exemplar",
    "fitted",
    "frechet_distance",
    "gaussian",
    "group",
    "kernel_distance",
    "likeness",
    "own",
    "set_value",
    "sinkhorn",
    "token_cost",
    "transport_distance",
    "transported_attention",
    "transported_match",
    "vendi_score",
]

_HOMES = {
    "Gaussian": "measures",
    "batch": "sets",
    "exemplar": "sets",
    "fitted": "measures",
    "frechet_distance": "measures",
    "gaussian": "measures",
    "group": "sets",
    "kernel_distance": "measures",
    "likeness": "measures",
    "own": "sets",
    "set_value": "sets",
    "sinkhorn": "transport",
    "token_cost": "transport",
    "transport_distance": "measures",
    "transported_attention": "transport",
    "transported_match": "transport",
    "vendi_score": "measures",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
