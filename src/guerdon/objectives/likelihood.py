"""The reward's own gradient, where the reward is the likelihood of a reference answer under the policy itself."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.objectives.clip import Rule, ppo, reinforce
from guerdon.objectives.grouping import group_logsumexp, sequence_means
from guerdon.objectives.policy import policy_gradient

Likelihood = Literal["logprob", "mean-logprob", "prob", "mean-prob", "group-bound"]


def answer_weights(
    logp: Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    kind: Likelihood = "logprob",
    groups: Int[Tensor, "n"] | None = None,
    rows: Bool[Tensor, "n"] | None = None,
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
        rows: for "group-bound": the rows that it is the mean over, all that have tokens among them; those without give
            the answer no probability. None: the rows that have tokens.

    Returns:
        Weights, without gradient; 0 where masked.

    Raises:
        ValueError: if the shapes do not fit, or "group-bound" has no groups.

    Source: "Likelihood-Based Reward Designs" (arXiv 2602.03979): LogProb, AvgLogProb, VeriFree's Prob, RLPR's
    AvgProb, and JEPO's bound.

    >>> answer_weights(torch.tensor([[0.5, 0.25]]).log(), torch.tensor([[True, True]]), kind="mean-prob")
    tensor([[0.2500, 0.1250]])
    """
    per_row = [x for x in (groups, rows) if x is not None]
    if logp.ndim != 2 or mask.shape != logp.shape or any(x.shape != logp.shape[:1] for x in per_row):
        shapes = [tuple(x.shape) for x in (logp, mask, *per_row)]
        raise ValueError(f"logp and mask (n, t), groups and rows (n,) do not fit: {shapes}")
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
        counted = (answered if rows is None else rows).to(wide)
        count = total.new_zeros(len(distinct)).index_add(0, group, counted)
        row = count[group] * torch.where(answered, share, -torch.inf).exp()
    return torch.where(mask, row[:, None], 0.0)


