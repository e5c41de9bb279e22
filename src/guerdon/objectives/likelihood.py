"""The reward's own gradient, where the reward is the likelihood of a reference answer under the policy itself."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.objectives.grouping import group_logsumexp, sequence_means

Likelihood = Literal["logprob", "mean-logprob", "prob", "mean-prob", "group-bound"]


def answer_weights(
    logp: Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    kind: Likelihood = "logprob",
    groups: Int[Tensor, "n"] | None = None,
) -> Float[Tensor, "n t"]:
    r"""How much each token of the reference answer is to be fitted: w with ∇R = Σₜ wₜ ∇logpₜ.

        logprob        R = Σ l                        w = 1                  plain fine-tuning on the answer
        mean-logprob   R = 1/L Σ l                    w = 1/L
        prob           R = e^{Σ l}                    w = R
        mean-prob      R = 1/L Σ eˡ                   wₜ = e^{lₜ}/L
        group-bound    R = log (1/G Σᵢ e^{Σ lᵢ})      wᵢ = G softmaxᵢ(Σ l)   the mean over rows is that over groups

    A thought z is rewarded by how likely it makes the answer, R(z), and the policy gives that likelihood itself: so
    E_z[R] depends on the policy twice, ∇E[R] = E[(R − b) ∇log π(z) + ∇R]. The first term is `policy_gradient` on the
    thought's tokens; the second is `policy_gradient` on the answer's, with clip rule `reinforce` and these weights as
    advantages, over the same denominator.

    Args:
        logp: log-probabilities of the answer's tokens after each thought, teacher-forced, in nats.
        mask: True at the answer's tokens.
        kind: which reward.
        groups: for "group-bound": rows with equal numbers share a prompt.

    Returns:
        Weights, without gradient; 0 where masked.

    Raises:
        ValueError: if the shapes do not fit, or "group-bound" has no groups.

    Source: "Likelihood-Based Reward Designs" (arXiv 2602.03979): LogProb, AvgLogProb, VeriFree's Prob, RLPR's
    AvgProb, and JEPO's bound.

    >>> answer_weights(torch.tensor([[0.5, 0.25]]).log(), torch.tensor([[True, True]]), kind="mean-prob")
    tensor([[0.2500, 0.1250]])
    """
    if logp.ndim != 2 or mask.shape != logp.shape or (groups is not None and groups.shape != logp.shape[:1]):
        shapes = [tuple(x.shape) for x in (logp, mask, groups) if x is not None]
        raise ValueError(f"logp and mask (n, t) and groups (n,) do not fit: {shapes}")
    wide = torch.promote_types(logp.dtype, torch.float32)
    logp = torch.where(mask, logp.detach().to(wide), 0.0)
    lengths = mask.sum(1).clamp(min=1)
    row = logp.new_ones(len(logp))
    if kind == "mean-logprob":
        row = 1 / lengths.to(wide)
    elif kind == "prob":
        row = logp.sum(1).exp()
    elif kind == "mean-prob":
        return torch.where(mask, logp.exp() / lengths[:, None], 0.0)
    elif kind == "group-bound":
        if groups is None:
            raise ValueError("kind='group-bound' compares the rows of a group: pass groups")
        distinct, group = torch.unique(groups, return_inverse=True)
        answered, total = mask.any(1), logp.sum(1)
        share = total - group_logsumexp(total, answered, group, len(distinct))[group]
        count = total.new_zeros(len(distinct)).index_add(0, group, answered.to(wide))
        row = count[group] * torch.where(answered, share, -torch.inf).exp()
    return torch.where(mask, row[:, None], 0.0)


def perplexity(logp: Float[Tensor, "n t"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "n"]:
    """How surprised a model is by each row: e to the mean of −logp over its tokens; 1 for a row without any.

    Args:
        logp: log-probabilities of the row's tokens under the model, in nats.
        mask: True at the row's tokens.

    Raises:
        ValueError: if the shapes differ.

    Source: "Does RL Really Incentivize Reasoning Capacity?" (arXiv 2504.13837, §4.1), for one policy's texts under
    another.

    >>> perplexity(torch.tensor([[0.5, 0.125]]).log(), torch.tensor([[True, True]]))
    tensor([4.])
    """
    if logp.shape != mask.shape:
        raise ValueError(f"logp and mask must have one shape, got {tuple(logp.shape)} and {tuple(mask.shape)}")
    return (-sequence_means(logp, mask)).exp()
