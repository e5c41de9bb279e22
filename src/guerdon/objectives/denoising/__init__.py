"""Denoising as a chain of decisions: a step is a token, with a log-probability, an advantage and a mask.

`sample` gives trajectories, `logp` their log-probabilities with gradients; credit and `policy_gradient` are those of
language. Flow-GRPO:

    trajectory = sample(policy, noise, Chain(levels, "flow_sde", 0.7))
    advantages = credit.group_relative(rewards_of(trajectory.states[:, -1]), groups)
    loss, _ = policy_gradient(logp(policy, trajectory, chain), trajectory.logp, advantages, trajectory.mask)
"""

from __future__ import annotations

from guerdon.objectives.denoising.chain import Chain
from guerdon.objectives.denoising.chains import Replay, branch, complete, logp, replay, sample
from guerdon.objectives.denoising.exploration import calibrated, interval, singular, uniform
from guerdon.objectives.denoising.few_step import directed, follow, renoised
from guerdon.objectives.denoising.heads import reward_difference, step_preference
from guerdon.objectives.denoising.steps import Step, action_logp, estimates, gaussian_kl, step

__all__ = [
    "Chain",
    "Replay",
    "Step",
    "action_logp",
    "branch",
    "calibrated",
    "complete",
    "directed",
    "estimates",
    "follow",
    "gaussian_kl",
    "interval",
    "logp",
    "renoised",
    "replay",
    "reward_difference",
    "sample",
    "singular",
    "step",
    "step_preference",
    "uniform",
]
