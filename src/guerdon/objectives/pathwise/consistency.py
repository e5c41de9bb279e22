"""Rewards of one-step estimates: what was asked for is read back from what was made, where the estimate is good."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def consistency_loss(
    errors: Float[Tensor, "n *d"],
    times: Float[Tensor, "n"] | Int[Tensor, "n"],
    *,
    limit: float = 200,
    valid: Bool[Tensor, "n *d"] | None = None,
    uncertainty: Float[Tensor, "n *d"] | None = None,
    penalty: float = 0.1,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Errors of a condition read back from one-step estimates with little noise; uncertain ones count less.

        lᵢ = mean over valid elements of error · e^(−U)        loss = mean over samples with 0 ≤ t ≤ limit of lᵢ + k Uᵢ

    The estimate of a sample with much noise is a blur that the reader of the condition has never seen: its error is of
    the reader and not of the sample. U is how much two estimates of one sample disagree. It is not detached, and e^(−U)
    alone would reward disagreement; with the penalty error · e^(−U) + k U is least at U = max(0, ln(error / k)).

    Args:
        errors: of each element, or one per sample; from `condition_error`.
        times: how much noise each sample has, in steps of training (or any unit: flow times, say).
        limit: the largest that counts, in that unit: 200 of 1000 in ControlNet++, 400 in Ctrl-U.
        valid: False for an element that has no label.
        uncertainty: U ≥ 0, like the errors; None: 0, and no penalty. From `disagreement`.
        penalty: k ≥ 0. For segmentation Ctrl-U has its 0.1 inside of U, and 1 here.

    Returns:
        The loss, to be multiplied by its weight and added to that of denoising, and sums, detached: "samples" (that
        count), "error" (without weights) and "uncertainty". No sample that counts: 0. What stands at samples and
        elements that do not count, NaN included, reaches neither the loss nor a gradient.

    Raises:
        ValueError: if the shapes differ, or an uncertainty is negative.

    Source: ControlNet++ (arXiv 2404.07987; liming-ai/ControlNet_Plus_Plus); uncertainty: Ctrl-U (2410.11236;
    grenoble-zhang/Ctrl-U).

    >>> errors, times = torch.tensor([[1.0, 3.0], [9.0, 9.0]]), torch.tensor([100, 900])
    >>> consistency_loss(errors, times)[0]
    tensor(2.)
    """
    for name, value in (("valid", valid), ("uncertainty", uncertainty)):
        if value is not None and value.shape != errors.shape:
            raise ValueError(f"{name} must be {tuple(errors.shape)} like the errors, got {tuple(value.shape)}")
    if times.shape != errors.shape[:1]:
        raise ValueError(f"times must be one per sample ({len(errors)},), got {tuple(times.shape)}")
    if not penalty >= 0:
        raise ValueError(f"penalty must not be negative, got {penalty}")
    wide = torch.promote_types(errors.dtype, torch.float32)
    counted = (times >= 0) & (times <= limit)
    n = len(errors)
    there = torch.ones_like(errors, dtype=torch.bool) if valid is None else valid
    there = (there & counted.reshape(-1, *[1] * (errors.ndim - 1))).reshape(n, -1) if n else there.reshape(0, 1)
    flat = torch.where(there, errors.reshape(n, -1).to(wide), 0.0) if n else errors.new_zeros(0, 1)
    elements = there.sum(1).clamp(min=1)
    number = counted.sum().to(wide)
    plain = flat.detach().sum(1) / elements
    each, doubt = flat, torch.zeros_like(plain)
    if uncertainty is not None and n:
        u = torch.where(there, uncertainty.reshape(n, -1).to(wide), 0.0)
        if bool((u < 0).any()):
            raise ValueError("an uncertainty is never negative")
        each, doubt = flat * torch.exp(-u), u.sum(1) / elements
    found = (each.sum(1) / elements + penalty * doubt).sum() / number.clamp(min=1)
    return found, {"samples": number, "error": plain.sum(), "uncertainty": doubt.detach().sum()}


