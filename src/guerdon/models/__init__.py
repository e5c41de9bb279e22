"""Models you train: reward and value models, and planners."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.models.conciseness import ConcisenessHead, concise, demonstrations, discriminative, rated
    from guerdon.models.flow_field import FlowField, flow_deviation, flow_error, flow_loss
    from guerdon.models.implicit import at_steps, implicit_loss, log_ratio, total, written_runs
    from guerdon.models.multiscale import MultiScalePlanner
    from guerdon.models.online import implicit_reward
    from guerdon.models.online_flow import flow_reward
    from guerdon.models.step_judge import judged_turns, points
    from guerdon.models.value import allot, beam_search, value_loss

__all__ = [
    "ConcisenessHead",
    "FlowField",
    "MultiScalePlanner",
    "allot",
    "at_steps",
    "beam_search",
    "concise",
    "demonstrations",
    "discriminative",
    "flow_deviation",
    "flow_error",
    "flow_loss",
    "flow_reward",
    "implicit_loss",
    "implicit_reward",
    "judged_turns",
    "log_ratio",
    "points",
    "rated",
    "total",
    "value_loss",
    "written_runs",
]

_HOMES = {
    "ConcisenessHead": "conciseness",
    "FlowField": "flow_field",
    "MultiScalePlanner": "multiscale",
    "allot": "value",
    "at_steps": "implicit",
    "beam_search": "value",
    "concise": "conciseness",
    "demonstrations": "conciseness",
    "discriminative": "conciseness",
    "flow_deviation": "flow_field",
    "flow_error": "flow_field",
    "flow_loss": "flow_field",
    "flow_reward": "online_flow",
    "implicit_loss": "implicit",
    "implicit_reward": "online",
    "judged_turns": "step_judge",
    "log_ratio": "implicit",
    "points": "step_judge",
    "rated": "conciseness",
    "total": "implicit",
    "value_loss": "value",
    "written_runs": "implicit",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
