"""Weights of the parts of a reward that are learned: what serves the primary part comes to weigh more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.train.crediting import by_part
from guerdon.train.distributed import on_main
from guerdon.train.language.learning import gradients
from guerdon.train.language.losses import Experience
from guerdon.train.method import Blend, Method, Sum, in_turn

if TYPE_CHECKING:
    from guerdon.train.language.job import Job


def reweigh(job: Job, experience: Experience, rollouts: Rollouts, scores: Scores) -> dict[str, float]:
    """Learn the weights of the next step from the rollouts of this one, before the policy does.

    Returns:
        For the metrics, the weights of this step and what each part does for the primary one; nothing, where the
        weights are not learned.
    """
    blend = job.method.blend
    if blend is None:
        return {}
    total, used = _sum(job.method), weights(job.method)
    tables = {name: table.float() for name, table in by_part(total, rollouts, scores).items()}
    _, group = np.unique(rollouts.groups, return_inverse=True)
    halves = []
    for half in (0, 1):
        rows = torch.as_tensor(np.flatnonzero(group % 2 == half))
        part = {name: table[rows] for name, table in tables.items()}
        halves.append(
            gradients(
                experience.select(rows), part, job.recipe, job.method, job.policy, job.accelerator, models=job.models
            )
        )
    served = service(*halves, primary=blend.primary, scale=blend.scale)
    # One process says what the weights are: the last digits of a sum may differ between machines.
    job.method = weighted(job.method, on_main(job.accelerator, lambda: updated(used, served, blend)))
    return {f"weight/{k}": x for k, x in used.items()} | {f"service/{k}": x for k, x in served.items()}


def service(
    first: Mapping[str, Float[Tensor, "d"]],
    second: Mapping[str, Float[Tensor, "d"]],
    *,
    primary: str,
    scale: str,
) -> dict[str, float]:
    """How far learning from each part on one half of the prompts serves the primary part on the other: s of `Blend`.

    >>> ahead, aside = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])
    >>> service({"p": ahead, "k": aside}, {"p": ahead, "k": aside}, primary="p", scale="none")
    {'p': 4.0, 'k': -2.0}
    """

    def product(x: Tensor, y: Tensor) -> float:
        divisor = float(x.norm() * y.norm()) if scale == "cosine" else 1.0
        return float(x @ y) / divisor if divisor else 0.0

    return {k: (product(first[primary], second[k]) + product(second[primary], first[k])) / 2 for k in first}


def updated(used: Mapping[str, float], served: Mapping[str, float], blend: Blend) -> dict[str, float]:
    """The weights behind a step of them.

    >>> updated({"p": 1.0, "k": 0.1}, {"p": 0.5, "k": -0.5}, Blend("p", learning_rate=0.2, decay=0.5))
    {'p': 1.0, 'k': 0.0}
    """
    floor = -float("inf") if blend.floor is None else blend.floor
    return {k: max(floor, w + blend.learning_rate * (served[k] - blend.decay * w)) for k, w in used.items()}


def weights(method: Method) -> dict[str, float]:
    """What each part of a method's sum weighs."""
    total = _sum(method)
    return {name: total.weights.get(name, 1.0) for name in total.chains}


def weighted(method: Method, weights: Mapping[str, float]) -> Method:
    """The method with other weights in its sum."""
    return replace(method, credit=replace(_sum(method), weights=weights))


def _sum(method: Method) -> Sum:
    [total] = in_turn(method.credit)
    assert isinstance(total, Sum)
    return total