def answer_policy_gradient(
    logp: Float[Tensor, "n t"],
    old_logp: Float[Tensor, "n t"],
    advantages: Float[Tensor, "n"] | Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    answer_logp: Float[Tensor, "n a"],
    answer_mask: Bool[Tensor, "n a"],
    *,
    rows: Bool[Tensor, "n"],
    kind: Literal["logprob", "mean-logprob", "prob", "mean-prob"] = "logprob",
    coefficient: float = 1.0,
    clip: Rule = ppo,
    kl: Float[Tensor, "n t"] | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Both terms of the gradient of a reward that is the likelihood of a reference answer under the policy itself.

        loss = 1/N Σᵢ [ Σₜ (klᵢₜ − clip(rᵢₜ, logpᵢₜ, Aᵢₜ)) − c Σₖ wᵢₖ log p(aₖ | x, zᵢ, a₍<ₖ₎) ]

    Thoughts are made likelier by how much they help, and the answer is learned behind each, helpful or not: see
    `answer_weights`. Both terms are means over rollouts of sums over tokens, so that with A = R − b and c = 1 the
    first update on a batch follows ∇E[R]; an advantage that is divided by a deviation weighs the two differently. In
    later updates the first term has a ratio and the second has none.

    Args:
        logp: log-probabilities of the completions' tokens under the policy, in nats; with gradients.
        old_logp: under the policy that wrote them.
        advantages: R less a baseline, one per row or per token.
        mask: True at the tokens written by the policy.
        answer_logp: log-probabilities of the reference answer's tokens behind each completion; with gradients.
        answer_mask: True at those tokens; a row without any has the first term only.
        rows: rollouts with a score.
        kind: which reward the advantages are of: `answer_weights`. With `likelihood.answer`, "logprob" goes with `how`
            "sum", "mean-logprob" with "mean", "prob" with "exp-sum", "mean-prob" with "mean-exp".
        coefficient: c ≥ 0, the weight that this reward has in the whole.
        clip: the clip rule of the first term.
        kl: penalty per token, already times its coefficient.
        denominator: N, the number of rollouts with a score of the whole batch, where this is a part of it.

    Returns:
        The loss, and the sums of `policy_gradient` over the completions, with "answers" (rows that have one) and
        "answer_logp" (the sum of its log-probability over them) beside them.

    Raises:
        ValueError: as `policy_gradient` and `answer_weights`, or if c < 0.

    Source: "Likelihood-Based Reward Designs" (arXiv 2602.03979).

    >>> half, one, here = torch.tensor([[0.5]]).log(), torch.tensor([1.0]), torch.tensor([[True]])
    >>> answer_policy_gradient(half, half, one, here, 2 * half, here, rows=here[0])[0]  # −1 − 2 log ½
    tensor(0.3863)
    """
    if denominator is None:
        denominator = float(rows.sum().clamp(min=1))
    there = answer_mask & rows[:, None]
    first, sums = policy_gradient(logp, old_logp, advantages, mask, clip=clip, kl=kl, denominator=denominator)
    second, said = _fitted(answer_logp, there, answer_weights(answer_logp, there, kind=kind), coefficient, denominator)
    return first + second, sums | said


def answer_bound_policy_gradient(
    logp: Float[Tensor, "n t"],
    old_logp: Float[Tensor, "n t"],
    advantages: Float[Tensor, "n"] | Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    answer_logp: Float[Tensor, "n a"],
    answer_mask: Bool[Tensor, "n a"],
    *,
    rows: Bool[Tensor, "n"],
    groups: Int[Tensor, "n"],
    coefficient: float = 1.0,
    clip: Rule = ppo,
    kl: Float[Tensor, "n t"] | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Both terms of the gradient of JEPO's bound: the log of the mean probability that a group gives the answer.

        loss = 1/N Σᵢ [ Σₜ (klᵢₜ − clip(rᵢₜ, logpᵢₜ, Aᵢₜ)) − c G softmaxᵢ(S) Sᵢ ]
        Sᵢ = Σₖ log p(aₖ | x, zᵢ, a₍<ₖ₎)

    The answer is learned behind the thoughts of a group in proportion to how likely they make it. As in
    `answer_policy_gradient` A = Rᵢ and c = 1 follow the gradient of the expected bound, with the reward
    `likelihood.bound` and `marginal`, whose baseline it brings with it.

    Args:
        logp, old_logp, advantages, mask, answer_logp, answer_mask, rows, coefficient, clip, kl, denominator: as of
            `answer_policy_gradient`; a row without an answer gives it no probability.
        groups: rows with equal numbers share a prompt; a group is not to be divided.

    Returns:
        As `answer_policy_gradient`.

    Raises:
        ValueError: as `answer_policy_gradient`.

    Source: JEPO (arXiv 2503.19618).

    >>> half, one, here = torch.tensor([[0.5]]).log(), torch.tensor([1.0]), torch.tensor([[True]])
    >>> answer_bound_policy_gradient(half, half, one, here, 2 * half, here, rows=here[0], groups=torch.tensor([7]))[0]
    tensor(0.3863)
    """
    if denominator is None:
        denominator = float(rows.sum().clamp(min=1))
    there = answer_mask & rows[:, None]
    weights = answer_weights(answer_logp, there, kind="group-bound", groups=groups, rows=rows)
    first, sums = policy_gradient(logp, old_logp, advantages, mask, clip=clip, kl=kl, denominator=denominator)
    second, said = _fitted(answer_logp, there, weights, coefficient, denominator)
    return first + second, sums | said


def _fitted(
    logp: Float[Tensor, "n a"],
    mask: Bool[Tensor, "n a"],
    weights: Float[Tensor, "n a"],
    coefficient: float,
    denominator: float | Float[Tensor, ""],
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The loss by which answers are learned, each token by its weight; how many there are, and how likely."""
    if coefficient < 0:
        raise ValueError(f"coefficient must not be negative, got {coefficient}")
    loss, _ = policy_gradient(logp, logp, coefficient * weights, mask, clip=reinforce, denominator=denominator)
    likely = torch.where(mask, logp.detach(), 0.0).sum()
    return loss, {"answers": mask.any(1).sum().to(likely), "answer_logp": likely}


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
