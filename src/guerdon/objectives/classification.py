"""Rewards as labels: losses that tell the right rollouts of a prompt from the wrong ones."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.objectives.grouping import group_logsumexp, sequence_means

Form = Literal["anchored", "circle", "bce"]


def rewards_as_labels(
    logp: Float[Tensor, "n t"],
    old_logp: Float[Tensor, "n t"],
    labels: Bool[Tensor, "n"],
    mask: Bool[Tensor, "n t"],
    *,
    groups: Int[Tensor, "n"],
    form: Form = "anchored",
    temperature: float = 0.5,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Classify the rollouts of a prompt by how much more likely the policy has become to write them.

        sᵢ = 1/|yᵢ| Σₜ (logpᵢₜ − old_logpᵢₜ)        P, N: the rollouts labelled right and wrong
        anchored   log(1 + Σ_P e^{−s/τ}) + log(1 + Σ_N e^{s/τ})
        circle     log(1 + Σ_N e^{s/τ} · Σ_P e^{−s/τ})
        bce        the mean over the group of log(1 + e^{∓s/τ})

    summed over the groups that have both, and divided by the number of all groups. In GRPO the weight of a token
    grows with its ratio: what is likely already is pushed most, and a few confident wrong rollouts dominate. Here
    |∂loss/∂sᵢ| < 1/τ, and it falls as a rollout is classified better.

    Losses of parts add up to the whole with `denominator` given, if no group is cut in two. A row without written
    tokens is in no group.

    Args:
        logp: log-probabilities of the tokens under the policy, in nats; the only argument with gradients.
        old_logp: under the policy that wrote them.
        labels: True for a right rollout.
        mask: True at the tokens written by the policy.
        groups: rows with equal numbers answer the same prompt; in any order.
        form: which loss.
        temperature: τ > 0, in nats per token.
        denominator: the number of groups of the whole batch, where this is a part of it.

    Returns:
        The loss, and sums, detached: "tokens", "groups" (all) and "kept" (with both labels).

    Raises:
        ValueError: if the shapes do not fit, or τ ≤ 0.

    Source: REAL (arXiv 2602.05630); circle: 2002.10857.

    >>> s = torch.tensor([[0.1], [-0.2], [0.3]])
    >>> here, groups = torch.ones(3, 1, dtype=bool), torch.zeros(3, dtype=int)
    >>> loss, _ = rewards_as_labels(s, torch.zeros(3, 1), torch.tensor([True, False, False]), here, groups=groups)
    >>> round(loss.item(), 4)
    1.8487
    """
    _check_shapes(logp, mask, labels, groups, old_logp=old_logp)
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    wide = torch.promote_types(logp.dtype, torch.float32)
    logits = sequence_means(logp.to(wide) - old_logp.detach().to(wide), mask) / temperature
    right, wrong, group, kept = _split(labels, mask, groups)
    if form == "bce":
        terms = torch.nn.functional.softplus(torch.where(right, -logits, logits))
        members = (right | wrong).to(wide)
        size = torch.zeros_like(kept, dtype=wide).index_add(0, group, members)
        losses = torch.zeros_like(size).index_add(0, group, terms * members) / size.clamp(min=1)
    else:
        anchored = form == "anchored"
        positive = group_logsumexp(-logits, right, group, len(kept), anchor=anchored)
        negative = group_logsumexp(logits, wrong, group, len(kept), anchor=anchored)
        losses = positive + negative if anchored else torch.nn.functional.softplus(positive + negative)
    return _over_groups(losses, kept, mask, groups, denominator)


