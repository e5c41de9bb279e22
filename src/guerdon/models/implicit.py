"""The log-ratio of two language models as a reward of tokens, steps and rollouts, and the losses it learns by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from guerdon.core.protocols import Model
from guerdon.core.spans import Spans
from guerdon.objectives.preference import pair_terms, unpaired_terms

Kind = Literal["ce", "dpo", "nca", "kto"]
Total = Literal["sum", "mean", "min"]


def log_ratio(
    logp: Float[Tensor, "n t"], ref_logp: Float[Tensor, "n t"], mask: Bool[Tensor, "n t"], *, beta: float = 0.05
) -> Float[Tensor, "n t"]:
    r"""The reward of each token under an implicit process reward model.

        rₜ = β (log π_θ(yₜ|y₍<ₜ₎) − log π_ref(yₜ|y₍<ₜ₎))

    A model trained so that its summed log-ratio tells good responses from bad ones knows more: the sum up to t,
    qₜ = Σ_{i≤t} rᵢ (`cumsum(1)`), is the exact soft value of the prefix,

        qₜ = β log E_{y ~ π_ref(·|y₍≤ₜ₎)} exp(r(y) / β)

    so rₜ = qₜ − qₜ₋₁ is what token t is worth, without a label of any step.

    Args:
        logp: under the reward model, in nats; gradients pass.
        ref_logp: under the reference; no gradient passes.
        mask: True at the tokens that the policy wrote.
        beta: β > 0.

    Returns:
        One reward per token, 0 where masked, in float32 or wider.

    Raises:
        ValueError: if the shapes differ, or β ≤ 0.

    Source: Implicit PRM (arXiv 2412.01981); β = 0.05: its training, PRIME (2502.01456) and iStar (2509.19199). Its
    best-of-N evaluation takes 0.001, which ranks the same.

    >>> log_ratio(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-2.0, -2.0]]), torch.ones(1, 2, dtype=torch.bool))
    tensor([[0.0500, 0.0000]])
    """
    if not logp.shape == ref_logp.shape == mask.shape or logp.ndim != 2:
        shapes = [tuple(x.shape) for x in (logp, ref_logp, mask)]
        raise ValueError(f"logp, ref_logp and mask must have one shape (n, t), got {shapes}")
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    wide = torch.promote_types(logp.dtype, torch.float32)
    logp, ref_logp = (torch.where(mask, x.to(wide), 0.0) for x in (logp, ref_logp.detach()))
    return beta * (logp - ref_logp)


def implicit_rewards(
    model: Model,
    reference: Model | None,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *,
    beta: float = 0.05,
) -> tuple[Float[Tensor, "n t"], Bool[Tensor, "n t"]]:
    """What an implicit reward model says of each token of some completions, and which tokens exist.

    Gradients reach the model where they are enabled, so `implicit_loss(total(*…, how="sum"), labels)` trains it: a
    reward model on outcomes, and with kind="dpo" a policy on preferences.

    Args:
        model: π_θ.
        reference: π_ref; None drops it, rₜ = β log π_θ, which the source finds to cost little once the model is
            trained.
        prompts, completions: text or messages.
        beta: see `log_ratio`.

    Raises:
        ValueError: if a completion cannot be read, saying which and why; or β ≤ 0.

    Source: Implicit PRM (arXiv 2412.01981); DPO (2305.18290).
    """
    said = model.logprobs(prompts, completions)
    for row, why in said.problems.items():
        raise ValueError(f"completions[{row}] cannot be read: {why}")
    logp, mask = (torch.as_tensor(x) for x in (said.logp, said.mask))
    if reference is None:
        return log_ratio(logp, torch.zeros_like(logp), mask, beta=beta), mask
    with torch.no_grad():
        before = torch.as_tensor(reference.logprobs(prompts, completions).logp)
    return log_ratio(logp, before.to(logp.device), mask, beta=beta), mask


def at_steps(rewards: Float[Tensor, "n t"], mask: Bool[Tensor, "n t"], spans: Spans) -> Float[Tensor, "n s"]:
    """The sum of the rewards of each step's tokens; `credit.spread(…, place="last")` puts it where the step ends.

    Args:
        rewards: one per token; any real unit; gradients pass.
        mask: True at the tokens that count.
        spans: the token range of each step.

    Returns:
        One per step, 0 where there is none.

    Raises:
        ValueError: if the shapes do not fit, or the spans count characters or reach beyond the tokens.

    Source: Implicit PRM (arXiv 2412.01981), step rewards for best-of-N; iStar (2509.19199), rewards of turns.

    >>> steps = Spans.of([[(0, 2), (2, 3)]])
    >>> at_steps(torch.tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3, dtype=torch.bool), steps)
    tensor([[3., 4.]])
    """
    if spans.unit != "token":
        raise ValueError("spans count characters: turn them into token spans first, with spans.to_tokens(offsets)")
    begin, end, exists = (torch.as_tensor(x, device=rewards.device) for x in (spans.begin, spans.end, spans.mask))
    if rewards.shape != mask.shape or len(rewards) != len(exists):
        shapes = [tuple(x.shape) for x in (rewards, mask, exists)]
        raise ValueError(f"rewards and mask (n, t) and spans (n, s) do not fit: {shapes}")
    begin, end = (torch.where(exists, x.long(), 0) for x in (begin, end))
    if end.numel() and int(end.max()) > rewards.shape[1]:
        raise ValueError(f"a step ends at token {int(end.max())}, but there are only {rewards.shape[1]}")
    before = pad(torch.where(mask, rewards, 0.0).double().cumsum(1), (1, 0))
    sums = before.gather(1, end) - before.gather(1, begin)
    return torch.where(exists, sums, 0.0).to(torch.promote_types(rewards.dtype, torch.float32))


def total(rewards: Float[Tensor, "n s"], mask: Bool[Tensor, "n s"], *, how: Total = "min") -> Float[Tensor, "n"]:
    """The score of a whole response from those of its steps.

    Args:
        rewards: one per step (or token); gradients pass.
        mask: True where the step exists.
        how: 'min' for choosing among responses, 'sum' is β log π_θ/π_ref of the whole, 'mean' does not grow with
            the number of steps.

    Returns:
        One per row; 0 for one without steps.

    Raises:
        ValueError: if the shapes differ, or for another `how`.

    Source: Implicit PRM (arXiv 2412.01981): 'min'; PRIME (2502.01456): 'sum'; iStar (2509.19199): 'mean' in its code,
    'sum' in its paper.

    >>> total(torch.tensor([[0.5, -0.25, 9.0]]), torch.tensor([[True, True, False]]))
    tensor([-0.2500])
    """
    if rewards.shape != mask.shape or rewards.ndim != 2:
        raise ValueError(
            f"rewards and mask must have one shape (n, s), got {tuple(rewards.shape)}, {tuple(mask.shape)}"
        )
    if how not in get_args(Total):
        raise ValueError(f"how is one of {', '.join(get_args(Total))}, got {how!r}")
    if how == "min":
        if not rewards.shape[1]:
            return rewards.sum(1)
        return torch.where(mask.any(1), torch.where(mask, rewards, torch.inf).amin(1), 0.0)
    summed = torch.where(mask, rewards, 0.0).sum(1)
    return summed / mask.sum(1).clamp(min=1) if how == "mean" else summed


def implicit_loss(
    scores: Float[Tensor, "n"],
    labels: Float[Tensor, "n"],
    *,
    kind: Kind = "ce",
    groups: Int[Tensor, "n"] | None = None,
    mask: Bool[Tensor, "n"] | None = None,
    pool: Literal["pairs", "groups"] = "pairs",
    anchor: float | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""What teaches an implicit reward model from outcomes alone.

        ce     mean over rows of  −[l log σ(r) + (1 − l) log σ(−r)]
        kto    mean over rows of  1 − σ(r − z) for l > ½, 1 − σ(z − r) otherwise       z = max(mean r, 0), no gradient
        dpo    mean over pairs of −log σ(r_w − r_l)
        nca    mean over pairs of −log σ(r_w) − ½ (log σ(−r_w) + log σ(−r_l))

    A pair is any two rows of a group of which the first has the larger label: one success and one failure, or two
    scores that differ. Without one the loss is 0. Takes n² numbers for pairs.

    Args:
        scores: r(y) of each response, `total(…, how="sum")`; gradients pass.
        labels: outcomes; in [0, 1] for ce and kto, any numbers that order responses for pairs.
        kind: ce needs no pairs, and is the default of the source.
        groups: rows with equal numbers answer the same prompt; default: all do.
        mask: False at rows whose outcome is not known.
        pool: one mean over all pairs, or over the groups' means, so that a half-solved prompt counts no more.
        anchor: z of kto; default: from the batch.

    Returns:
        The loss, and sums, detached: "terms" (rows or pairs it is a mean of) and "right" (rows on their side of 0,
        pairs in their order).

    Raises:
        ValueError: if the shapes differ, or a label of ce or kto is outside of [0, 1].

    Source: Implicit PRM (arXiv 2412.01981): all four; KTO's z as in KTO (2402.01306), where it is estimated from
    mismatched pairs: pass that as `anchor`. dpo over all pairs of a group: iStar (2509.19199), whose code pools them
    over groups ('pairs') where its text averages groups.

    >>> loss, _ = implicit_loss(torch.zeros(4), torch.tensor([1.0, 0.0, 1.0, 1.0]))
    >>> round(loss.item(), 4)  # log 2
    0.6931
    """
    known = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    one = torch.zeros_like(known, dtype=torch.long) if groups is None else groups
    if not scores.shape == labels.shape == known.shape == one.shape or scores.ndim != 1:
        shapes = [tuple(x.shape) for x in (scores, labels, known, one)]
        raise ValueError(f"scores, labels, mask and groups must have one shape (n,), got {shapes}")
    if kind not in get_args(Kind):
        raise ValueError(f"kind is one of {', '.join(get_args(Kind))}, got {kind!r}")
    wide = torch.promote_types(scores.dtype, torch.float32)
    r = torch.where(known, scores.to(wide), 0.0)
    labels = torch.where(known, labels.to(wide), 0.0)
    if kind in ("ce", "kto"):
        if ((labels < 0) | (labels > 1)).any():
            raise ValueError(f"{kind} reads labels as probabilities: they must be in [0, 1]")
        count = known.sum()
        if kind == "ce":
            terms = pair_terms(r, labels=labels)
        else:
            z = (r.detach().sum() / count.clamp(min=1)).clamp(min=0) if anchor is None else anchor
            terms = unpaired_terms(r, labels > 0.5, z)
        right = known & ((r > 0) == (labels > 0.5))
        loss = torch.where(known, terms, 0.0).sum() / count.clamp(min=1)
        return loss, {"terms": count.to(wide), "right": right.sum().to(wide)}
    pairs = (labels[:, None] > labels) & (one[:, None] == one) & known[:, None] & known
    if kind == "dpo":
        table = pair_terms(r[:, None] - r)
    else:
        table = -logsigmoid(r)[:, None] - 0.5 * (logsigmoid(-r)[:, None] + logsigmoid(-r))
    table = torch.where(pairs, table, 0.0)
    right = pairs & (r[:, None] > r)
    if pool == "pairs":
        loss = table.sum() / pairs.sum().clamp(min=1)
    else:
        _, index = torch.unique(one, return_inverse=True)
        size = len(index.unique())
        sums = table.new_zeros(size).index_add(0, index, table.sum(1))
        counts = table.new_zeros(size).index_add(0, index, pairs.sum(1).to(wide))
        loss = (sums / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)
    return loss, {"terms": pairs.sum().to(wide), "right": right.sum().to(wide)}


def written_runs(written: Bool[Tensor, "n t"]) -> Spans:
    """The turns of a rollout: each stretch of tokens that the policy wrote, between what it was told.

    Source: the step of iStar (arXiv 2509.19199), one action of the policy.

    >>> written_runs(torch.tensor([[True, True, False, True]])).rows()
    [[(0, 2), (3, 4)]]
    """
    edges = pad(written.int(), (1, 1)).diff(dim=1).cpu().numpy()
    return Spans.of(
        [list(zip((row == 1).nonzero()[0].tolist(), (row == -1).nonzero()[0].tolist(), strict=True)) for row in edges]
    )
