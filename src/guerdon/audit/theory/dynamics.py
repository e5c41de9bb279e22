"""How the policy gradient moves one softmax: who gains mass, who loses it, and when exploration begins."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

Array = np.ndarray[Any, Any]
Baseline = Literal["mean", "none"]
Scale = Literal["std", "none"]


def flow_direction(
    chances: Float[Array, "*n v"],
    rewards: Float[Array, "v"],
    *,
    baseline: Baseline = "mean",
    scale: Scale = "std",
    positive: float = 1.0,
    negative: float = 1.0,
) -> Float[Array, "*n v"]:
    r"""The expected change of the logits, per unit of learning rate.

        A = λ (r − μ)/σ        dzᵥ = E_{a~π}[A_a (1[a = v] − πᵥ)] = πᵥ (Aᵥ − Σ_a π_a A_a)

    μ and σ are those of r under π, λ is `positive` where r > μ and `negative` where r < μ. Speed is proportional to
    πᵥ: what is rare learns slowly, however good it is. The changes sum to 0.

    Args:
        chances: π.
        rewards: r of each action, finite.
        baseline: "none": μ = 0, REINFORCE.
        scale: "none": σ = 1. Where all actions that are taken have one reward, nothing moves.
        positive, negative: weights by sign, as in `policy_gradient`.

    Raises:
        ValueError: if the shapes do not fit.

    Source: the two-stage view (arXiv 2510.04028); by sign: "The Surprising Effectiveness of Negative Reinforcement"
    (2506.01347, §4).

    >>> flow_direction(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    array([ 0.5, -0.5])
    """
    chances, rewards = np.asarray(chances, float), np.asarray(rewards, float)
    if rewards.shape != chances.shape[-1:]:
        raise ValueError(f"rewards must be {chances.shape[-1:]} beside chances {chances.shape}, got {rewards.shape}")
    return _direction(chances, chances, rewards, baseline, scale, positive, negative)


def softmax_flow(
    chances: Float[Array, "v"],
    rewards: Float[Array, "v"],
    *,
    steps: int,
    rate: float = 0.1,
    baseline: Baseline = "mean",
    scale: Scale = "std",
    positive: float = 1.0,
    negative: float = 1.0,
) -> Float[Array, "steps+1 v"]:
    """The policy under the expected update, step by step, from `chances` on; options as for `flow_direction`.

    Args:
        chances: π at the start, all above 0.
        rewards: r of each action.
        steps: how many.
        rate: the learning rate η of the logits.
        baseline, scale, positive, negative: as for `flow_direction`.

    Raises:
        ValueError: if an action has no chance at all.

    Source: the two-stage view (arXiv 2510.04028).

    >>> softmax_flow(np.array([0.6, 0.01, 0.39]), np.array([0.8, 1.0, 0.0]), steps=2000)[[50, 2000]].round(3)
    array([[0.965, 0.004, 0.031],
           [0.001, 0.999, 0.   ]])
    """
    logits = _logits(chances)
    path = [_softmax(logits)]
    for _ in range(steps):
        logits = logits + rate * flow_direction(
            path[-1], rewards, baseline=baseline, scale=scale, positive=positive, negative=negative
        )
        path.append(_softmax(logits))
    return np.stack(path)


def sampled_dynamics(
    chances: Float[Array, "v"],
    rewards: Float[Array, "v"],
    *,
    steps: int,
    group: int = 8,
    runs: int = 20,
    rate: float = 0.1,
    baseline: Baseline = "mean",
    scale: Scale = "std",
    positive: float = 1.0,
    negative: float = 1.0,
    seed: int = 0,
) -> Float[Array, "runs v"]:
    """The policies that independent runs end with, each step from one group of sampled actions.

    Chance decides what the expected flow does not: a rare best action that is not drawn while the others grow is lost.

    Args:
        chances: π at the start, all above 0.
        rewards: r of each action.
        steps: updates of each run.
        group: actions per update; their own mean and standard deviation are the baseline and the scale.
        runs: how many.
        rate: the learning rate of the logits; the update is the mean over the group.
        baseline, scale, positive, negative: as for `flow_direction`.
        seed: of the draws.

    Raises:
        ValueError: if an action has no chance at all, or a number is below 1.

    Source: the two-stage view (arXiv 2510.04028).

    >>> sampled_dynamics(np.array([0.5, 0.5]), np.array([1.0, 0.0]), steps=200, runs=2).round(1)
    array([[1., 0.],
           [1., 0.]])
    """
    if group < 1 or runs < 1:
        raise ValueError(f"group and runs must be at least 1, got {group} and {runs}")
    rng = np.random.default_rng(seed)
    rewards = np.asarray(rewards, float)
    logits = np.tile(_logits(chances), (runs, 1))
    for _ in range(steps):
        now = _softmax(logits)
        counts = rng.multinomial(group, now) / group
        logits = logits + rate * _direction(now, counts, rewards, baseline, scale, positive, negative)
    return _softmax(logits)


def stages(path: Float[Array, "t v"], *, eps: float = 1e-3) -> dict[str, Array]:
    r"""Where mass goes along a path of policies, and which stage each step is in.

    Stage 1, exploitation: the likeliest action takes from the others. Stage 2, exploration: it has saturated
    (d log π_top < eps) while some other action gains (d log πᵥ > 0).

    Args:
        path: policies, one after another.
        eps: how little the likeliest action must gain, in nats per step.

    Returns:
        For each step "top" (the change of the likeliest action's mass), "tail" (that of all others together),
        "entropy" (after it, in nats) and "stage".

    Raises:
        ValueError: if there are fewer than two policies.

    Source: the two-stage view (arXiv 2510.04028).

    >>> stages(np.array([[0.6, 0.4], [0.7, 0.3], [0.65, 0.35]]))["stage"]
    array([1, 2])
    """
    path = np.asarray(path, float)
    if path.ndim != 2 or len(path) < 2:
        raise ValueError(f"path must hold at least two policies, got {path.shape}")
    before, after = path[:-1], path[1:]
    likeliest = np.arange(path.shape[1]) == before.argmax(1)[:, None]
    change = (after - before)[likeliest]
    with np.errstate(divide="ignore"):
        saturated = (np.log(after) - np.log(np.where(likeliest, before, 1.0)))[likeliest] < eps
        entropy = -(after * np.where(after > 0, np.log(after), 0.0)).sum(1)
    exploring = saturated & (~likeliest & (after > before)).any(1)
    return {"top": change, "tail": -change, "entropy": entropy, "stage": np.where(exploring, 2, 1)}


def mass_flow(
    chances: Float[Array, "n"], advantages: Float[Array, "n"], top: Bool[Array, "n"], *, eps: float = 1e-3
) -> dict[str, float]:
    r"""The same from a run's log, where only the tokens that were drawn are known.

        d log π = A (1 − π)        dπ = A π (1 − π)        per unit of learning rate, to first order

    Args:
        chances: π of each drawn token.
        advantages: A of each.
        top: True where the token was the likeliest.
        eps: how little the likeliest tokens must gain on average for stage 2.

    Returns:
        "top" and "tail": the mean dπ of the two kinds, 0 for a kind that was not drawn; "stage": 1 or 2.

    Raises:
        ValueError: if the shapes differ.

    Source: the two-stage view (arXiv 2510.04028).

    >>> mass_flow(np.array([0.5, 0.25]), np.array([-1.0, 1.0]), np.array([True, False]))
    {'top': -0.25, 'tail': 0.1875, 'stage': 2}
    """
    chances, advantages, top = np.asarray(chances, float), np.asarray(advantages, float), np.asarray(top, bool)
    if not chances.shape == advantages.shape == top.shape:
        raise ValueError(f"all must have one shape, got {chances.shape}, {advantages.shape} and {top.shape}")
    gain = advantages * (1 - chances)

    def mean(values: Array, rows: Array) -> float:
        return float(values[rows].mean()) if rows.any() else 0.0

    exploring = mean(gain, top) < eps and mean(gain, ~top) > 0
    flow = chances * gain
    return {"top": mean(flow, top), "tail": mean(flow, ~top), "stage": 2 if exploring else 1}


def _direction(
    chances: Array, drawn: Array, rewards: Array, baseline: Baseline, scale: Scale, positive: float, negative: float
) -> Array:
    """The update of the logits when the actions are drawn in these shares: as expected, or as it happened."""
    mean = (drawn * rewards).sum(-1, keepdims=True)
    advantages = rewards - mean if baseline == "mean" else np.broadcast_to(rewards, drawn.shape)
    if scale == "std":
        sigma = np.sqrt((drawn * (rewards - mean) ** 2).sum(-1, keepdims=True))
        silent = sigma <= 1e-6 * np.abs(rewards).max()
        advantages = np.where(silent, 0.0, advantages / np.where(silent, 1.0, sigma))
    pull = drawn * np.where(advantages > 0, positive, negative) * advantages
    direction: Array = pull - chances * pull.sum(-1, keepdims=True)
    return direction


def _logits(chances: Array) -> Array:
    chances = np.asarray(chances, float)
    if chances.ndim != 1 or (chances <= 0).any():
        raise ValueError("chances must be (v,) and all above 0: what has no chance never gets one")
    logits: Array = np.log(chances)
    return logits


def _softmax(logits: Array) -> Array:
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    result: Array = weight / weight.sum(-1, keepdims=True)
    return result