def condition_error(
    output: Float[Tensor, "n *d"],
    label: Float[Tensor, "n *d"] | Int[Tensor, "n *d"],
    *,
    kind: Literal["squared", "relative", "classes"] = "squared",
    ignore: int = 255,
) -> tuple[Float[Tensor, "n *e"], Bool[Tensor, "n *e"]]:
    r"""How far what is read from a sample is from the condition it was made for, element by element.

        squared   (o − y)²                              edges, lines, normals
        relative  (o / max o − y / max y)²              depth, whose unit nobody knows; max over each sample
        classes   −log softmax(o)[y], axis 1 of o being classes; elements labelled `ignore` are not valid

    Args:
        output: of the reader of the condition; gradients pass.
        label: the condition, without gradient.
        kind: as above.
        ignore: the label of what has none.

    Returns:
        The errors, and which elements are valid: a sample whose depths are all 0 has no valid one.

    Raises:
        ValueError: if the shapes do not fit, or for another kind.

    Source: ControlNet++ (arXiv 2404.07987; utils.py).

    >>> condition_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 4.0]]), kind="relative")[0]
    tensor([[0.2500, 0.0000]])
    """
    if kind not in ("squared", "relative", "classes"):
        raise ValueError(f"kind is 'squared', 'relative' or 'classes', got {kind!r}")
    wide = torch.promote_types(output.dtype, torch.float32)
    output = output.to(wide)
    if kind == "classes":
        if output.ndim < 2 or output.shape[:1] + output.shape[2:] != label.shape:
            raise ValueError(f"classes (n k *d) {tuple(output.shape)} do not fit labels (n *d) {tuple(label.shape)}")
        known = label != ignore
        if bool((known & ((label < 0) | (label >= output.shape[1]))).any()):
            raise ValueError(f"a label is neither one of {output.shape[1]} classes nor {ignore}, which is ignored")
        chosen = torch.where(known, label, 0).long()[:, None]
        errors = -output.log_softmax(1).gather(1, chosen)[:, 0]
        return torch.where(known, errors, 0.0), known
    if output.shape != label.shape:
        raise ValueError(f"output {tuple(output.shape)} and label {tuple(label.shape)} must have one shape")
    label = label.detach().to(wide)
    valid = torch.ones_like(output, dtype=torch.bool)
    if kind == "relative":
        most, most_label = (_largest(x) for x in (output, label))
        valid = ((most > 0) & (most_label > 0)).expand_as(output)
        output = output / torch.where(most > 0, most, 1.0)
        label = label / torch.where(most_label > 0, most_label, 1.0)
    return torch.where(valid, (output - label) ** 2, 0.0), valid


def disagreement(
    first: Float[Tensor, "n *d"],
    second: Float[Tensor, "n *d"],
    *,
    kind: Literal["absolute", "classes"] = "absolute",
) -> Float[Tensor, "n *e"]:
    r"""How much two readings of one sample differ: |o₁ − o₂|, or KL(softmax o₂ ‖ softmax o₁) over classes (axis 1).

    The two are of estimates from two noise levels of the same sample, condition and *noise*: t, and t + 1. Gradients
    pass through both.

    Args:
        first: o₁, the reading that is rewarded.
        second: o₂.
        kind: "absolute" for maps, "classes" for logits.

    Raises:
        ValueError: if the shapes differ, or for another kind.

    Source: Ctrl-U (arXiv 2410.11236; grenoble-zhang/Ctrl-U).

    >>> disagreement(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.5, 2.0]]))
    tensor([[0.5000, 0.0000]])
    """
    if first.shape != second.shape or (kind == "classes" and first.ndim < 2):
        raise ValueError(f"the readings must have one shape, got {tuple(first.shape)} and {tuple(second.shape)}")
    wide = torch.promote_types(first.dtype, torch.float32)
    first, second = first.to(wide), second.to(wide)
    if kind == "absolute":
        return (first - second).abs()
    if kind != "classes":
        raise ValueError(f"kind is 'absolute' or 'classes', got {kind!r}")
    told, other = first.log_softmax(1), second.log_softmax(1)
    # Never negative, but for rounding.
    return (other.exp() * (other - told)).sum(1).clamp(min=0)


def _largest(x: Tensor) -> Tensor:
    """The largest element of each sample, beside it."""
    return x.amax(tuple(range(1, x.ndim)), keepdim=True) if x.ndim > 1 else x
