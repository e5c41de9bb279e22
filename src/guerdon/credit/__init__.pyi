from . import rank as rank
from .attribution import (
    grounded_rewards as grounded_rewards,
    redistribute as redistribute,
    renormalize as renormalize,
    subgoal_bonus as subgoal_bonus,
    subgoal_potential as subgoal_potential,
)
from .budget import budget_relative as budget_relative, stretches as stretches
from .completions import (
    branch_extremes as branch_extremes,
    granular_relative as granular_relative,
    turning_points as turning_points,
    turning_steps as turning_steps,
)
from .cuts import cut_at as cut_at
from .decompose import (
    fit_steps as fit_steps,
    latent_factors as latent_factors,
    sample_steps as sample_steps,
    sampled_loss as sampled_loss,
    sum_loss as sum_loss,
)
from .first_error import (
    Spliced as Spliced,
    diversity as diversity,
    leaks as leaks,
    locate as locate,
    repairable as repairable,
    splice as splice,
)
from .forks import (
    branches as branches,
    choose_fork as choose_fork,
    fork_relative as fork_relative,
    keep_forks as keep_forks,
    shared_once as shared_once,
    tree_rewards as tree_rewards,
)
from .group import group_relative as group_relative, length_relative as length_relative
from .normalize import rescale as rescale, unit_returns as unit_returns, whiten as whiten
from .potentials import (
    best_of as best_of,
    delta_rewards as delta_rewards,
    potential_advantages as potential_advantages,
    progress as progress,
    prover_quality as prover_quality,
    regret as regret,
    repetition_slope as repetition_slope,
    step_potential as step_potential,
)
from .scans import min_form as min_form, returns as returns
from .tokens import reinforce_success as reinforce_success, spread as spread
from .tree import PrefixTree as PrefixTree, branch_relative as branch_relative, prefix_tree as prefix_tree
from .windows import prefix_error_rates as prefix_error_rates, smooth as smooth, window_credit as window_credit
