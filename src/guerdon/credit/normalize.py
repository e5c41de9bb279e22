"""Rewards and advantages of tokens brought to a scale: of the batch, of its returns, or of each sequence."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.credit.group import NO_SIGNAL
from guerdon.credit.scans import returns

Form = Literal["min-max", "second-smallest"]


@torch.no_grad()
def whiten(
    values: Float[Tensor, "n t"], mask: Bool[Tensor, "n t"], *, ddof: int = 1, eps: float = 1e-8
) -> Float[Tensor, "n t"]:
    r"""Centre and scale over all tokens of the batch: (x − mean) / √(var + eps).

    One scale for all prompts: a nearly solved prompt is not blown up as by its group's deviation. A constant; if
    all values are equal up to rounding there is no signal, and the result is exactly 0.

    Args:
        values: advantages, one per token; any real unit.
        mask: True at the tokens that count.
        ddof: var = Σ(x − mean)² / (count − ddof).
        eps: added to the variance, in the squared unit of the values.

    Returns:
        Values without unit, 0 where masked.

    Raises:
        ValueError: if the shapes differ.

    Source: batch-wise normalisation of DLER (arXiv 2510.15110) after REINFORCE++ (2501.03262); PRIME (2502.01456);
    ddof and eps: verl's `masked_whiten`.

    >>> whiten(torch.tensor([[1.0, 0.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor([[ 0.7071, -0.7071,  0.0000]])
    """
    _check("values", values, mask)
    wide = torch.promote_types(values.dtype, torch.float32)
    known = torch.where(mask, values, 0).to(wide)
    count = mask.sum()
    centred = torch.where(mask, known - known.sum() / count.clamp(min=1), 0)
    variance = (centred**2).sum() / (count - ddof).clamp(min=1)
    peak = known.abs().max() if known.numel() else variance
    found = torch.where(variance.sqrt() > NO_SIGNAL * peak, centred / (variance + eps).sqrt(), 0)
    return found.to(values.dtype if values.is_floating_point() else wide)


@torch.no_grad()
def unit_returns(
    rewards: Float[Tensor, "n t"], mask: Bool[Tensor, "n t"], *, eps: float = 1e-6
) -> Float[Tensor, "n t"]:
    r"""Divide a batch of rewards by its largest return: r / (max |Σ_{k≥t} rₖ| + eps), so that no return leaves [−1, 1].

    Args:
        rewards: one per token or step; any real unit.
        mask: True where it exists.
        eps: in the unit of the rewards.

    Returns:
        Rewards without unit, 0 where masked.

    Raises:
        ValueError: if the shapes differ, or eps ≤ 0.

    Source: the batch norm of PRIME's implicit rewards (arXiv 2502.01456; PRIME-RL/PRIME).

    >>> unit_returns(torch.tensor([[2.0, -3.0, 1.0]]), torch.ones(1, 3, dtype=torch.bool))
    tensor([[ 1.0000, -1.5000,  0.5000]])
    """
    _check("rewards", rewards, mask)
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}")
    largest = returns(rewards, mask).abs().max() if rewards.numel() else rewards.new_zeros(())
    return torch.where(mask, rewards, 0) / (largest + eps)


@torch.no_grad()
def rescale(
    scores: Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    form: Form = "min-max",
    bilateral: bool = False,
    power: float = 1.0,
    threshold: float = 0.0,
    top: int | None = None,
) -> Float[Tensor, "n t"]:
    r"""Bring each sequence's token scores to [0, 1] and keep those that stand out.

        x = (s − min) / (max − min)        bilateral: 2x − 1        then sign(x)|x|^power, and 0 unless |x| > threshold

    A sequence whose scores are all equal has none that stands out: all 0.

    Args:
        scores: one per token; any real unit.
        mask: True where the token exists: only these enter minimum and maximum.
        form: "second-smallest": as the source's code has it, with the second smallest distinct value of the row, the
            zeros of padding included, in place of the minimum; it can fall below 0.
        bilateral: to [−1, 1] instead.
        power: > 0; above 1 it sharpens.
        threshold: at least 0. The source's 0.8 is for its flow scores.
        top: keep at most this many of each sequence, the largest in size; the earlier of equals.

    Returns:
        Scores without unit, 0 where masked.

    Raises:
        ValueError: if the shapes differ or an option is out of range.

    Source: RLFR (Jinghaoleven/RLFR).

    >>> rescale(torch.tensor([[1.0, 3.0, 5.0]]), torch.ones(1, 3, dtype=torch.bool), threshold=0.5)
    tensor([[0., 0., 1.]])
    """
    _check("scores", scores, mask)
    if form not in get_args(Form):
        raise ValueError(f"form is one of {get_args(Form)}, got {form!r}")
    if not power > 0 or threshold < 0 or (top is not None and top < 0):
        raise ValueError(f"power {power} must be positive, threshold {threshold} and top {top} at least 0")
    if not scores.numel():
        return scores.clone()
    wide = torch.promote_types(scores.dtype, torch.float32)
    known = torch.where(mask, scores, 0).to(wide)
    if form == "min-max":
        low = torch.where(mask, known, torch.inf).amin(1, keepdim=True)
        high = torch.where(mask, known, -torch.inf).amax(1, keepdim=True)
    else:
        low = torch.where(known > known.amin(1, keepdim=True), known, torch.inf).amin(1, keepdim=True)
        high = known.amax(1, keepdim=True)
    spread_out = high > low  # False in rows without tokens and in constant ones
    x = torch.where(mask & spread_out, (known - low) / (high - low), 0)
    if bilateral:
        x = torch.where(mask & spread_out, 2 * x - 1, 0)
    x = x.sign() * x.abs() ** power
    x = torch.where(x.abs() > threshold, x, 0)
    if top is not None:
        rank = x.abs().argsort(dim=1, descending=True, stable=True).argsort(1)
        x = torch.where(rank < top, x, 0)
    return x.to(scores.dtype if scores.is_floating_point() else wide)


def _check(name: str, values: Tensor, mask: Tensor) -> None:
    if values.shape != mask.shape or values.ndim != 2:
        raise ValueError(f"{name} {tuple(values.shape)} and mask {tuple(mask.shape)} need one shape (n, t)")
