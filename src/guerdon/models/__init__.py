"""Models you train, reward and value models and planners; and judges that you bring, as rewards."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.models.adversarial import (
        MatchHead,
        TokenHead,
        adversarial_reward,
        hinge_loss,
        preference_loss,
        realism,
    )
    from guerdon.models.conciseness import ConcisenessHead, concise, demonstrations, discriminative, rated
    from guerdon.models.error_bound import ErrorBound, FeatureReward
    from guerdon.models.feedback import listening
    from guerdon.models.fitting import fit, language_loss
    from guerdon.models.flow_field import FlowField, flow_deviation, flow_error, flow_loss
    from guerdon.models.heads import DisentangledHeads, LinearHead, QueryHead, states_of, step_states
    from guerdon.models.implicit import at_steps, implicit_loss, implicit_rewards, log_ratio, total, written_runs
    from guerdon.models.list_judge import Achieved, Agreement, achieved, agreement, checklist, listed, marks, tally
    from guerdon.models.multiscale import MultiScalePlanner
    from guerdon.models.necessary import answered, chunk_states, detector
    from guerdon.models.online import implicit_reward
    from guerdon.models.online_flow import flow_reward
    from guerdon.models.pair_judge import preferred, tournament
    from guerdon.models.pairwise import TieAccuracy, bradley_terry, length_bias, tie_accuracy
    from guerdon.models.personal import UserAttention, drop_users, personalize
    from guerdon.models.step_judge import judged_turns, points
    from guerdon.models.stopping import BestWeights
    from guerdon.models.transport_map import TransportMap, fit_transport, map_loss, potential_loss
    from guerdon.models.value import TokenValues, allot, beam_search, fit_values, value_loss

__all__ = [
    "Achieved",
    "Agreement",
    "BestWeights",
    "ConcisenessHead",
    "DisentangledHeads",
    "ErrorBound",
    "FeatureReward",
    "FlowField",
    "LinearHead",
    "MatchHead",
    "MultiScalePlanner",
    "QueryHead",
    "TieAccuracy",
    "TokenHead",
    "TokenValues",
    "TransportMap",
    "UserAttention",
    "achieved",
    "adversarial_reward",
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
    "drop_users",
    "fit",
    "fit_transport",
    "fit_values",
    "flow_deviation",
    "flow_error",
    "flow_loss",
    "flow_reward",
    "hinge_loss",
    "implicit_loss",
    "implicit_reward",
    "implicit_rewards",
    "judged_turns",
    "language_loss",
    "length_bias",
    "listed",
    "listening",
    "log_ratio",
    "map_loss",
    "marks",
    "personalize",
    "points",
    "potential_loss",
    "preference_loss",
    "preferred",
    "rated",
    "realism",
    "states_of",
    "step_states",
    "tally",
    "tie_accuracy",
    "total",
    "tournament",
    "value_loss",
    "written_runs",
]

_HOMES = {
    "Achieved": "list_judge",
    "Agreement": "list_judge",
    "BestWeights": "stopping",
    "ConcisenessHead": "conciseness",
    "DisentangledHeads": "heads",
    "ErrorBound": "error_bound",
    "FeatureReward": "error_bound",
    "FlowField": "flow_field",
    "LinearHead": "heads",
    "MatchHead": "adversarial",
    "MultiScalePlanner": "multiscale",
    "QueryHead": "heads",
    "TieAccuracy": "pairwise",
    "TokenHead": "adversarial",
    "TokenValues": "value",
    "TransportMap": "transport_map",
    "UserAttention": "personal",
    "achieved": "list_judge",
    "adversarial_reward": "adversarial",
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
    "drop_users": "personal",
    "fit": "fitting",
    "fit_transport": "transport_map",
    "fit_values": "value",
    "flow_deviation": "flow_field",
    "flow_error": "flow_field",
    "flow_loss": "flow_field",
    "flow_reward": "online_flow",
    "hinge_loss": "adversarial",
    "implicit_loss": "implicit",
    "implicit_reward": "online",
    "implicit_rewards": "implicit",
    "judged_turns": "step_judge",
    "language_loss": "fitting",
    "length_bias": "pairwise",
    "listed": "list_judge",
    "listening": "feedback",
    "log_ratio": "implicit",
    "map_loss": "transport_map",
    "marks": "list_judge",
    "personalize": "personal",
    "points": "step_judge",
    "potential_loss": "transport_map",
    "preference_loss": "adversarial",
    "preferred": "pair_judge",
    "rated": "conciseness",
    "realism": "adversarial",
    "states_of": "heads",
    "step_states": "heads",
    "tally": "list_judge",
    "tie_accuracy": "pairwise",
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
