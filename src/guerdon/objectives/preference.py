"""What implicit rewards learn from: pairs with soft labels and ties, single samples, ranked groups.

An implicit reward is a log-ratio of two models (`models.log_ratio`) or what a denoiser's error has fallen by
(`implicit_scores`); where it comes from does not matter here.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid


def pair_terms(
    margins: Float[Tensor, "*m"],
    *,
    labels: Float[Tensor, "*m"] | None = None,
    tied: Bool[Tensor, "*m"] | None = None,
    theta: float = 1.0,
    offset: float | Float[Tensor, "*m"] = 0.0,
) -> Float[Tensor, "*m"]:
    r"""−log p of what was said of each pair, under Bradley and Terry's model, or Rao and Kupper's with ties.

        P(first) = σ(D − ln θ)     P(second) = σ(−D − ln θ)     P(tie) = (θ² − 1) P(first) P(second)
        term = −y log P(first) − (1 − y) log P(second), of a tie −log P(tie)        D = margin − offset

    The three add up to 1. At θ = 1 there are no ties, and y = 1 is the loss of DPO.

    Args:
        margins: the reward of the first less that of the second; gradients pass.
        labels: y in [0, 1], the chance that the first is preferred; default: it is. A label of ½ says that people
            disagree; a tie, that they see no difference.
        tied: True where the pair was called a tie; its label does not matter.
        theta: θ ≥ 1: how much better one must be to be called so.
        offset: by how much the first is to earn more than the second, such as what people's marks of the two differ
            by; a number, or one for each pair. Without it any margin on the right side is as good as a wide one.

    Returns:
        One term per pair, in float32 or wider.

    Raises:
        ValueError: if the shapes differ, a label is outside of [0, 1], θ < 1, or there are ties at θ = 1, where they
            are impossible.

    Source: Bradley and Terry (1952); Rao and Kupper (1967), θ = 5 in VideoAlign (arXiv 2501.13918), whose other margins
    are offsets: marks, or 0.57 for all; soft labels as in RPO (2407.12164).

    >>> pair_terms(torch.zeros(2), tied=torch.tensor([False, True]), theta=5.0)
    tensor([1.7918, 0.4055])
    """
    for name, value in (("labels", labels), ("tied", tied)):
        if value is not None and value.shape != margins.shape:
            raise ValueError(f"{name} must be {tuple(margins.shape)} like the margins, got {tuple(value.shape)}")
    if not 1 <= theta < math.inf:
        raise ValueError(f"theta must be at least 1, got {theta}")
    if theta == 1 and tied is not None and tied.any():
        raise ValueError("tied has ties, which theta=1 says cannot be: pass theta above 1, or label them ½")
    wide = torch.promote_types(margins.dtype, torch.float32)
    margins = margins.to(wide) - _beside(offset, margins, "offset")
    first, second = logsigmoid(margins - math.log(theta)), logsigmoid(-margins - math.log(theta))
    if labels is None:
        terms = -first
    else:
        labels = labels.detach().to(wide)
        if not ((labels >= 0) & (labels <= 1)).all():
            raise ValueError("labels are chances that the first is preferred: they must be in [0, 1]")
        terms = -(labels * first + (1 - labels) * second)
    if theta == 1 or tied is None:
        return terms
    return torch.where(tied, -(first + second) - math.log(theta**2 - 1), terms)


def pair_loss(
    margins: Float[Tensor, "*m"],
    *,
    labels: Float[Tensor, "*m"] | None = None,
    tied: Bool[Tensor, "*m"] | None = None,
    theta: float = 1.0,
    offset: float | Float[Tensor, "*m"] = 0.0,
    weight: float | Float[Tensor, "*m"] = 1.0,
    mask: Bool[Tensor, "*m"] | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The weighted mean of `pair_terms`: Diffusion-DPO of `implicit_scores`, DPO of log-ratios, a model of rewards.

    What stands where `mask` is False, NaN included, reaches neither the loss nor a gradient. Losses of parts add up
    to the whole with `denominator` given.

    Args:
        margins, labels, tied, theta, offset: see `pair_terms`; more than one column for rewards of several dimensions.
        weight: w ≥ 0, how much each pair counts, such as how far apart people saw the two. Not divided by: at twice
            the weight the loss is twice as large.
        mask: False where there is no verdict.
        denominator: the number of pairs of the whole batch, where this is a part of it; by default those of `mask`.

    Returns:
        The loss, 0 without pairs; and sums, detached: "pairs", "strict" (neither tied nor labelled ½) and "right"
        (strict pairs whose margin is on the side of their label; a margin of 0 is on neither).

    Raises:
        ValueError: as `pair_terms`, or if a weight is negative.

    Source: DPO (arXiv 2305.18290), Diffusion-DPO (2311.12908), Flow-DPO and the reward models of VideoAlign
    (2501.13918; the weights are of its scaled loss), whose released loss divides by masked entries too.

    >>> loss, sums = pair_loss(torch.tensor([2.0, -1.0, float("nan")]), mask=torch.tensor([True, True, False]))
    >>> round(loss.item(), 4), sums["right"].item()
    (0.7201, 1.0)
    """
    here = torch.ones_like(margins, dtype=torch.bool) if mask is None else mask
    if here.shape != margins.shape:
        raise ValueError(f"mask must be {tuple(margins.shape)} like the margins, got {tuple(here.shape)}")
    margins = torch.where(here, margins, 0.0)
    labels = None if labels is None else torch.where(here, labels, 0.5)
    tied = None if tied is None else tied & here
    offset, weight = (
        torch.where(here, _beside(x, margins, name), 0.0) for x, name in ((offset, "offset"), (weight, "weight"))
    )
    if not (weight >= 0).all():
        raise ValueError("weight must not be negative: a pair the other way round has label 0")
    terms = torch.where(here, pair_terms(margins, labels=labels, tied=tied, theta=theta, offset=offset), 0.0) * weight
    count = here.sum().to(terms.dtype)
    loss = terms.sum() / (count.clamp(min=1) if denominator is None else denominator)
    with torch.no_grad():
        side = torch.ones_like(terms) if labels is None else labels.to(terms.dtype) - 0.5
        strict = here & (side != 0) & (True if tied is None else ~tied)
        right = strict & (side * margins > 0)
    return loss, {"pairs": count, "strict": strict.sum().to(count), "right": right.sum().to(count)}


