from . import (
    clip as clip,
    denoising as denoising,
    denoising_errors as denoising_errors,
    gflownet as gflownet,
    pathwise as pathwise,
)
from .aggregate import denominator as denominator
from .bellman import (
    bellman_loss as bellman_loss,
    conservative_targets as conservative_targets,
    dueling as dueling,
    recovered_rewards as recovered_rewards,
)
from .classification import decoupled_reward as decoupled_reward, rewards_as_labels as rewards_as_labels
from .distill import (
    adaptive_distillation as adaptive_distillation,
    adaptive_strength as adaptive_strength,
    distillation as distillation,
    expected_log_ratio as expected_log_ratio,
    extrapolated_advantages as extrapolated_advantages,
    extrapolated_policy_gradient as extrapolated_policy_gradient,
    tilted as tilted,
)
from .gflownet import (
    reward_balance as reward_balance,
    reward_edge_balance as reward_edge_balance,
    reward_subtrajectory_balance as reward_subtrajectory_balance,
)
from .kl import kl_hinge as kl_hinge, kl_penalty as kl_penalty
from .likelihood import (
    answer_bound_policy_gradient as answer_bound_policy_gradient,
    answer_policy_gradient as answer_policy_gradient,
    answer_weights as answer_weights,
    perplexity as perplexity,
)
from .logp import chosen_logp as chosen_logp
from .off_policy import (
    explorative as explorative,
    hybrid_policy_gradient as hybrid_policy_gradient,
    truncated_importance as truncated_importance,
)
from .policy import policy_gradient as policy_gradient, token_means as token_means
from .preference import (
    group_margins as group_margins,
    group_preference as group_preference,
    pair_loss as pair_loss,
    pair_terms as pair_terms,
    ranked_loss as ranked_loss,
    unpaired_loss as unpaired_loss,
)
from .profile import length_profile as length_profile
from .ratio import importance_ratio as importance_ratio
from .value import Critic as Critic, clipped_value_loss as clipped_value_loss
