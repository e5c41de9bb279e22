"""Models you train, reward and value models and planners; and judges that you bring, as rewards."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.models.conciseness import ConcisenessHead, concise, demonstrations, discriminative, rated
    from guerdon.models.feedback import listening
    from guerdon.models.fitting import fit, language_loss
    from guerdon.models.flow_field import FlowField, flow_deviation, flow_error, flow_loss
    from guerdon.models.heads import DisentangledHeads, LinearHead, states_of, step_states
    from guerdon.models.implicit import at_steps, implicit_loss, implicit_rewards, log_ratio, total, written_runs
    from guerdon.models.list_judge import Achieved, Agreement, achieved, agreement, checklist, listed, marks, tally
    from guerdon.models.multiscale import MultiScalePlanner
    from guerdon.models.necessary import answered, chunk_states, detector
    from guerdon.models.online import implicit_reward
    from guerdon.models.online_flow import flow_reward
    from guerdon.models.pair_judge import preferred, tournament
    from guerdon.models.pairwise import bradley_terry, length_bias
    from guerdon.models.step_judge import judged_turns, points
    from guerdon.models.value import TokenValues, allot, beam_search, fit_values, value_loss

__all__ = [
    "Achieved",
    "Agreement",
    "ConcisenessHead",
    "DisentangledHeads",
    "FlowField",
    "LinearHead",
    "MultiScalePlanner",
    "TokenValues",
    "achieved",
    "agreement",
    "allot",
    "answered",
    "at_steps",
    "beam_search",
    "bradley_terry",
    "checklist",
    "chunk_states",
    "concise",
    "demonstrations",
    "detector",
    "discriminative",
    "fit",
    "fit_values",
    "flow_deviation",
    "flow_error",
    "flow_loss",
    "flow_reward",
    "implicit_loss",
    "implicit_reward",
    "implicit_rewards",
    "judged_turns",
    "language_loss",
    "length_bias",
    "listed",
    "listening",
    "log_ratio",
    "marks",
    "points",
    "preferred",
    "rated",
    "states_of",
    "step_states",
    "tally",
    "total",
    "tournament",
    "value_loss",
    "written_runs",
]

_HOMES = {
    "Achieved": "list_judge",
    "Agreement": "list_judge",
    "ConcisenessHead": "conciseness",
    "DisentangledHeads": "heads",
    "FlowField": "flow_field",
    "LinearHead": "heads",
    "MultiScalePlanner": "multiscale",
    "TokenValues": "value",
    "achieved": "list_judge",
    "agreement": "list_judge",
    "allot": "value",
    "answered": "necessary",
    "at_steps": "implicit",
    "beam_search": "value",
    "bradley_terry": "pairwise",
    "checklist": "list_judge",
    "chunk_states": "necessary",
    "concise": "conciseness",
    "demonstrations": "conciseness",
    "detector": "necessary",
    "discriminative": "conciseness",
    "fit": "fitting",
    "fit_values": "value",
    "flow_deviation": "flow_field",
    "flow_error": "flow_field",
    "flow_loss": "flow_field",
    "flow_reward": "online_flow",
    "implicit_loss": "implicit",
    "implicit_reward": "online",
    "implicit_rewards": "implicit",
    "judged_turns": "step_judge",
    "language_loss": "fitting",
    "length_bias": "pairwise",
    "listed": "list_judge",
    "listening": "feedback",
    "log_ratio": "implicit",
    "marks": "list_judge",
    "points": "step_judge",
    "preferred": "pair_judge",
    "rated": "conciseness",
    "states_of": "heads",
    "step_states": "heads",
    "tally": "list_judge",
    "total": "implicit",
    "tournament": "pair_judge",
    "value_loss": "value",
    "written_runs": "implicit",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
