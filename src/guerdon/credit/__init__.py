"""Credit: from scores and the structure of a batch to advantages. Pure functions of torch tensors.

`credit.rank`, which turns comparisons into scores, has a door of its own and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.credit import rank
    from guerdon.credit.attribution import grounded_rewards, redistribute, renormalize, subgoal_bonus, subgoal_potential
    from guerdon.credit.budget import budget_relative, stretches
    from guerdon.credit.completions import branch_extremes, granular_relative, turning_points, turning_steps
    from guerdon.credit.cuts import cut_at
    from guerdon.credit.decompose import fit_steps, latent_factors, sample_steps, sampled_loss, sum_loss
    from guerdon.credit.first_error import Spliced, diversity, leaks, locate, repairable, splice
    from guerdon.credit.forks import branches, choose_fork, fork_relative, keep_forks, shared_once, tree_rewards
    from guerdon.credit.group import group_relative, length_relative
    from guerdon.credit.normalize import rescale, unit_returns, whiten
    from guerdon.credit.potentials import (
        best_of,
        delta_rewards,
        potential_advantages,
        progress,
        prover_quality,
        regret,
        repetition_slope,
        step_potential,
    )
    from guerdon.credit.scans import min_form, returns
    from guerdon.credit.tokens import reinforce_success, spread
    from guerdon.credit.tree import PrefixTree, branch_relative, prefix_tree
    from guerdon.credit.windows import prefix_error_rates, smooth, window_credit

__all__ = [
    "PrefixTree",
    "Spliced",
    "best_of",
    "branch_extremes",
    "branch_relative",
    "branches",
    "budget_relative",
    "choose_fork",
    "cut_at",
    "delta_rewards",
    "diversity",
    "fit_steps",
    "fork_relative",
    "granular_relative",
    "grounded_rewards",
    "group_relative",
    "keep_forks",
    "latent_factors",
    "leaks",
    "length_relative",
    "locate",
    "min_form",
    "potential_advantages",
    "prefix_error_rates",
    "prefix_tree",
    "progress",
    "prover_quality",
    "rank",
    "redistribute",
    "regret",
    "reinforce_success",
    "renormalize",
    "repairable",
    "repetition_slope",
    "rescale",
    "returns",
    "sample_steps",
    "sampled_loss",
    "shared_once",
    "smooth",
    "splice",
    "spread",
    "step_potential",
    "stretches",
    "subgoal_bonus",
    "subgoal_potential",
    "sum_loss",
    "tree_rewards",
    "turning_points",
    "turning_steps",
    "unit_returns",
    "whiten",
    "window_credit",
]

_HOMES = {
    "PrefixTree": "tree",
    "Spliced": "first_error",
    "best_of": "potentials",
    "branch_extremes": "completions",
    "branch_relative": "tree",
    "branches": "forks",
    "budget_relative": "budget",
    "choose_fork": "forks",
    "cut_at": "cuts",
    "delta_rewards": "potentials",
    "diversity": "first_error",
    "fit_steps": "decompose",
    "fork_relative": "forks",
    "granular_relative": "completions",
    "grounded_rewards": "attribution",
    "group_relative": "group",
    "keep_forks": "forks",
    "latent_factors": "decompose",
    "leaks": "first_error",
    "length_relative": "group",
    "locate": "first_error",
    "min_form": "scans",
    "potential_advantages": "potentials",
    "prefix_error_rates": "windows",
    "prefix_tree": "tree",
    "progress": "potentials",
    "prover_quality": "potentials",
    "redistribute": "attribution",
    "regret": "potentials",
    "reinforce_success": "tokens",
    "renormalize": "attribution",
    "repairable": "first_error",
    "repetition_slope": "potentials",
    "rescale": "normalize",
    "returns": "scans",
    "sample_steps": "decompose",
    "sampled_loss": "decompose",
    "shared_once": "forks",
    "smooth": "windows",
    "splice": "first_error",
    "spread": "tokens",
    "step_potential": "potentials",
    "stretches": "budget",
    "subgoal_bonus": "attribution",
    "subgoal_potential": "attribution",
    "sum_loss": "decompose",
    "tree_rewards": "forks",
    "turning_points": "completions",
    "turning_steps": "completions",
    "unit_returns": "normalize",
    "whiten": "normalize",
    "window_credit": "windows",
}


def __getattr__(name: str) -> Any:
    if name == "rank":
        return import_module(f"{__name__}.rank")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
