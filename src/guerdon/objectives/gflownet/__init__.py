"""GFlowNet objectives: sample in proportion to the reward, and so find many solutions, instead of the best one.

A trajectory s₀ → s₁ → … → s_T builds an object x step by step. Everything is in logarithms; where the construction
graph is a tree (text, whose state is its whole history) the backward policy is 1 and may be left out.
"""

from __future__ import annotations

from guerdon.objectives.gflownet.balance import (
    edge_balance,
    reward_balance,
    subtrajectory_balance,
    trajectory_balance,
)
from guerdon.objectives.gflownet.flows import reward_edge_balance, reward_subtrajectory_balance
from guerdon.objectives.gflownet.outcomes import amortised_numerator, converted, reached
from guerdon.objectives.gflownet.steps import exploring, log_reward, step_logp

__all__ = [
    "amortised_numerator",
    "converted",
    "edge_balance",
    "exploring",
    "log_reward",
    "reached",
    "reward_balance",
    "reward_edge_balance",
    "reward_subtrajectory_balance",
    "step_logp",
    "subtrajectory_balance",
    "trajectory_balance",
]
