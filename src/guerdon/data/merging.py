"""Weights of several models made into one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor


@torch.no_grad()
def merge_updates(
    base: Mapping[str, Tensor],
    tuned: Mapping[str, Tensor],
    *,
    share: float = 0.25,
    scale: float = 0.7,
    over: Literal["tensor", "model"] = "tensor",
) -> dict[str, Tensor]:
    """The base model with the largest of the updates that training made, scaled.

        θ = θ_base + scale · δ · [|δ| among the largest]        δ = θ_tuned − θ_base

    Most of what training changes are small updates all over, which cost accuracy elsewhere; the few large ones carry
    what was learned. share 1 and scale 1 give the tuned model, bit for bit, share 0 the base.

    Args:
        base: a state dict.
        tuned: that of the same model after training.
        share: the share of the entries that is kept, rounded up; in [0, 1].
        scale: of what is kept; any finite number.
        over: the largest of each "tensor", or of the whole "model", where large layers can take it all. The source
            does not say which; nor is it sure of 0.25 and 0.7.

    Returns:
        A new state dict, in the types of the base; computed in float32 or wider.

    Raises:
        ValueError: if names, shapes or types differ, entries that are not floating point do, an update is not finite,
            or an option is out of range.

    Source: update-selective merging of DLER (arXiv 2510.15110).

    >>> base, tuned = {"w": torch.zeros(4)}, {"w": torch.tensor([0.1, -2.0, 0.3, 1.0])}
    >>> merge_updates(base, tuned, share=0.5, scale=0.5)["w"]
    tensor([ 0.0000, -1.0000,  0.0000,  0.5000])
    """
    if not (0 <= share <= 1 and math.isfinite(scale)):
        raise ValueError(f"share lies between 0 and 1 and scale is finite, got {share} and {scale}")
    if over not in ("tensor", "model"):
        raise ValueError(f"over is 'tensor' or 'model', got {over!r}")
    _check_alike(base, tuned)
    updates: dict[str, Tensor] = {}
    for name, old in base.items():
        new = tuned[name]
        if old.is_floating_point():
            wide = torch.promote_types(old.dtype, torch.float32)
            updates[name] = new.to(old.device, wide) - old.to(wide)
            if not bool(updates[name].isfinite().all()):
                raise ValueError(f"{name!r} has an update that is not finite")
        elif not torch.equal(old, new.to(old.device)):
            raise ValueError(f"{name!r} is {old.dtype} and differs: a count cannot be merged in part")
    largest = {name: _largest(delta.abs(), share) for name, delta in updates.items()} if over == "tensor" else {}
    if over == "model" and updates:
        sizes = [delta.numel() for delta in updates.values()]
        chosen = _largest(torch.cat([delta.abs().flatten().cpu() for delta in updates.values()]), share)
        largest = {
            name: mask.reshape(delta.shape).to(delta.device)
            for (name, delta), mask in zip(updates.items(), torch.split(chosen, sizes), strict=True)
        }
    merged = {name: old.clone() for name, old in base.items()}
    for name, delta in updates.items():
        old, new = base[name], tuned[name].to(base[name].device)
        moved = new if scale == 1 else (old.to(delta.dtype) + scale * delta).to(old.dtype)
        merged[name] = torch.where(largest[name], moved, old)
    return merged


@torch.no_grad()
def average_weights(
    models: Sequence[Mapping[str, Tensor]], *, weights: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """One model whose weights are the mean of several: θ = Σₘ wₘ θₘ / Σₘ wₘ.

    Reward models that were trained apart, from one pretrained model, agree on what is there and differ in what they
    have taken for it. The mean of their weights keeps what they agree on, and costs what one of them costs.

    Args:
        models: state dicts of one architecture.
        weights: of each model, not negative; default: alike.

    Returns:
        A new state dict, in the types of the first; computed in float32 or wider.

    Raises:
        ValueError: if there is no model, names, shapes or types differ, entries that are not floating point do, or
            the weights are not one per model, negative, not finite or all 0.

    Source: WARM (arXiv 2401.12187); the mean of five reward models in PAR's study (2502.18770).

    >>> average_weights([{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 2.0])}])["w"]
    tensor([2., 2.])
    """
    if not models:
        raise ValueError("models are empty: there is nothing to average")
    shares = [1.0] * len(models) if weights is None else [float(weight) for weight in weights]
    total = math.fsum(shares)
    if len(shares) != len(models) or min(shares) < 0 or not 0 < total < math.inf:
        raise ValueError(f"weights must be one per model, not negative and not all 0, got {shares}")
    first, *others = models
    for other in others:
        _check_alike(first, other)
    merged: dict[str, Tensor] = {}
    for name, value in first.items():
        if not value.is_floating_point():
            if any(not torch.equal(value, other[name].to(value.device)) for other in others):
                raise ValueError(f"{name!r} is {value.dtype} and differs: a count has no mean")
            merged[name] = value.clone()
            continue
        wide = torch.promote_types(value.dtype, torch.float32)
        parts = [
            share / total * model[name].to(value.device, wide) for share, model in zip(shares, models, strict=True)
        ]
        merged[name] = torch.stack(parts).sum(0).to(value.dtype)
    return merged


def _check_alike(base: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    if base.keys() != other.keys():
        raise ValueError(f"models have different entries: {', '.join(sorted(base.keys() ^ other.keys()))}")
    for name, old in base.items():
        new = other[name]
        if old.shape != new.shape or old.dtype != new.dtype:
            raise ValueError(f"{name!r} is {old.dtype} {tuple(old.shape)} and {new.dtype} {tuple(new.shape)}")


def _largest(sizes: Tensor, share: float) -> Tensor:
    """True at the largest share of the entries, rounded up; the earlier of equal ones."""
    count = math.ceil(share * sizes.numel() * (1 - 1e-12))
    flat = sizes.flatten()
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[flat.argsort(descending=True, stable=True)[:count]] = True
    return chosen.reshape(sizes.shape)
