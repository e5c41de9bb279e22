"""Distillation and tilting: a policy drawn towards a mixture of others, on its own tokens or the whole vocabulary."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.objectives.aggregate import Aggregate, denominator as denominator_of
from guerdon.objectives.clip import Rule, ppo
from guerdon.objectives.off_policy import truncated_importance
from guerdon.objectives.policy import policy_gradient
from guerdon.objectives.ratio import Ratio


def tilted(
    target: Float[Tensor, "*n v"],
    anchor: Float[Tensor, "*n v"],
    *,
    strength: float | Float[Tensor, "*n"] = 1.0,
) -> Float[Tensor, "*n v"]:
    r"""The geometric mixture π* ∝ anchor^{1−w} · target^w, as log-probabilities.

        log π* = log softmax(z_anchor + w (z_target − z_anchor))

    It maximises w · E[log target/anchor] − KL(π ‖ anchor): w = 1 is the target, less lies between the two, more goes on
    beyond the target, away from the anchor. A model tuned by DPO with β, used as the reward of an RLHF with KL weight
    β', has w = β/β'.

    Args:
        target, anchor: logits or log-probabilities, finite; a constant added to either changes nothing.
        strength: w, for all tokens or for each.

    Returns:
        Log-probabilities, in nats, in float32 or wider.

    Raises:
        ValueError: if the shapes do not fit.

    Source: AlignDistil (arXiv 2503.02832, theorem 1; contrast is anchor = the reverse model, with strength 1 + w);
    G-OPD (2602.12125).

    >>> tilted(torch.tensor([0.8, 0.2]).log(), torch.tensor([0.5, 0.5]).log(), strength=2.0).exp()
    tensor([0.9412, 0.0588])
    """
    _check_pair(target, anchor, "target", "anchor")
    wide = torch.promote_types(torch.promote_types(target.dtype, anchor.dtype), torch.float32)
    target, anchor = target.to(wide), anchor.to(wide)
    if isinstance(strength, Tensor):
        if strength.shape not in ((), target.shape[:-1]):
            raise ValueError(f"strength must be a number or {tuple(target.shape[:-1])}, got {tuple(strength.shape)}")
        strength = strength[..., None]
    return (anchor + strength * (target - anchor)).log_softmax(-1)


def adaptive_strength(
    first: Float[Tensor, "*n v"],
    second: Float[Tensor, "*n v"],
    *,
    slope: float = 15.0,
    floor: float = 1e-3,
) -> Float[Tensor, "*n"]:
    r"""How far to extrapolate at each token: more where the two models disagree.

        w = slope · Σᵥ |p₁ᵥ − p₂ᵥ| + floor

    Args:
        first, second: logits or log-probabilities, finite; no gradient passes through.
        slope: k ≥ 0; the sum of differences lies in [0, 2].
        floor: w where the models agree, above 0: the loss divides by w.

    Returns:
        One weight per token, in [floor, floor + 2·slope].

    Raises:
        ValueError: if the shapes differ, slope < 0 or floor ≤ 0.

    Source: AlignDistil (arXiv 2503.02832, §4.3), with the numbers of its scripts.

    >>> adaptive_strength(torch.tensor([0.8, 0.2]).log(), torch.tensor([0.5, 0.5]).log())
    tensor(9.0010)
    """
    _check_pair(first, second, "first", "second")
    if slope < 0 or not floor > 0:
        raise ValueError(f"slope must not be negative and floor must be above 0, got {slope} and {floor}")
    wide = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    first, second = (x.detach().to(wide).softmax(-1) for x in (first, second))
    return slope * (first - second).abs().sum(-1) + floor


def expected_log_ratio(
    logits: Float[Tensor, "*n v"],
    target: Float[Tensor, "*n v"],
    anchor: Float[Tensor, "*n v"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, "*n"]:
    r"""The policy's expected token reward E_π[β log target/anchor]: the implicit reward of a DPO-tuned target.

    Args:
        logits: of the policy, finite; the result is differentiable by them.
        target, anchor: logits of the tuned model and of what it was tuned from, finite.
        beta: the β of the tuning.

    Returns:
        One reward per token.

    Raises:
        ValueError: if the shapes differ.

    Source: AlignDistil (arXiv 2503.02832, eq. 7); the token reward is that of "From r to Q*" (2404.12358).

    >>> p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    >>> expected_log_ratio(q, p, p), round(expected_log_ratio(q, p, q, beta=1.0).item(), 4)
    (tensor(0.), -0.1308)
    """
    _check_pair(logits, target, "logits", "target")
    _check_pair(logits, anchor, "logits", "anchor")
    wide = torch.promote_types(logits.dtype, torch.float32)
    reward = beta * (target.to(wide).log_softmax(-1) - anchor.to(wide).log_softmax(-1))
    return (logits.to(wide).softmax(-1) * reward).sum(-1)


def distillation(
    logits: Float[Tensor, "n t v"],
    teacher: Float[Tensor, "n t v"],
    mask: Bool[Tensor, "n t"],
    *,
    direction: Literal["reverse", "forward"] = "reverse",
    temperature: float = 1.0,
    weight: Float[Tensor, "n t"] | None = None,
    aggregate: Aggregate = "sequence-mean",
    length: int | None = None,
    denominator: float | Float[Tensor, "*n"] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""KL between the policy and a teacher over the whole vocabulary, at every written token.

        loss = Σᵢ 1/Dᵢ Σₜ wᵢₜ KL(π ‖ q)        q = softmax(z_teacher / T); "forward" is KL(q ‖ π)

    Reverse seeks a mode of the teacher and belongs to the policy's own samples; forward covers all of it. What stands
    where `mask` is False, NaN included, reaches neither the loss nor a gradient.

    Args:
        logits: of the policy, finite; the only argument with gradients.
        teacher: logits or log-probabilities, finite; from `tilted`, say.
        mask: True at the written tokens.
        direction: which KL.
        temperature: T > 0 of the teacher; below 1 it is sharpened.
        weight: of a token, e.g. β/w with the strength w of `adaptive_strength`.
        aggregate, length, denominator: as for `policy_gradient`; losses of parts of a batch add up.

    Returns:
        The loss, and sums over the written tokens, detached: "tokens" and "kl", without the weight.

    Raises:
        ValueError: if the shapes do not fit, or T ≤ 0.

    Source: AlignDistil (arXiv 2503.02832, eq. 13); both directions on-policy: GKD (2306.13649).

    >>> teacher, here = torch.tensor([[[0.8, 0.2]]]).log(), torch.tensor([[True]])
    >>> round(distillation(torch.zeros(1, 1, 2), teacher, here)[0].item(), 4)
    0.2231
    """
    _check_pair(logits, teacher, "logits", "teacher")
    if logits.ndim != 3 or mask.shape != logits.shape[:2]:
        raise ValueError(f"logits (n, t, v) and mask (n, t) do not fit: {tuple(logits.shape)}, {tuple(mask.shape)}")
    if weight is not None and weight.shape != mask.shape:
        raise ValueError(f"weight must be {tuple(mask.shape)}, got {tuple(weight.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    wide = torch.promote_types(logits.dtype, torch.float32)
    ours = logits[mask].to(wide).log_softmax(-1)
    theirs = (teacher.detach()[mask].to(wide) / temperature).log_softmax(-1)
    left, right = (ours, theirs) if direction == "reverse" else (theirs, ours)
    divergence = (left.exp() * (left - right)).sum(-1)
    terms = divergence if weight is None else divergence * weight.detach()[mask].to(wide)
    if denominator is None:
        denominator = denominator_of(mask, aggregate, length=length)
    table = torch.zeros(mask.shape, dtype=wide, device=mask.device).masked_scatter(mask, terms)
    return (table.sum(1) / denominator).sum(), {"tokens": mask.sum().to(wide), "kl": divergence.detach().sum()}


def extrapolated_advantages(
    old_logp: Float[Tensor, "n t"],
    teacher_logp: Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    ref_logp: Float[Tensor, "n t"] | None = None,
    strength: float = 1.0,
) -> Float[Tensor, "n t"]:
    r"""On-policy distillation as token advantages: towards the teacher, or beyond it.

        A = λ (log π_teacher − log π_ref) − (log π_old − log π_ref)

    The policy gradient with these advantages maximises λ E[log teacher/ref] − KL(π ‖ ref); its optimum is
    π ∝ ref^{1−λ} teacher^λ (`tilted`). λ = 1 is plain on-policy distillation, whatever the reference; 1.25
    extrapolates. With several teachers, pass for each row the log-probabilities of its own.

    Args:
        old_logp: log-probabilities of the sampled tokens under the policy that drew them, in nats.
        teacher_logp: under the teacher.
        mask: True at the tokens written by the policy.
        ref_logp: under the reference: the policy at its start, or the teacher before its own training. Not needed at
            λ = 1.
        strength: λ.

    Returns:
        Advantages per token, in nats, without gradient; 0 where masked.

    Raises:
        ValueError: if the shapes differ, or λ ≠ 1 has no reference.

    Source: G-OPD and ExOPD (arXiv 2602.12125).

    >>> old, teacher, ref = torch.tensor([[[0.2]], [[0.4]], [[0.1]]]).log()
    >>> extrapolated_advantages(old, teacher, old < 0, ref_logp=ref, strength=1.25)
    tensor([[1.0397]])
    """
    given = [x for x in (old_logp, teacher_logp, mask, ref_logp) if x is not None]
    if any(x.shape != old_logp.shape for x in given):
        shapes = [tuple(x.shape) for x in given]
        raise ValueError(f"old_logp, teacher_logp, mask and ref_logp must have one shape, got {shapes}")
    if ref_logp is None and strength != 1.0:
        raise ValueError(f"strength {strength} says how far to go from a reference: pass ref_logp, or strength 1")
    wide = torch.promote_types(old_logp.dtype, torch.float32)
    advantages = teacher_logp.detach().to(wide) - old_logp.detach().to(wide)
    if ref_logp is not None and strength != 1.0:
        advantages = advantages + (strength - 1) * (teacher_logp.detach().to(wide) - ref_logp.detach().to(wide))
    return torch.where(mask, advantages, 0.0)


def extrapolated_policy_gradient(
    logp: Float[Tensor, "n t"],
    old_logp: Float[Tensor, "n t"],
    teacher_logp: Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    ref_logp: Float[Tensor, "n t"] | None = None,
    sampler_logp: Float[Tensor, "n t"] | None = None,
    strength: float = 1.0,
    cap: float = 5.0,
    ratio: Ratio = "token",
    clip: Rule = ppo,
    aggregate: Aggregate = "token-mean",
    length: int | None = None,
    kl: Float[Tensor, "n t"] | None = None,
    denominator: float | Float[Tensor, "*n"] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""On-policy distillation: `policy_gradient` with `extrapolated_advantages`; no reward is looked at.

    Args:
        logp, old_logp, mask, ratio, clip, aggregate, length, kl, denominator: as for `policy_gradient`.
        teacher_logp, ref_logp, strength: as for `extrapolated_advantages`.
        sampler_logp: as the sampler reported them, for the weight min(π_old/μ, cap); None: the sampler is π_old.
        cap: the largest weight; see `truncated_importance`.

    Returns:
        The loss, and the sums of `policy_gradient`, with "teacher_advantage" (that of the advantages) beside them: at
        strength 1 its mean estimates −KL(π_old ‖ teacher).

    Raises:
        ValueError: as the three functions it is made of.

    Source: G-OPD and ExOPD (arXiv 2602.12125).

    >>> old, teacher = torch.tensor([[[0.2]], [[0.4]]]).log()
    >>> loss, _ = extrapolated_policy_gradient(old, old, teacher, old < 0)
    >>> round(loss.item(), 4)
    -0.6931
    """
    advantages = extrapolated_advantages(old_logp, teacher_logp, mask, ref_logp=ref_logp, strength=strength)
    weight = None if sampler_logp is None else truncated_importance(old_logp, sampler_logp, mask, cap=cap)
    loss, sums = policy_gradient(
        logp,
        old_logp,
        advantages,
        mask,
        ratio=ratio,
        clip=clip,
        aggregate=aggregate,
        length=length,
        kl=kl,
        denominator=denominator,
        off_policy=weight,
    )
    return loss, sums | {"teacher_advantage": advantages.sum()}


def adaptive_distillation(
    logits: Float[Tensor, "n t v"],
    teacher: Float[Tensor, "n t v"],
    anchor: Float[Tensor, "n t v"],
    mask: Bool[Tensor, "n t"],
    *,
    contrast: bool = True,
    slope: float = 15.0,
    floor: float = 1e-3,
    beta: float = 0.1,
    direction: Literal["reverse", "forward"] = "reverse",
    temperature: float = 1.0,
    aggregate: Aggregate = "sequence-mean",
    length: int | None = None,
    denominator: float | Float[Tensor, "*n"] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Distil a mixture of two models, chosen at every token by how far they disagree: the reward of a tuned model.

        loss = `distillation` towards π*, times β/w        w = `adaptive_strength`(teacher, anchor)
        π* ∝ teacher^{1+w} anchor^{−w}  with contrast,  anchor^{1−w} teacher^w  without

    Slope 0 makes w the constant `floor`.

    Args:
        logits: of the policy; the only argument with gradients.
        teacher: logits of the model tuned to the preferences, by DPO say.
        anchor: of the model tuned to their reverse, with contrast; of what the teacher was tuned from, without.
        mask: True at the written tokens.
        contrast: go beyond the teacher, away from the anchor.
        slope, floor: as for `adaptive_strength`.
        beta: β of the tuning.
        direction, temperature, aggregate, length, denominator: as for `distillation`.

    Returns:
        The loss, and sums over the written tokens, detached: "tokens", "teacher_kl" (of π and π*, without weight),
        "strength" (w) and "token_reward" (`expected_log_ratio`).

    Raises:
        ValueError: as the functions it is made of.

    Source: AlignDistil (arXiv 2503.02832), with the numbers of its scripts.

    >>> logits = torch.tensor([[[0.8, 0.2]]]).log()
    >>> adaptive_distillation(logits, logits, logits, torch.tensor([[True]]))[0].abs()
    tensor(0.)
    """
    strength = adaptive_strength(teacher, anchor, slope=slope, floor=floor)
    target = tilted(teacher.detach(), anchor.detach(), strength=strength + 1 if contrast else strength)
    loss, sums = distillation(
        logits,
        target,
        mask,
        direction=direction,
        temperature=temperature,
        weight=beta / strength,
        aggregate=aggregate,
        length=length,
        denominator=denominator,
    )
    with torch.no_grad():
        reward = expected_log_ratio(logits[mask], teacher[mask], anchor[mask], beta=beta)
    seen = {"tokens": sums["tokens"], "teacher_kl": sums["kl"]}
    return loss, seen | {"strength": strength[mask].sum(), "token_reward": reward.sum()}


def _check_pair(first: Tensor, second: Tensor, *names: str) -> None:
    if first.shape != second.shape:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"{names[0]} and {names[1]} must have one shape, got {shapes}")
