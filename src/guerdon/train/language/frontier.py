"""What a policy's score has cost in KL, what it need have cost, and what choosing among its answers is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from guerdon.audit.theory import (
    anti_concentration,
    best_of_n,
    best_of_n_kl_bound,
    divergence,
    frontier,
    trace_variance,
)
from guerdon.core.rollouts import Rollouts
from guerdon.objectives import kl_penalty
from guerdon.train.language.job import Job
from guerdon.train.language.policy import borrowed, logprobs
from guerdon.train.language.tokenizer import encode_prompts, pad

Array = np.ndarray[Any, Any]

STRENGTHS = np.concatenate([[0.0], np.geomspace(1 / 16, 64, 32)])  # λ of the curve's points, times the rewards' range


def kl_to_start(job: Job, rollouts: Rollouts, *, temperature: float) -> Float[Array, "n"]:
    r"""For each answer, an estimate of the KL between the policy and what it was when training began.

        KLᵢ = Σ_t (e^{dᵢₜ} − dᵢₜ − 1)        dᵢₜ = log π₀(yᵢₜ) − log π(yᵢₜ)

    Its mean over answers drawn from π is KL(π ‖ π₀) of whole answers, in nats.

    Args:
        job: with the reference policy.
        rollouts: answers that the policy has drawn, with their log-probabilities.
        temperature: at which it has.
    """
    tokens = rollouts.tokens
    assert tokens is not None
    assert job.reference is not None
    device, fill = job.accelerator.device, job.tokenizer.pad_token_id
    prompts = pad(encode_prompts(job.tokenizer, rollouts.prompts), fill, side="left")
    inputs = [torch.as_tensor(x, device=device) for x in (*prompts, tokens.ids, tokens.attended)]
    training = job.policy.training
    job.policy.train(False)
    try:
        with torch.no_grad(), borrowed(job.policy, job.reference):
            start, _ = logprobs(job.policy, *inputs, temperature=temperature, micro_batch=job.recipe.batch.micro)
    finally:
        job.policy.train(training)
    logp, written = torch.as_tensor(tokens.logp).double(), torch.as_tensor(tokens.written)
    found: Float[Array, "n"] = kl_penalty(logp, start.cpu().double(), mask=written).sum(1).numpy()
    return found


def economy(
    rewards: Float[Array, "x n"],
    kl: Float[Array, "x n"],
    start: Float[Array, "x n"],
    valid: Bool[Array, "x n"],
    start_valid: Bool[Array, "x n"],
) -> dict[str, Any]:
    r"""Reward and KL of a policy on some prompts, beside the least KL that has the reward.

    All is of prompts all of whose answers have a score. The frontier is that of the policy that training began with,
    each answer of it standing for 1/n of its prompt, tilted by one λ for all prompts: no policy over those answers has
    more reward for its KL.

    Args:
        rewards, kl: of each prompt's answers now.
        start: of each prompt's answers when training began.
        valid, start_valid: which rewards there are.

    Returns:
        `reward` and `kl`, means; `regret`, the KL beyond what the reward costs at least, by chance also below 0, and
        None where no choice among the answers at the start has the reward; `best_of`, for m = 1, 2, 4, … up to n the
        reward of the best of m of the answers, the KL to the policy that this costs and its bound for any answers;
        `heterogeneity`, the mean over prompts of the variance of their rewards; `anti_concentration`, the mean share
        of answers a standard deviation or more above the mean of their prompt, over prompts whose rewards differ. None
        where there is no prompt to tell it.

    Source: "Asymptotics of Language Model Alignment" (arXiv 2404.01730); heterogeneity and anti-concentration:
    2502.12118, definitions 5.1 and 5.4, at ε = 1.
    """
    whole = valid.all(1)
    if not whole.any():
        return dict.fromkeys(("reward", "kl", "regret", "best_of", "heterogeneity", "anti_concentration"))
    both = whole & start_valid.all(1)
    least = least_kl(start[both], float(rewards[both].mean())) if both.any() else None
    mine = rewards[whole]
    variance = trace_variance(mine)
    differ = variance > 1e-12 * np.abs(mine).max(initial=1e-300) ** 2
    above = anti_concentration(mine[differ], np.ones(1)) if differ.any() else None
    return {
        "reward": float(mine.mean()),
        "kl": float(kl[whole].mean()),
        "regret": None if least is None else float(kl[both].mean()) - least,
        "best_of": {str(2**i): _best_of(mine, 2**i) for i in range(mine.shape[1].bit_length())},
        "heterogeneity": float(variance.mean()),
        "anti_concentration": None if above is None else float(above.mean()),
    }


def curve(rewards: Float[Array, "x n"], valid: Bool[Array, "x n"]) -> dict[str, list[float]] | None:
    """Points of the frontier of answers: `kl` and `reward`, rising; None if no prompt has all its rewards."""
    known = rewards[valid.all(1)]
    if not len(known):
        return None
    kl, reward = _tilted(known, STRENGTHS / _range(known))
    return {"kl": kl.tolist(), "reward": reward.tolist()}


def least_kl(rewards: Float[Array, "x n"], wanted: float) -> float | None:
    """The least KL of a policy over some answers that has a reward; 0 for their own, None for what they do not reach.

    >>> round(least_kl(np.array([[0.0, 1.0]]), 0.75), 4)
    0.1308
    """
    if wanted <= rewards.mean():
        return 0.0
    if wanted >= rewards.max(1).mean():
        return None
    below, above = 0.0, 1.0 / _range(rewards)

    def reaches(strength: float) -> bool:
        return bool(_tilted(rewards, np.array([strength]))[1][0] >= wanted)

    while not reaches(above):
        if _range(rewards) * above > 1e6:  # as near to the best as rounding tells
            return None
        below, above = above, 2 * above
    while (middle := 0.5 * (below + above)) not in (below, above):
        below, above = (below, middle) if reaches(middle) else (middle, above)
    return float(_tilted(rewards, np.array([above]))[0][0])


def _tilted(rewards: Array, strengths: Array) -> tuple[Array, Array]:
    """KL and reward at each strength, means over prompts; those with the same rewards are tilted once."""
    alike, counts = np.unique(np.sort(rewards, 1), axis=0, return_counts=True)
    n = rewards.shape[1]
    points = np.array([frontier(np.full(n, 1 / n), row, strengths) for row in alike])
    kl, reward = np.tensordot(counts / counts.sum(), points, axes=1)
    return kl, reward


def _best_of(rewards: Array, m: int) -> dict[str, float]:
    n = rewards.shape[1]
    start = np.full(n, 1 / n)
    chosen = [best_of_n(start, row, m) for row in rewards]
    return {
        "reward": float(np.mean([q @ row for q, row in zip(chosen, rewards, strict=True)])),
        "kl": float(np.mean([max(0.0, divergence(q, start)) for q in chosen])),
        "bound": best_of_n_kl_bound(m),
    }


def _range(rewards: Array) -> float:
    return float(np.ptp(rewards)) or 1.0
