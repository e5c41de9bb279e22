"""What an update is made with: the optimiser, its schedule, and the order of a batch's parts."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from guerdon.train.recipe import Optimizer


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

    >>> from guerdon.train.recipe import Optimizer
    >>> [rate(i, settings=Optimizer(schedule="linear", warmup=2), updates=6) for i in (0, 1, 2, 4, 6)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if update < settings.warmup:
        return (update + 1) / settings.warmup
    done = min(1.0, (update - settings.warmup) / max(1, updates - settings.warmup))
    if settings.schedule == "linear":
        return 1.0 - done
    if settings.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0


def shuffled(n: int, seed: int, step: int, number: int) -> Int[Tensor, "n"]:
    """The order in which a pass over the batch of a step, the first being number 0, takes its n rows or groups."""
    return torch.from_numpy(np.random.default_rng([seed, step, number]).permutation(n))
