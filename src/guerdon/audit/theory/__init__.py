"""What is known in closed form about optimising a reward, as numbers to compare a run with. NumPy only."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.audit.theory.curation import Curated, curated_retraining, curation_gain
    from guerdon.audit.theory.dynamics import flow_direction, mass_flow, sampled_dynamics, softmax_flow, stages
    from guerdon.audit.theory.passes import (
        accuracy_histogram,
        bootstrap,
        coverage,
        crossover,
        efficiency_gap,
        pass_at_k,
        pass_curve,
    )
    from guerdon.audit.theory.tilting import Tilt, best_of_n, best_of_n_kl_bound, divergence, frontier, regret, tilt
    from guerdon.audit.theory.traces import (
        anti_concentration,
        bilevel_reward,
        planted_rewards,
        q_variance,
        trace_variance,
        verification_gap,
    )

_HOMES = {
    "Curated": "curation",
    "Tilt": "tilting",
    "accuracy_histogram": "passes",
    "anti_concentration": "traces",
    "best_of_n": "tilting",
    "best_of_n_kl_bound": "tilting",
    "bilevel_reward": "traces",
    "bootstrap": "passes",
    "coverage": "passes",
    "crossover": "passes",
    "curated_retraining": "curation",
    "curation_gain": "curation",
    "divergence": "tilting",
    "efficiency_gap": "passes",
    "flow_direction": "dynamics",
    "frontier": "tilting",
    "mass_flow": "dynamics",
    "pass_at_k": "passes",
    "pass_curve": "passes",
    "planted_rewards": "traces",
    "q_variance": "traces",
    "regret": "tilting",
    "sampled_dynamics": "dynamics",
    "softmax_flow": "dynamics",
    "stages": "dynamics",
    "tilt": "tilting",
    "trace_variance": "traces",
    "verification_gap": "traces",
}

__all__ = [
    "Curated",
    "Tilt",
    "accuracy_histogram",
    "anti_concentration",
    "best_of_n",
    "best_of_n_kl_bound",
    "bilevel_reward",
    "bootstrap",
    "coverage",
    "crossover",
    "curated_retraining",
    "curation_gain",
    "divergence",
    "efficiency_gap",
    "flow_direction",
    "frontier",
    "mass_flow",
    "pass_at_k",
    "pass_curve",
    "planted_rewards",
    "q_variance",
    "regret",
    "sampled_dynamics",
    "softmax_flow",
    "stages",
    "tilt",
    "trace_variance",
    "verification_gap",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
