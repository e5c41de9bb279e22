"""Objectives: from log-probabilities and advantages to a loss. Pure functions of torch tensors."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.objectives import clip, denoising, denoising_errors, gflownet, pathwise
    from guerdon.objectives.aggregate import denominator
    from guerdon.objectives.bellman import bellman_loss, conservative_targets, dueling, recovered_rewards
    from guerdon.objectives.classification import decoupled_reward, rewards_as_labels
    from guerdon.objectives.distill import (
        adaptive_distillation,
        adaptive_strength,
        distillation,
        expected_log_ratio,
        extrapolated_advantages,
        extrapolated_policy_gradient,
        tilted,
    )
    from guerdon.objectives.gflownet import reward_balance
    from guerdon.objectives.kl import kl_hinge, kl_penalty
    from guerdon.objectives.likelihood import answer_weights, perplexity
    from guerdon.objectives.logp import chosen_logp
    from guerdon.objectives.off_policy import explorative, hybrid_policy_gradient, truncated_importance
    from guerdon.objectives.policy import policy_gradient, token_means
    from guerdon.objectives.preference import group_margins, pair_loss, pair_terms, ranked_loss, unpaired_loss
    from guerdon.objectives.profile import length_profile
    from guerdon.objectives.ratio import importance_ratio
    from guerdon.objectives.value import Critic, clipped_value_loss

_HOMES = {
    "Critic": "value",
    "adaptive_distillation": "distill",
    "adaptive_strength": "distill",
    "answer_weights": "likelihood",
    "bellman_loss": "bellman",
    "chosen_logp": "logp",
    "clipped_value_loss": "value",
    "conservative_targets": "bellman",
    "decoupled_reward": "classification",
    "denominator": "aggregate",
    "distillation": "distill",
    "dueling": "bellman",
    "expected_log_ratio": "distill",
    "explorative": "off_policy",
    "extrapolated_advantages": "distill",
    "extrapolated_policy_gradient": "distill",
    "group_margins": "preference",
    "hybrid_policy_gradient": "off_policy",
    "importance_ratio": "ratio",
    "kl_hinge": "kl",
    "kl_penalty": "kl",
    "length_profile": "profile",
    "pair_loss": "preference",
    "pair_terms": "preference",
    "perplexity": "likelihood",
    "policy_gradient": "policy",
    "ranked_loss": "preference",
    "recovered_rewards": "bellman",
    "reward_balance": "gflownet",
    "rewards_as_labels": "classification",
    "tilted": "distill",
    "token_means": "policy",
    "truncated_importance": "off_policy",
    "unpaired_loss": "preference",
}

_MODULES = ("clip", "denoising", "denoising_errors", "gflownet", "pathwise")

__all__ = [
    "Critic",
    "adaptive_distillation",
    "adaptive_strength",
    "answer_weights",
    "bellman_loss",
    "chosen_logp",
    "clip",
    "clipped_value_loss",
    "conservative_targets",
    "decoupled_reward",
    "denoising",
    "denoising_errors",
    "denominator",
    "distillation",
    "dueling",
    "expected_log_ratio",
    "explorative",
    "extrapolated_advantages",
    "extrapolated_policy_gradient",
    "gflownet",
    "group_margins",
    "hybrid_policy_gradient",
    "importance_ratio",
    "kl_hinge",
    "kl_penalty",
    "length_profile",
    "pair_loss",
    "pair_terms",
    "pathwise",
    "perplexity",
    "policy_gradient",
    "ranked_loss",
    "recovered_rewards",
    "reward_balance",
    "rewards_as_labels",
    "tilted",
    "token_means",
    "truncated_importance",
    "unpaired_loss",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
