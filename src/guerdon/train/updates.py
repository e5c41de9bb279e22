"""What an update is made with: the optimiser, its schedule, and the order of a batch's parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Optimizer:
    """AdamW and its schedule.

    Args:
        learning_rate: at the end of the warm-up.
        schedule: 'constant', 'linear' (to 0) or 'cosine' (to 0).
        warmup: optimiser steps over which the rate rises from 0.
        betas: decay of the moments.
        eps: added to the root of the second moment.
        weight_decay: decoupled.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them.
    """

    learning_rate: float = 1e-6
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")


def adamw(
    network: nn.Module, settings: Optimizer, updates: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LRScheduler]:
    """The optimiser of the weights that learn, and its schedule over so many updates."""
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        learned, settings.learning_rate, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay
    )
    share = partial(rate, settings=settings, updates=updates)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def rate(update: int, *, settings: Optimizer, updates: int) -> float:
    """The share of the learning rate at an optimiser step: linear warm-up, then the schedule.

    >>> [rate(i, settings=Optimizer(schedule="linear", warmup=2), updates=6) for i in (0, 1, 2, 4, 6)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if update < settings.warmup:
        return (update + 1) / settings.warmup
    whole = max(1, updates - settings.warmup)
    done = min(whole, update - settings.warmup)
    if settings.schedule == "linear":
        return 1.0 - done / whole
    if settings.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done / whole))
    return 1.0


def shuffled(n: int, seed: int, step: int, number: int) -> Int[Tensor, "n"]:
    """The order in which a pass over the batch of a step, the first being number 0, takes its n rows or groups."""
    return torch.from_numpy(np.random.default_rng([seed, step, number]).permutation(n))
