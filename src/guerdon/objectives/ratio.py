"""How much more likely the policy makes its tokens than the policy that wrote them."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Ratio = Literal["token", "sequence", "product", "mixture", "probability"]

LIMIT = 20.0


def safe_exp(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""eˣ, continued by its tangent above 20.

        f(x) = eˣ for x ≤ 20,    e²⁰ (1 + x − 20) above

    Never overflows, and unlike a clamp never goes flat: a policy that has drifted beyond e²⁰ ≈ 5·10⁸ is still
    pulled back, with the gradient it had at 20.

    Source: the bound of 20 is verl's clamp of log-ratios (volcengine/verl, trainer/ppo/core_algos.py).

    >>> safe_exp(torch.tensor([1.0, 1000.0]))
    tensor([2.7183e+00, 4.7595e+11])
    """
    return x.clamp(max=LIMIT).exp() + torch.relu(x - LIMIT) * math.exp(LIMIT)


def importance_ratio(
    logp: Float[Tensor, "n t"],
    old_logp: Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    ratio: Ratio = "token",
) -> Float[Tensor, "n _"]:
    r"""The ratio π(y)/π_old(y) of each token, or one for the whole sequence.

        token      rᵢₜ = exp(Δᵢₜ)                       Δᵢₜ = logpᵢₜ − old_logpᵢₜ
        sequence   rᵢ  = exp(1/|yᵢ| · Σₜ Δᵢₜ)           the geometric mean of the token ratios
        product    rᵢ  = exp(Σₜ Δᵢₜ)                    the importance weight of the sequence itself
        mixture    rᵢₜ = 2π / (π_old + ½(π_old + 1))    for tokens of an unknown policy: at most 4
        probability rᵢₜ = π                             the same where nothing is known of π_old

    "mixture" is multiple importance sampling: the unknown writer is estimated by the mean of π_old and a density of 1,
    and the token is weighed as one of a sample from both, π_old and that estimate. Where it is written by neither
    (π_old → 0) the ratio stays bounded, by 4π.

    Args:
        logp: log-probabilities under the policy; finite where `mask` is True, anything elsewhere.
        old_logp: under the policy that wrote the tokens; no gradient passes through it.
        mask: True at the tokens written by the policy; the others have Δ = 0.
        ratio: which of the five.

    Returns:
        "n 1" for "sequence" and "product", else "n t"; positive; above e²⁰ it goes on as a straight line (`safe_exp`).

    Source: token: PPO (arXiv 1707.06347); sequence: GSPO (2507.18071); product: RLOO as in TRL's RLOOTrainer;
    mixture: RL-PLUS (2508.00222), whose ablation "no reshape" is probability.

    >>> logp = torch.tensor([[0.4, 0.2]]).log()
    >>> importance_ratio(logp, torch.tensor([[0.2, 0.4]]).log(), logp < 0, ratio="token")
    tensor([[2.0000, 0.5000]])
    >>> importance_ratio(logp, torch.tensor([[0.2, 0.4]]).log(), logp < 0, ratio="sequence")
    tensor([[1.]])
    """
    logp, old_logp = torch.where(mask, logp, 0.0), torch.where(mask, old_logp.detach(), 0.0)
    if ratio == "probability":
        return safe_exp(logp)
    if ratio == "mixture":
        # In logarithms, so that neither a vanishing π nor a vanishing π_old divides 0 by 0.
        return safe_exp(logp + math.log(2) - torch.logaddexp(old_logp + math.log(1.5), old_logp.new_tensor(0.5).log()))
    log_ratio = logp - old_logp
    if ratio == "token":
        return safe_exp(log_ratio)
    total = log_ratio.sum(1, keepdim=True)
    return safe_exp(total if ratio == "product" else total / mask.sum(1, keepdim=True).clamp(min=1))
