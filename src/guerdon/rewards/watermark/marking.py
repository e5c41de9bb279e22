"""From a vector of a text to its green list, and from a green list to likelier tokens."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def token_dimensions(vocabulary: int, dimensions: int, *, seed: int = 0) -> Int[Tensor, "v"]:
    """Which dimension of the vector decides on each token: fixed, random, and every one for as many tokens.

    Args:
        vocabulary: how many tokens.
        dimensions: of the vector.
        seed: the key: without it, lists cannot be told from a vector.

    Raises:
        ValueError: if a number is below 1.

    >>> token_dimensions(6, 3).bincount()
    tensor([2, 2, 2])

    Source: the random mapping of RL-WATERMARK (an1118/rl-watermark); that it is balanced is ours.
    """
    if vocabulary < 1 or dimensions < 1:
        raise ValueError(f"vocabulary and dimensions must be at least 1, got {vocabulary} and {dimensions}")
    order = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(seed))
    return order % dimensions


def green_lists(pooled: Float[Tensor, "n d"], dimension: Int[Tensor, "v"]) -> Float[Tensor, "n v"]:
    """The green list of each text: 1 where the dimension that decides on the token is not negative, else 0.

        y = x + sign(x) − sg(x)        g = (y + 1)/2

    The gradient is that of x/2: straight through the sign. A dimension of exactly 0 counts as positive.

    Args:
        pooled: one vector for each text, as an encoder gives it.
        dimension: see `token_dimensions`.

    Raises:
        ValueError: if the shapes do not fit.

    >>> green_lists(torch.tensor([[0.3, -2.0]]), torch.tensor([0, 1, 1, 0]))
    tensor([[1., 0., 0., 1.]])

    Source: RL-WATERMARK (an1118/rl-watermark).
    """
    if pooled.ndim != 2 or dimension.ndim != 1:
        raise ValueError(f"pooled is (n, d) and dimension (v,), got {tuple(pooled.shape)} and {tuple(dimension.shape)}")
    if dimension.numel() and not 0 <= int(dimension.min()) <= int(dimension.max()) < pooled.shape[1]:
        raise ValueError(f"dimension names places in vectors of {pooled.shape[1]} numbers")
    sign = torch.where(pooled.detach() >= 0, 1.0, -1.0).to(pooled.dtype)
    through = sign + (pooled - pooled.detach())  # exactly ±1: x − x is 0, where x + sign − x rounds
    return ((through + 1) / 2)[:, dimension]


def biased(
    logits: Float[Tensor, "n v"],
    green: Float[Tensor, "n v"],
    *,
    delta: float = 0.13,
    open: Bool[Tensor, "n"] | None = None,
    how: Literal["scale", "add"] = "scale",
) -> Float[Tensor, "n v"]:
    """The logits of the next token, with those of green tokens raised.

        scale: z' = z (1 + δ g)        add: z' = z + δ g

    To scale a logit below 0 lowers it, so that where a model's logits are negative, the source's rule marks with red
    tokens; 'add' does not depend on where the logits' origin is.

    Args:
        logits: of the next token.
        green: the list: see `green_lists`.
        delta: δ ≥ 0; for 'add' in nats, 2 being usual.
        open: where a text is marked now: see `gate`. Default: everywhere.
        how: 'scale', the source's, or 'add'.

    Raises:
        ValueError: if the shapes differ, δ is negative, or for another way.

    >>> biased(torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]]), delta=0.5)
    tensor([[3., 1.]])

    Source: RL-WATERMARK (an1118/rl-watermark); 'add': KGW (arXiv 2301.10226).
    """
    if green.shape != logits.shape or (open is not None and open.shape != logits.shape[:1]):
        raise ValueError(f"green must be {tuple(logits.shape)} like logits, and open one flag for each row")
    if not delta >= 0:
        raise ValueError(f"delta must not be negative, got {delta}")
    if how not in ("scale", "add"):
        raise ValueError(f"how is 'scale' or 'add', got {how!r}")
    shift = delta * green if open is None else torch.where(open[:, None], delta * green, 0.0)
    if how == "add":
        return logits + shift
    finite = torch.isfinite(logits)
    # What is not finite must not meet the shift: its slope would be 0 · ∞.
    return torch.where(finite, torch.where(finite, logits, 0.0) * (1 + shift), logits)
