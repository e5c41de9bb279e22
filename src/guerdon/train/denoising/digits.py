"""Handwritten digits, and a flow that is taught to write them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guerdon.core.errors import GuerdonError, MissingExtra, RecipeError
from guerdon.train.updates import Optimizer, adamw

if TYPE_CHECKING:
    from guerdon.train.denoising.denoiser import Denoiser


@dataclass(frozen=True)
class DenoisingTeach:
    """Flow matching on labelled pictures, before reinforcement.

    Args:
        data: 'digits': scikit-learn's 1 797 handwritten digits of 8 × 8 pixels; needs `guerdon[diffusion]`.
        steps: optimiser steps.
        batch: pictures per step.
        learning_rate: of AdamW, at its peak; it then falls to 0 along a cosine.
        warmup: share of the steps in which the rate rises from 0.
        unconditional: the share of pictures that are shown without their label, for guidance.
        max_grad_norm: gradients are scaled down to this norm.

    Raises:
        RecipeError: if a number is out of range.
    """

    data: Literal["digits"] = "digits"
    steps: int = 600
    batch: int = 128
    learning_rate: float = 2e-3
    warmup: float = 0.05
    unconditional: float = 0.1
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or not self.learning_rate > 0 or not self.max_grad_norm > 0:
            raise RecipeError(
                "teach: steps, batch, learning_rate and max_grad_norm must be positive, got "
                f"{self.steps}, {self.batch}, {self.learning_rate} and {self.max_grad_norm}"
            )
        if not 0 <= self.warmup < 1 or not 0 <= self.unconditional < 1:
            raise RecipeError(
                f"teach: warmup and unconditional are shares in [0, 1), got {self.warmup} and {self.unconditional}"
            )


def digits() -> tuple[Float[Tensor, "n 1 8 8"], Int[Tensor, "n"]]:
    """Scikit-learn's handwritten digits in [−1, 1], and which they are.

    Raises:
        MissingExtra: without scikit-learn.

    Source: Alpaydin and Kaynak, the UCI optical recognition of handwritten digits.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtra("teach.data: digits", "diffusion") from None
    found = load_digits()
    return torch.as_tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1, torch.as_tensor(found.target).long()


def teach(
    denoiser: Denoiser, config: DenoisingTeach, *, seed: int, report: Callable[[int, float], None] | None = None
) -> list[float]:
    r"""Teach a velocity field the flow from noise to pictures, in place.

        L = E ‖v(x_s, s, c) − (e − x₀)‖²        x_s = (1 − s) x₀ + s e,  s = sigmoid(N(0, 1))

    Everything drawn at random is a function of the seed; torch's global generator is left as it was.

    Args:
        denoiser: of pictures of this size, with ten classes; left in evaluation mode.
        config: how long, and how.
        seed: of the order, the noise and the times.
        report: called after each step with how many are done and the loss.

    Returns:
        The loss of each step.

    Raises:
        RecipeError: if the model does not fit the pictures.
        GuerdonError: if the loss is not finite.

    Source: flow matching (arXiv 2210.02747); times: Stable Diffusion 3 (2403.03206).
    """
    pictures, labels = digits()
    if denoiser.size != tuple(pictures.shape[1:]) or denoiser.classes != 10:
        raise RecipeError(
            f"teach: digits are {tuple(pictures.shape[1:])} of 10 classes; the model makes {denoiser.size} of "
            f"{denoiser.classes}"
        )
    network, device = denoiser.network, denoiser.device
    settings = Optimizer(config.learning_rate, "cosine", round(config.warmup * config.steps))
    optimizer, schedule = adamw(network, settings, config.steps)
    weights = [p for p in network.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    for step in range(config.steps):
        chosen = torch.randint(len(pictures), (config.batch,), generator=generator)
        noise = torch.randn(config.batch, *denoiser.size, generator=generator)
        time = torch.sigmoid(torch.randn(config.batch, generator=generator))
        hidden = torch.rand(config.batch, generator=generator) < config.unconditional
        label = torch.where(hidden, denoiser.classes, labels[chosen])
        clean, s = pictures[chosen], time[:, None, None, None]
        velocity = denoiser.predict(
            ((1 - s) * clean + s * noise).to(device),
            (time * denoiser.horizon).to(device),
            class_labels=label.to(device),
        )
        loss = ((velocity - (noise - clean).to(device)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise GuerdonError(f"teach, step {step}: the loss is {losses[-1]}: lower learning_rate")
        torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
        optimizer.step()
        schedule.step()
        if report is not None:
            report(step + 1, losses[-1])
    optimizer.zero_grad()
    return losses
