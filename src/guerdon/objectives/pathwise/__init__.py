"""The differentiable path: a reward's gradient goes back through the samples into the model that made them.

pathwise_gradient            chain, reward and loss in one
denoise · one_step           samples with a graph: of the last steps of a chain, of one estimate
balanced · guidance · spsa · segmental · of_rollouts     rewards: functions of samples with a gradient
consistency_loss             a condition read back from one-step estimates: masked, weighed by how sure it is
masked_chain                 tokens instead of pixels, by Gumbel-softmax
directional                  a reward of embeddings, corrected along one learned direction
self_correction              a chain gone astray, without a reward
drift · absorbing            a reward's gradient while sampling, and its distillation into the policy
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.objectives.pathwise.chains import denoise, last_part, noised, one_step, recovered, truncation
    from guerdon.objectives.pathwise.consistency import condition_error, consistency_loss, disagreement
    from guerdon.objectives.pathwise.corrections import directional, self_correction
    from guerdon.objectives.pathwise.discrete import masked_chain, rate_kl, soft_step, straight_through
    from guerdon.objectives.pathwise.drifts import absorbing, drift
    from guerdon.objectives.pathwise.gradient import parameter_drift, pathwise_gradient, reward_loss
    from guerdon.objectives.pathwise.rewards import (
        balanced,
        check_differentiable,
        guidance,
        of_rollouts,
        segmental,
        spsa,
    )

_HOMES = {
    "absorbing": "drifts",
    "balanced": "rewards",
    "check_differentiable": "rewards",
    "condition_error": "consistency",
    "consistency_loss": "consistency",
    "denoise": "chains",
    "directional": "corrections",
    "disagreement": "consistency",
    "drift": "drifts",
    "guidance": "rewards",
    "last_part": "chains",
    "masked_chain": "discrete",
    "noised": "chains",
    "of_rollouts": "rewards",
    "one_step": "chains",
    "parameter_drift": "gradient",
    "pathwise_gradient": "gradient",
    "rate_kl": "discrete",
    "recovered": "chains",
    "reward_loss": "gradient",
    "segmental": "rewards",
    "self_correction": "corrections",
    "soft_step": "discrete",
    "spsa": "rewards",
    "straight_through": "discrete",
    "truncation": "chains",
}

__all__ = [
    "absorbing",
    "balanced",
    "check_differentiable",
    "condition_error",
    "consistency_loss",
    "denoise",
    "directional",
    "disagreement",
    "drift",
    "guidance",
    "last_part",
    "masked_chain",
    "noised",
    "of_rollouts",
    "one_step",
    "parameter_drift",
    "pathwise_gradient",
    "rate_kl",
    "recovered",
    "reward_loss",
    "segmental",
    "self_correction",
    "soft_step",
    "spsa",
    "straight_through",
    "truncation",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
