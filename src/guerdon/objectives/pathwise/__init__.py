"""The differentiable path: a reward's gradient goes back through the samples into the model that made them.

    chain              a denoising chain, of which the last steps keep their graph      truncation · last_part · noised
    pathwise_gradient  reward, chain and loss in one; `reward_loss` is its last part
    rewards            balanced · guidance · spsa · segmental · of_rollouts: what takes samples and says how good they are
    consistency        rewards of one-step estimates: masked, weighed by how sure they are
    discrete           chains of tokens, by Gumbel-softmax
    corrections        directional (of a frozen reward) · self_correction (of a chain gone astray)
    drift              a reward's gradient in the sampler, and its distillation into the model
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.objectives.pathwise.chains import chain, last_part, noised, recovered, truncation
    from guerdon.objectives.pathwise.consistency import condition_error, consistency_loss, disagreement
    from guerdon.objectives.pathwise.corrections import directional, self_correction
    from guerdon.objectives.pathwise.discrete import masked_chain, rate_kl, soft_step, straight_through
    from guerdon.objectives.pathwise.drift import absorbing, displacement, reward_gradient
    from guerdon.objectives.pathwise.gradient import parameter_drift, pathwise_gradient, reward_loss
    from guerdon.objectives.pathwise.rewards import (
        NotDifferentiable,
        balanced,
        check_differentiable,
        guidance,
        of_rollouts,
        segmental,
        spsa,
    )

_HOMES = {
    "NotDifferentiable": "rewards",
    "absorbing": "drift",
    "balanced": "rewards",
    "chain": "chains",
    "check_differentiable": "rewards",
    "condition_error": "consistency",
    "consistency_loss": "consistency",
    "directional": "corrections",
    "disagreement": "consistency",
    "displacement": "drift",
    "guidance": "rewards",
    "last_part": "chains",
    "masked_chain": "discrete",
    "noised": "chains",
    "of_rollouts": "rewards",
    "parameter_drift": "gradient",
    "pathwise_gradient": "gradient",
    "rate_kl": "discrete",
    "recovered": "chains",
    "reward_gradient": "drift",
    "reward_loss": "gradient",
    "segmental": "rewards",
    "self_correction": "corrections",
    "soft_step": "discrete",
    "spsa": "rewards",
    "straight_through": "discrete",
    "truncation": "chains",
}

__all__ = [
    "NotDifferentiable",
    "absorbing",
    "balanced",
    "chain",
    "check_differentiable",
    "condition_error",
    "consistency_loss",
    "directional",
    "disagreement",
    "displacement",
    "guidance",
    "last_part",
    "masked_chain",
    "noised",
    "of_rollouts",
    "parameter_drift",
    "pathwise_gradient",
    "rate_kl",
    "recovered",
    "reward_gradient",
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