def unpaired_terms(
    scores: Float[Tensor, "*n"], desired: Bool[Tensor, "*n"], anchor: float | Float[Tensor, ""]
) -> Float[Tensor, "*n"]:
    """1 − σ(r − z) of what is desired, 1 − σ(z − r) of what is not; z is what counts as neither.

    Source: KTO (arXiv 2402.01306).

    >>> unpaired_terms(torch.tensor([0.0, 2.0]), torch.tensor([True, True]), 0.0)
    tensor([0.5000, 0.1192])
    """
    return torch.sigmoid(torch.where(desired, anchor - scores, scores - anchor))


def unpaired_loss(
    scores: Float[Tensor, "n"],
    desired: Bool[Tensor, "n"],
    *,
    anchor: float | Float[Tensor, ""] | None = None,
    positive: float = 1.0,
    negative: float = 1.0,
    mask: Bool[Tensor, "n"] | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Learn from samples that are good or bad each by itself: KTO, of `implicit_scores` Diffusion-KTO.

        loss = 1/n Σ λᵢ (1 − σ(±(rᵢ − z)))        z = max(mean r, 0), without gradient

    Unlike a pair's, the weight of a sample falls on both sides: what is already far better, or hopelessly far from
    what it should be, is left alone.

    Args:
        scores: r; gradients pass.
        desired: True for the good.
        anchor: z; by default from the scores given, an estimate of the KL to the reference.
        positive: λ of the desired.
        negative: λ of the others.
        mask: False where there is no verdict.
        denominator: the number of samples of the whole batch, where this is a part of it. Give `anchor` with it.

    Returns:
        The loss, 0 without samples; and sums, detached: "samples", and "right" (on their side of 0).

    Raises:
        ValueError: if the shapes differ.

    Source: KTO (arXiv 2402.01306); Diffusion-KTO in DRAGON (2504.15217), which writes −σ for 1 − σ.

    >>> round(unpaired_loss(torch.zeros(2), torch.tensor([True, False]))[0].item(), 4)
    0.5
    """
    here = torch.ones_like(desired, dtype=torch.bool) if mask is None else mask
    if not scores.shape == desired.shape == here.shape or scores.ndim != 1:
        shapes = [tuple(x.shape) for x in (scores, desired, here)]
        raise ValueError(f"scores, desired and mask must have one shape (n,), got {shapes}")
    desired = desired.bool()
    scores = torch.where(here, scores.to(torch.promote_types(scores.dtype, torch.float32)), 0.0)
    count = here.sum().to(scores.dtype)
    if anchor is None:
        anchor = (scores.detach().sum() / count.clamp(min=1)).clamp(min=0)
    terms = unpaired_terms(scores, desired, anchor) * torch.where(desired, positive, negative).to(scores)
    loss = torch.where(here, terms, 0.0).sum() / (count.clamp(min=1) if denominator is None else denominator)
    right = here & torch.where(desired, scores > 0, scores < 0)
    return loss, {"samples": count, "right": right.sum().to(count)}


def ranked_loss(
    scores: Float[Tensor, "n"],
    rewards: Float[Tensor, "n"],
    groups: Int[Tensor, "n"],
    *,
    temperature: float = 0.05,
    places: int | None = None,
    mask: Bool[Tensor, "n"] | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Learn the order of a group, place by place: who is the best, of the rest who is the best, and so on.

        L = Σᵢ [log Σ_{m ≥ i} e^{sₘ} − Σ_{j ≥ i} qᵢ(j) sⱼ]        qᵢ = softmax(r_{i..k} / τ),  r₁ ≥ … ≥ r_k

    the mean over groups of more than one. τ → 0 is Plackett and Luce's model of the order, and for two samples
    Bradley and Terry's. A soft target does not press apart what earned nearly the same. Takes n² numbers.

    Args:
        scores: s, implicit rewards; gradients pass. A constant on a whole group changes nothing.
        rewards: r, any real unit.
        groups: rows with equal numbers answer one prompt.
        temperature: τ ≥ 0, in the unit of the rewards; at 0 the target is the best, shared among equals.
        places: learn only this many places from the top; by default all.
        mask: False where the reward abstained.
        denominator: the number of groups of the whole batch, where this is a part of it.

    Returns:
        The loss, 0 without a group of two; and sums, detached: "groups" (of more than one).

    Raises:
        ValueError: if the shapes differ, τ < 0, places < 1, or a reward is not finite.

    Source: GDRO (arXiv 2601.02036): τ = 0.05; places=1 is its top-1 variant. Plackett (1975), Luce (1959).

    >>> s, r = torch.tensor([1.0, 0.2, -0.5]), torch.tensor([1.0, 0.5, 0.0])
    >>> round(ranked_loss(s, r, torch.zeros(3, dtype=int))[0].item(), 4)
    0.9175
    """
    here = torch.ones_like(groups, dtype=torch.bool) if mask is None else mask
    if not scores.shape == rewards.shape == groups.shape == here.shape or scores.ndim != 1:
        shapes = [tuple(x.shape) for x in (scores, rewards, groups, here)]
        raise ValueError(f"scores, rewards, groups and mask must have one shape (n,), got {shapes}")
    if not 0 <= temperature < math.inf or (places is not None and places < 1):
        raise ValueError(f"temperature must be at least 0 and places at least 1, got {temperature} and {places}")
    wide = torch.promote_types(scores.dtype, torch.float32)
    s = torch.where(here, scores.to(wide), 0.0)
    r = torch.where(here, rewards.detach().to(wide), 0.0)
    if not torch.isfinite(r).all():
        raise ValueError("rewards must be finite: mask what was not scored")
    if not len(r):
        return s.sum(), {"groups": s.detach().sum()}
    order = torch.empty_like(groups, dtype=torch.long)
    order[r.argsort(descending=True, stable=True)] = torch.arange(len(r), device=r.device)
    together = (groups[:, None] == groups) & here[:, None] & here
    after = together & (order[:, None] <= order)  # each row stands before itself and the worse of its group
    rivals = after.sum(1)
    kept = here & (rivals > 1)
    if places is not None:
        kept = kept & ((together & (order[:, None] > order)).sum(1) < places)
    # A row without rivals still needs one finite entry, or its gradient is 0 · ∞.
    after = after | torch.eye(len(r), dtype=torch.bool, device=r.device)
    table = torch.where(after, r.expand(len(r), -1), -torch.inf)
    if temperature:
        target = ((table - table.amax(1, keepdim=True)) / temperature).exp()
    else:
        target = (table == table.amax(1, keepdim=True)).to(wide)
    target = target / target.sum(1, keepdim=True)
    terms = torch.where(after, s.expand(len(s), -1), -torch.inf).logsumexp(1) - target @ s
    number = (together.sum(1) > 1).to(wide) / together.sum(1).clamp(min=1)  # a group's members add up to 1
    count = number.sum().round()
    loss = torch.where(kept, terms, 0.0).sum() / (count.clamp(min=1) if denominator is None else denominator)
    return loss, {"groups": count}


def group_margins(
    scores: Float[Tensor, "n"], advantages: Float[Tensor, "n"], groups: Int[Tensor, "n"]
) -> Float[Tensor, "g"]:
    r"""One margin per group, M = 1/G Σᵢ Aᵢ sᵢ: a comparison of the better half with the worse, all at once.

    `pair_loss` of it has the gradient −σ(−M) 1/G Σ Aᵢ ∇sᵢ: that of a policy gradient, weighted by how much the group
    is still to be learned, and free of any constant that all scores of a group share as long as Σ A = 0. With two
    samples and A = ±1 it is half the margin of DPO.

    Args:
        scores: s, implicit rewards; gradients pass.
        advantages: A, as `credit.group_relative` gives them; 0 for what abstained.
        groups: rows with equal numbers answer one prompt.

    Returns:
        One per group, in the order of their numbers.

    Raises:
        ValueError: if the shapes differ.

    Source: DGPO (Luo-Yihong/DGPO); the surrogate reward of TDM-R1 (arXiv 2603.07700), whose loss is σ(−M) Aᵢ dᵢ.

    >>> group_margins(torch.tensor([2.0, 1.0]), torch.tensor([1.0, -1.0]), torch.tensor([0, 0]))
    tensor([0.5000])
    """
    if not scores.shape == advantages.shape == groups.shape or scores.ndim != 1:
        shapes = [tuple(x.shape) for x in (scores, advantages, groups)]
        raise ValueError(f"scores, advantages and groups must have one shape (n,), got {shapes}")
    distinct, index, size = torch.unique(groups, return_inverse=True, return_counts=True)
    wide = torch.promote_types(scores.dtype, torch.float32)
    signed = scores.to(wide) * advantages.detach().to(wide)
    margins: Tensor = torch.zeros(len(distinct), dtype=wide, device=scores.device).index_add(0, index, signed) / size
    return margins


def group_preference(
    logp: Float[Tensor, "n t"],
    ref_logp: Float[Tensor, "n t"],
    rewards: Float[Tensor, "n"],
    groups: Int[Tensor, "n"],
    mask: Bool[Tensor, "n t"],
    *,
    beta: float = 0.1,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""DPO within groups: of any two rollouts of a prompt, the one with the larger reward is preferred.

        loss = 1/G Σ_g mean over the pairs of g of −log σ(β (d_w − d_l))        d = Σₜ (logpₜ − ref_logpₜ)

    With rewards of 0 and 1 the pairs are every pass with every failure of the same prompt; equals are no pair. Every
    prompt weighs the same, however many pairs it has; one without any adds nothing, and counts among the G.

    Losses of parts add up to the whole with `denominator` given, if no group is cut in two. A row without written
    tokens is in no group. Takes n² numbers.

    Args:
        logp: log-probabilities of the tokens under the policy, in nats; gradients pass.
        ref_logp: under the reference; no gradient passes.
        rewards: any real unit; only their order counts.
        groups: rows with equal numbers answer the same prompt; in any order.
        mask: True at the tokens that count.
        beta: β > 0, how much a nat of log-ratio is worth.
        denominator: the number of groups of the whole batch, where this is a part of it.

    Returns:
        The loss, 0 without pairs; and sums, detached: "tokens", "groups" (all), "kept" (with a pair), "pairs", and
        "right" (pairs whose log-ratios are in their order).

    Raises:
        ValueError: if the shapes do not fit, or β is not above 0.

    Source: DPO (arXiv 2305.18290) on pairs of attempts at one task, as in Agent-RLVR (2506.11425).

    >>> logp, here = torch.tensor([[1.0], [0.0], [0.0]]), torch.ones(3, 1, dtype=bool)
    >>> rewards, groups = torch.tensor([1.0, 0.0, 1.0]), torch.zeros(3, dtype=int)
    >>> loss, _ = group_preference(logp, 0 * logp, rewards, groups, here, beta=1.0)
    >>> round(loss.item(), 4)  # the mean of −log σ(1) and −log σ(0)
    0.5032
    """
    if not logp.shape == ref_logp.shape == mask.shape or logp.ndim != 2:
        shapes = [tuple(x.shape) for x in (logp, ref_logp, mask)]
        raise ValueError(f"logp, ref_logp and mask must have one shape (n, t), got {shapes}")
    if not rewards.shape == groups.shape == logp.shape[:1]:
        shapes = [tuple(x.shape) for x in (rewards, groups)]
        raise ValueError(f"rewards and groups must be ({len(logp)},), one per row, got {shapes}")
    if not beta > 0:
        raise ValueError(f"beta must be above 0, got {beta}")
    wide = torch.promote_types(logp.dtype, torch.float32)
    now, then = (torch.where(mask, x.to(wide), 0.0) for x in (logp, ref_logp.detach()))
    scores, written = (now - then).sum(1), mask.any(1)
    distinct, group = torch.unique(groups, return_inverse=True)
    together = (group[:, None] == group) & written[:, None] & written
    better, worse = (together & (rewards[:, None] > rewards)).nonzero(as_tuple=True)
    margins = beta * (scores[better] - scores[worse])
    zeros = torch.zeros(len(distinct), dtype=wide, device=logp.device)
    total = zeros.index_add(0, group[better], pair_terms(margins))
    count = zeros.index_add(0, group[better], torch.ones_like(margins))
    number = torch.unique(groups[written]).numel()
    loss = (total / count.clamp(min=1)).sum() / (max(number, 1) if denominator is None else denominator)
    sums = {"tokens": mask.sum(), "groups": torch.tensor(number), "kept": (count > 0).sum(), "pairs": count.sum()}
    sums["right"] = (margins > 0).sum()
    return loss, {name: value.detach().to(loss) for name, value in sums.items()}


def _beside(value: float | Tensor, margins: Tensor, name: str) -> Tensor:
    """A number, or one for each margin; a constant."""
    found = torch.as_tensor(value, device=margins.device).detach().to(torch.promote_types(margins.dtype, torch.float32))
    if found.ndim and found.shape != margins.shape:
        raise ValueError(
            f"{name} must be a number or {tuple(margins.shape)} like the margins, got {tuple(found.shape)}"
        )
    return found