def decoupled_reward(
    logp: Float[Tensor, "n t"],
    labels: Bool[Tensor, "n"],
    mask: Bool[Tensor, "n t"],
    *,
    groups: Int[Tensor, "n"],
    preference: Float[Tensor, "n"] | None = None,
    sharpness: float = 0.1,
    temperature: float = 10.0,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Raise the right rollouts, the preferred ones most, and push down the wrong ones, each by themselves.

        J = Σ_P wᵢ sᵢ / Σ_P wᵢ − τ log (1/|N| Σ_N e^{sⱼ/τ})        sᵢ = 1/|yᵢ| Σₜ logpᵢₜ,  wᵢ = e^{preferenceᵢ/λ}

    The loss is −J, summed over the groups that have both right and wrong rollouts and divided by the number of all
    groups. A length penalty inside a group-normalised reward gives a long but right rollout a negative advantage;
    here it only moves weight among the right ones, and ∂J/∂sᵢ ≥ 0 for each of them. The weights are those of the
    distribution that maximises E[preference] − λ·KL from the right rollouts.

    Wants a constraint beside it: add `kl_hinge`. Losses of parts add up to the whole with `denominator` given, if no
    group is cut in two. A row without written tokens is in no group.

    Args:
        logp: log-probabilities of the tokens under the policy, in nats.
        labels: True for a right rollout.
        mask: True at the tokens written by the policy.
        groups: rows with equal numbers answer the same prompt; in any order.
        preference: among the right rollouts, e.g. 1 − length / limit; None: all alike.
        sharpness: λ > 0, in the unit of `preference`; at infinity all right rollouts weigh the same.
        temperature: τ > 0, in nats per token; smaller looks at the likeliest wrong rollouts only.
        denominator: the number of groups of the whole batch, where this is a part of it.

    Returns:
        The loss, with the value of −J itself, and sums, detached: "tokens", "groups" (all) and "kept".

    Raises:
        ValueError: if the shapes do not fit, or a λ or τ is not above 0.

    Source: DRPO (arXiv 2510.04474); without preference, DisCO (2505.12366).

    >>> logp, here = torch.tensor([[-1.0], [-3.0], [-2.0]]), torch.ones(3, 1, dtype=bool)
    >>> labels, groups = torch.tensor([True, True, False]), torch.zeros(3, dtype=int)
    >>> decoupled_reward(logp, labels, here, groups=groups)[0]
    tensor(0.)
    """
    _check_shapes(logp, mask, labels, groups)
    if preference is not None and preference.shape != labels.shape:
        raise ValueError(f"preference must be {tuple(labels.shape)}, got {tuple(preference.shape)}")
    if not sharpness > 0 or not temperature > 0:
        raise ValueError(f"sharpness and temperature must be above 0, got {sharpness} and {temperature}")
    scores = sequence_means(logp, mask)
    right, wrong, group, kept = _split(labels, mask, groups)
    liking = torch.zeros_like(scores) if preference is None or math.isinf(sharpness) else preference / sharpness
    liking = torch.where(right, liking.detach().to(scores), 0.0)
    normaliser = group_logsumexp(liking, right, group, len(kept))
    weights = torch.where(right, liking - normaliser[group], -torch.inf).exp()
    positive = torch.zeros_like(normaliser).index_add(0, group, weights * scores)
    count = torch.zeros_like(normaliser).index_add(0, group, wrong.to(scores)).clamp(min=1)
    negative = temperature * (group_logsumexp(scores / temperature, wrong, group, len(kept)) - count.log())
    return _over_groups(negative - positive, kept, mask, groups, denominator)


def _split(labels: Tensor, mask: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Right rows, wrong rows, the number of each row's group, and which groups have both."""
    distinct, group = torch.unique(groups, return_inverse=True)
    written = mask.any(1)
    right, wrong = written & labels.bool(), written & ~labels.bool()
    right_count, wrong_count = (
        torch.zeros(len(distinct), device=mask.device).index_add(0, group, rows.float()) for rows in (right, wrong)
    )
    return right, wrong, group, (right_count > 0) & (wrong_count > 0)


def _over_groups(
    losses: Tensor, kept: Tensor, mask: Tensor, groups: Tensor, denominator: float | Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    number = torch.tensor(float(len(torch.unique(groups[mask.any(1)]))), device=losses.device)
    divisor = number.clamp(min=1) if denominator is None else denominator
    loss = torch.where(kept, losses, 0.0).sum() / divisor
    return loss, {"tokens": mask.sum().float(), "groups": number, "kept": kept.sum().float()}


def _check_shapes(logp: Tensor, mask: Tensor, labels: Tensor, groups: Tensor, **others: Tensor) -> None:
    if logp.ndim != 2:
        raise ValueError(f"logp must be (n, t), got {tuple(logp.shape)}")
    for name, value, shape in (
        ("mask", mask, logp.shape),
        ("labels", labels, logp.shape[:1]),
        ("groups", groups, logp.shape[:1]),
        *((name, value, logp.shape) for name, value in others.items()),
    ):
        if value.shape != shape:
            raise ValueError(f"{name} must be {tuple(shape)} beside logp {tuple(logp.shape)}, got {tuple(value.shape)}")
