"""How far the policy has moved from its reference, from the tokens it wrote."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.objectives.ratio import safe_exp

Estimator = Literal["k1", "k2", "k3"]


def kl_penalty(
    logp: Float[Tensor, "n t"],
    ref_logp: Float[Tensor, "n t"],
    *,
    kind: Estimator = "k3",
    mask: Bool[Tensor, "n t"] | None = None,
    ratio: Float[Tensor, "n _"] | None = None,
) -> Float[Tensor, "n t"]:
    r"""Per-token estimates of KL(π ‖ π_ref) from one sample each.

        k1 = −d          k2 = d²/2          k3 = eᵈ − d − 1          d = ref_logp − logp

    k1 and k3 are unbiased for tokens sampled from π, k2 nearly so for a small KL; k2 and k3 are never negative.
    As a *loss* they differ: the expected gradient of k1 is zero (it belongs in the reward), that of k2 is the
    gradient of the KL, that of k3 is biased but pulls towards the reference everywhere. Times the importance ratio
    π/π_old, k3 has the gradient of the KL too, also for tokens that an older policy wrote.

    k3 is exact for d ≤ 20; above, eᵈ is continued by its tangent (`safe_exp`), so that it neither overflows
    nor loses its gradient where the policy has drifted most.

    Args:
        logp: log-probabilities under the policy, in nats.
        ref_logp: under the reference; no gradient passes through it.
        kind: which estimator.
        mask: False where there is no token: the penalty is 0 and has no gradient, whatever stands there.
        ratio: multiplies the estimate, gradients included; from `importance_ratio`, per token or per row.

    Returns:
        The penalty per token, in nats, to be multiplied by its coefficient.

    Raises:
        ValueError: if the shapes differ.

    Source: Schulman, "Approximating KL Divergence" (2020); k3 in GRPO: DeepSeekMath (arXiv 2402.03300, eq. 4); times
    the ratio: DeepSeek-V3.2 (2512.02556), TRL's `use_bias_correction_kl`.

    >>> kl_penalty(torch.tensor([[0.5]]).log(), torch.tensor([[0.25]]).log())
    tensor([[0.1931]])
    """
    if logp.shape != ref_logp.shape or (mask is not None and mask.shape != logp.shape):
        shapes = [tuple(x.shape) for x in (logp, ref_logp, mask) if x is not None]
        raise ValueError(f"logp, ref_logp and mask must have one shape, got {shapes}")
    wide = torch.promote_types(logp.dtype, torch.float32)
    logp, ref_logp = logp.to(wide), ref_logp.detach().to(wide)
    if mask is not None:
        logp, ref_logp = torch.where(mask, logp, 0.0), torch.where(mask, ref_logp, 0.0)
    difference = ref_logp - logp
    if kind == "k1":
        penalty = -difference
    elif kind == "k2":
        penalty = 0.5 * difference**2
    else:
        penalty = safe_exp(difference) - difference - 1
    return penalty if ratio is None else penalty * ratio


def kl_hinge(
    logp: Float[Tensor, "n t"],
    old_logp: Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    kind: Literal["k1", "k3"] = "k1",
    limit: float = 1e-4,
    coefficient: float = 1e3,
    mean: float | Float[Tensor, ""] | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""A wall around the policy that wrote the batch: nothing within `limit`, a squared penalty beyond.

        loss = β/2 · max(KL − δ, 0)²        KL = the mean over written tokens of an estimate of KL(π_old ‖ π)

    It holds for a batch as a whole: the square of a mean is not a sum over rows. The losses of micro-batches add up to
    that of the batch, in value and gradient, where each is told the KL of all of it. The estimate k1 can be negative by
    chance; then there is no penalty.

    Args:
        logp: log-probabilities under the policy, in nats.
        old_logp: under the policy that wrote the tokens; no gradient passes through it.
        mask: True at the written tokens.
        kind: "k1", old_logp − logp, or "k3", eᵈ − d − 1 with d = logp − old_logp, which is never negative.
        limit: δ ≥ 0, in nats per token.
        coefficient: β ≥ 0, per nat².
        mean: the KL of the whole batch, where this is a part of it.
        denominator: its number of written tokens.

    Returns:
        The penalty; its gradient is β · max(KL − δ, 0) · ∇KL.

    Raises:
        ValueError: if the shapes differ, or only one of mean and denominator is given.

    Source: the constraint of DisCO (arXiv 2505.12366) and DRPO (2510.04474), whose code has the same gradient beside
    another value, β (KL − δ) KL.

    >>> penalty = kl_hinge(torch.tensor([[-1.01]]), torch.tensor([[-1.0]]), torch.tensor([[True]]))
    >>> round(penalty.item(), 6)
    0.049005
    """
    if not logp.shape == old_logp.shape == mask.shape:
        shapes = [tuple(x.shape) for x in (logp, old_logp, mask)]
        raise ValueError(f"logp, old_logp and mask must have one shape, got {shapes}")
    wide = torch.promote_types(logp.dtype, torch.float32)
    difference = torch.where(mask, logp.to(wide), 0.0) - torch.where(mask, old_logp.detach().to(wide), 0.0)
    estimate = -difference if kind == "k1" else safe_exp(difference) - difference - 1
    if (mean is None) != (denominator is None):
        raise ValueError("a part of a batch needs the KL of the whole and its number of tokens: mean and denominator")
    if mean is None or denominator is None:
        return 0.5 * coefficient * torch.relu(estimate.sum() / mask.sum().clamp(min=1) - limit) ** 2
    beyond = torch.relu(torch.as_tensor(mean, device=estimate.device).to(estimate) - limit)
    moving = coefficient * beyond * (estimate - estimate.detach())
    return torch.where(mask, moving + 0.5 * coefficient * beyond**2, 0.0).sum() / denominator
