"""From one term per token to a loss: every aggregation is one sum over one denominator."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Aggregate = Literal["token-mean", "sequence-mean", "constant", "length-weighted"]


def denominator(
    mask: Bool[Tensor, "n t"],
    aggregate: Aggregate = "token-mean",
    *,
    length: int | None = None,
    rows: int | Float[Tensor, ""] | None = None,
    tokens: int | Float[Tensor, ""] | None = None,
) -> Float[Tensor, "*n"]:
    r"""What each row's sum of terms is divided by, so that loss = Σᵢ (Σₜ termᵢₜ) / Dᵢ.

        token-mean        D  = Σᵢ |yᵢ|      every token weighs the same: DAPO
        sequence-mean     Dᵢ = N · |yᵢ|     the mean over rows of their token means: GRPO, GSPO
        constant          D  = N · length   a token weighs the same in every batch: Dr. GRPO
        length-weighted   D  = N            the mean over rows of their token sums, |yᵢ| × sequence-mean: LUSPO

    N counts the rows that have a written token, so a row masked out altogether weighs nothing. A micro-batch
    divides by the denominator of the whole batch, its own rows of it where there is one per row; then the losses
    of the micro-batches add up to the loss of the batch, however they were cut. Rows and tokens of the parts add
    up too: over several processes, pass their sums.

    Args:
        mask: True at the tokens written by the policy.
        aggregate: which of the four.
        length: the constant of "constant", usually the limit on generated tokens; never the padded width.
        rows: N of the whole batch, where `mask` is a part of it.
        tokens: Σ|yᵢ| of the whole batch, where `mask` is a part of it.

    Returns:
        A scalar, or one per row for "sequence-mean"; at least 1.

    Raises:
        ValueError: if "constant" has no length.

    Source: the aggregations as compared in Dr. GRPO (arXiv 2503.20783), DAPO (2503.14476) and LUSPO (2602.05261).

    >>> mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    >>> denominator(mask), denominator(mask, "sequence-mean")
    (tensor(3.), tensor([4., 2., 2.]))
    """
    if aggregate == "token-mean":
        return _at_least_one(mask.sum() if tokens is None else tokens, mask)
    count = _at_least_one(mask.any(1).sum() if rows is None else rows, mask)
    if aggregate == "sequence-mean":
        return count * mask.sum(1).clamp(min=1)
    if aggregate == "length-weighted":
        return count
    if length is None:
        raise ValueError("aggregate='constant' divides by a fixed length: pass length, the limit on generated tokens")
    return count * length


def _at_least_one(count: int | Tensor, mask: Tensor) -> Tensor:
    return torch.as_tensor(count, dtype=torch.float32, device=mask.device).clamp(min=1)
