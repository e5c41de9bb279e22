"""The policy-gradient loss: ratio × clip rule × aggregation; GRPO, GSPO, DAPO, CISPO and the rest are its settings."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.objectives.aggregate import Aggregate, denominator as denominator_of
from guerdon.objectives.clip import Rule, ppo
from guerdon.objectives.ratio import Ratio, importance_ratio, safe_exp


def policy_gradient(
    logp: Float[Tensor, "n t"],
    old_logp: Float[Tensor, "n t"],
    advantages: Float[Tensor, "n"] | Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    ratio: Ratio = "token",
    clip: Rule = ppo,
    positive: float = 1.0,
    negative: float = 1.0,
    aggregate: Aggregate = "token-mean",
    length: int | None = None,
    kl: Float[Tensor, "n t"] | None = None,
    denominator: float | Float[Tensor, "*n"] | None = None,
    weight: Float[Tensor, "n"] | Float[Tensor, "n t"] | None = None,
    off_policy: Float[Tensor, "n t"] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""The loss whose descent follows the policy gradient.

        loss = Σᵢ 1/Dᵢ Σₜ wᵢₜ (klᵢₜ − oᵢₜ · clip(rᵢₜ, logpᵢₜ, λᵢₜ Aᵢₜ))     over the written tokens t of row i

    λ is `positive` where A > 0 and `negative` where A < 0. Learning from one side only (0 for the other) keeps the
    statistics that both sides gave, and what is left out still counts in D: to leave rows out altogether, mask them.

    With `denominator` given, the losses of parts of the batch add up to the loss of the batch: over rows always,
    over t for token ratios (the ratio of a sequence needs the whole of it).

    What stands where `mask` is False, NaN included, reaches neither the loss nor a gradient. Everything finite
    gives a finite loss and gradient, however far the policies are apart (`safe_exp`). Computed in float32 or wider.

    Args:
        logp: log-probabilities of the tokens under the policy, in nats; the only argument besides `kl` that
            carries gradients.
        old_logp: under the policy that wrote them; `logp` itself (it is detached) for the first update on a batch.
        advantages: one per row or per token.
        mask: True at the tokens written by the policy.
        ratio: of each token, or of the sequence; see `importance_ratio`.
        clip: a clip rule, with its options set by `functools.partial`.
        positive: the weight of advantages above 0; at 0 the loss only pushes down what did worse.
        negative: the weight of advantages below 0; at 0 it only repeats what did better.
        aggregate: how tokens and rows are weighed; see `denominator`.
        length: the constant of aggregate "constant", when `denominator` is not given.
        kl: penalty per token, already times its coefficient; an entropy bonus is a negative one.
        denominator: D of the whole batch, where this is a part of it; by default that of `mask`.
        weight: of a row or token in the loss, penalty included; it does not change the denominator.
        off_policy: importance weight of the surrogate at tokens from another policy than `old_logp`'s, or
            of a sampler whose probabilities differ from the trainer's (truncated importance sampling).

    Returns:
        The loss, and sums over the written tokens, detached: "tokens" (their number), "clip_low" and "clip_high"
        (how many were held by a bound), "ratio", "approx_kl" (k3 of old ‖ new) and, if given, "kl". Sums of parts and
        of processes add up; `token_means` turns them into means.

    Raises:
        ValueError: if the shapes do not fit, or "constant" has neither length nor denominator.

    Source: PPO (arXiv 1707.06347), GRPO (2402.03300), GSPO (2507.18071); each setting names its own. Weights by sign:
    "The Surprising Effectiveness of Negative Reinforcement" (2506.01347) and the relative negatives of 2510.04028.

    >>> logp = torch.tensor([[0.6, 0.3]]).log()
    >>> loss, sums = policy_gradient(logp, torch.tensor([[0.5, 0.5]]).log(), torch.tensor([1.0]), logp < 0)
    >>> round(loss.item(), 4), round(sums["ratio"].item(), 4)
    (-0.9, 1.8)
    """
    _check_shapes(logp, {"old_logp": old_logp, "mask": mask, "kl": kl, "off_policy": off_policy}, rowwise=False)
    _check_shapes(logp, {"advantages": advantages, "weight": weight}, rowwise=True)
    wide = torch.promote_types(logp.dtype, torch.float32)

    def written(x: Tensor) -> Tensor:
        return torch.where(mask, (x if x.ndim == 2 else x[:, None]).to(wide), 0.0)

    logp, old_logp = written(logp), old_logp.detach().to(wide)
    ratios = importance_ratio(logp, old_logp, mask, ratio=ratio)
    advantages = written(advantages.detach())
    if positive != 1.0 or negative != 1.0:
        advantages = torch.where(advantages > 0, positive * advantages, negative * advantages)
    surrogate = clip(ratios, logp, advantages)

    terms = -surrogate.value
    if off_policy is not None:
        terms = terms * written(off_policy.detach())
    if kl is not None:
        terms = terms + kl.to(wide)
    if weight is not None:
        terms = terms * written(weight.detach())
    if denominator is None:
        denominator = denominator_of(mask, aggregate, length=length)
    elif isinstance(denominator, Tensor) and denominator.shape not in ((), logp.shape[:1]):
        raise ValueError(f"denominator must be a scalar or ({len(logp)},), got {tuple(denominator.shape)}")
    loss = (written(terms).sum(1) / denominator).sum()

    with torch.no_grad():
        log_ratios = logp - old_logp
        per_token = {
            "tokens": mask,
            "clip_low": surrogate.low,
            "clip_high": surrogate.high,
            "ratio": ratios,
            "approx_kl": safe_exp(log_ratios) - log_ratios - 1,
        } | ({} if kl is None else {"kl": kl})
        sums = {name: written(value).sum() for name, value in per_token.items()}
    return loss, sums


def token_means(*parts: Mapping[str, Tensor]) -> dict[str, float]:
    """Means over all written tokens, from the sums that `policy_gradient` gave for each part of a batch.

    Args:
        parts: the sums of each micro-batch or process, with the same names.

    Returns:
        Each sum divided by the number of tokens, which stays as it is; 0 where there are no tokens.

    Source: ours.

    >>> token_means({"tokens": torch.tensor(2.0), "ratio": torch.tensor(2.5)},
    ...             {"tokens": torch.tensor(3.0), "ratio": torch.tensor(3.0)})
    {'tokens': 5.0, 'ratio': 1.1}
    """
    sums = {name: float(sum(part[name] for part in parts)) for name in (parts[0] if parts else ())}
    return {name: value if name == "tokens" else value / max(sums["tokens"], 1.0) for name, value in sums.items()}


def _check_shapes(logp: Tensor, others: Mapping[str, Tensor | None], *, rowwise: bool) -> None:
    if logp.ndim != 2:
        raise ValueError(f"logp must be (n, t), got {tuple(logp.shape)}")
    shapes = (logp.shape, logp.shape[:1]) if rowwise else (logp.shape,)
    for name, value in others.items():
        if value is not None and value.shape not in shapes:
            wanted = " or ".join(str(tuple(shape)) for shape in shapes)
            raise ValueError(f"{name} must be {wanted} beside logp {tuple(logp.shape)}, got {tuple(value.shape)}")
