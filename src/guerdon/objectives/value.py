"""The critic's side: a value head that leaves the policy alone, and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def clipped_value_loss(
    values: Float[Tensor, "*n"],
    old_values: Float[Tensor, "*n"],
    returns: Float[Tensor, "*n"],
    mask: Bool[Tensor, "*n"],
    *,
    clip: float | None = 0.1,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Half the squared error of a value, of which no more is won by moving it further than `clip`.

        loss = 1/(2D) Σ max((V − R)², (V_clip − R)²)        V_clip = V_old + clamp(V − V_old, −clip, clip)

    Losses of parts add up to the whole with `denominator` given.

    Args:
        values: V, one per step or token; the only argument with gradients.
        old_values: when the batch was collected.
        returns: R, what they should have been, e.g. advantage + old value; same unit.
        mask: False where there is no step.
        clip: in the unit of the values; None: the plain squared error.
        denominator: the number of steps of the whole batch, where this is a part of it; by default that of `mask`.

    Returns:
        The loss, and sums, detached: "steps", "error" (squared, of V itself) and "clipped" (how many are held).

    Raises:
        ValueError: if the shapes differ, or clip < 0.

    Source: PPO's value loss as in openai/baselines (ppo2/model.py); clip 0.1: VL-DAC (arXiv 2508.04280).

    >>> one, zero = torch.tensor([1.0]), torch.tensor([0.0])
    >>> loss, _ = clipped_value_loss(one, zero, returns=one, mask=torch.tensor([True]))
    >>> round(loss.item(), 4)
    0.405
    """
    if not values.shape == old_values.shape == returns.shape == mask.shape:
        shapes = [tuple(x.shape) for x in (values, old_values, returns, mask)]
        raise ValueError(f"values, old_values, returns and mask must have one shape, got {shapes}")
    if clip is not None and clip < 0:
        raise ValueError(f"clip must not be negative, got {clip}")
    wide = torch.promote_types(values.dtype, torch.float32)
    values, old_values, returns = (
        torch.where(mask, x.to(wide), 0.0) for x in (values, old_values.detach(), returns.detach())
    )
    errors = (values - returns) ** 2
    held = torch.zeros_like(mask)
    terms = errors
    if clip is not None:
        bounded = (old_values + (values - old_values).clamp(-clip, clip) - returns) ** 2
        terms, held = torch.maximum(errors, bounded), (bounded > errors) & mask
    count = mask.sum().to(wide)
    loss = 0.5 * terms.sum() / (count.clamp(min=1) if denominator is None else denominator)
    return loss, {"steps": count, "error": errors.detach().sum(), "clipped": held.sum().to(wide)}


class Critic(torch.nn.Module):
    """A value head on a policy's hidden states: linear layers with ReLU between them, one number out.

    Args:
        width: of the hidden states.
        hidden: widths of the layers in between; none for a linear head.
        features: "detached": the value loss has no gradient in the policy, whose representation the critic's noise
            would otherwise move; "shared": it has.
        start: of the last layer: "random", or "zero", so that every value is 0 at first.

    Source: VL-DAC (arXiv 2508.04280), whose critic reads the last layer at the last token of the prompt; a value head
    that starts at zero: B-Coder (2310.03173).

    >>> Critic(4, hidden=(8,), start="zero")(torch.ones(2, 3, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        width: int,
        *,
        hidden: Sequence[int] = (2048,),
        features: Literal["detached", "shared"] = "detached",
        start: Literal["random", "zero"] = "random",
    ) -> None:
        super().__init__()
        self.features = features
        layers: list[torch.nn.Module] = []
        for size in hidden:
            layers += [torch.nn.Linear(width, size), torch.nn.ReLU()]
            width = size
        last = torch.nn.Linear(width, 1)
        if start == "zero":
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
        self.layers = torch.nn.Sequential(*layers, last)

    def forward(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
        """One value per hidden state."""
        value: Tensor = self.layers(hidden.detach() if self.features == "detached" else hidden)[..., 0]
        return value
