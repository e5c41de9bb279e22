"""Trajectories of a denoising policy, and the pictures they end as; what is random is a function of (seed, step, row).

Every process takes its part of the prompts and keeps its trajectories; pictures are brought together on all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.core.arrays import to_numpy
from guerdon.core.rollouts import Rollouts, Tree
from guerdon.core.trajectory import Trajectory
from guerdon.objectives.denoising import Chain, branch, complete, interval, sample, singular, uniform
from guerdon.train.denoising.denoiser import Picture
from guerdon.train.denoising.job import DenoisingJob, rollouts
from guerdon.train.denoising.recipe import reads_potentials
from guerdon.train.distributed import gather, share

TRAINING, EVALUATION = 0, 1  # streams of randomness

Flags: TypeAlias = Bool[np.ndarray[Any, Any], "n"]


@dataclass(frozen=True)
class Batch:
    """What a step sampled: the trajectories of this process, and the pictures of all.

    Args:
        trajectory, chain, condition: of this process's rows; the chain's noise may be a table per row.
        rollouts: all rows, in one order, a denoising step being a token.
        sound: of all rows, whether the sample is finite.
        rows: this process's among all.
    """

    trajectory: Trajectory
    chain: Chain
    condition: dict[str, Tensor]
    rollouts: Rollouts
    sound: Flags
    rows: slice

    @property
    def states(self) -> Float[Tensor, "n t1 *d"]:
        """The samples along the trajectories, noise first."""
        assert self.trajectory.states is not None
        return torch.as_tensor(self.trajectory.states)


def sampled(job: DenoisingJob, step: int) -> Batch:
    """The trajectories of a step, those of a prompt behind one another."""
    n, group, sampling = job.recipe.batch.prompts, job.method.sampling.group, job.recipe.sampling
    drawn, mine = job.prompts.draw(step - 1, n), share(job.accelerator, range(n))
    rows = [drawn[i] for i in mine for _ in range(group)]
    numbers = [i * group + j for i in mine for j in range(group)]
    noise = normals(numbers, (sampling.steps + 1, *job.denoiser.size), seed=job.recipe.seed, step=step)
    begin, draws = noise[:, 0], noise[:, 1:]
    if sampling.singular:
        begin = begin[::group].repeat_interleave(group, 0)
    chain = job.chain().exploring(exploration(job, len(rows)))
    condition = job.denoiser.encode([row["prompt"] for row in rows])
    trajectory, tree = _walked(job, begin, draws, chain, condition, step)
    made = rollouts(
        rows, [None] * len(rows), [i for i in mine for _ in range(group)], to_numpy(trajectory.mask),
        to_numpy(trajectory.logp), tree,
    )  # fmt: skip
    assert trajectory.states is not None
    pictures, sound = shown(job, torch.as_tensor(trajectory.states)[:, -1])
    whole = Rollouts.concat(gather(job.accelerator, made), keep_groups=True).with_(completions=pictures)
    return Batch(trajectory, chain, condition, whole, sound, slice(numbers[0], numbers[-1] + 1))


def _walked(
    job: DenoisingJob, begin: Tensor, draws: Tensor, chain: Chain, condition: dict[str, Tensor], step: int
) -> tuple[Trajectory, Tree | None]:
    """From noise to samples; with an interval, branches share all that comes before it."""
    recipe, sampling, device = job.recipe, job.recipe.sampling, job.denoiser.device
    chunk = recipe.batch.micro
    begin, draws = begin.to(device), draws.to(device)
    if sampling.interval is None:
        walked = sample(job.denoiser, begin, chain, condition=condition, draws=draws, chunk=chunk)
        return walked, None
    shortest, longest = sampling.interval
    b, at = sampling.branches, sampling.steps - interval(step - 1, recipe.steps, shortest=shortest, longest=longest)
    shared = {name: value[::b] for name, value in condition.items()}
    trunk = sample(job.denoiser, begin[::b], chain[:at], condition=shared, draws=draws[::b, :at], chunk=chunk)
    walked = branch(job.denoiser, trunk, chain, at=at, branches=b, condition=shared, draws=draws[:, at:], chunk=chunk)
    number = np.arange(len(begin))
    root = number - number % b
    return walked, Tree(np.where(root == number, -1, root), np.where(root == number, 0, at))


def exploration(job: DenoisingJob, rows: int) -> Float[Tensor, "..."]:
    """How much noise each step adds: the same for all of so many rows, or at one step of each."""
    sampling = job.recipe.sampling
    if job.noise is not None:
        return job.noise
    first, last = sampling.explored
    a = float(job.chain().amount[0])
    if not sampling.singular:
        return uniform(sampling.steps, a, first=first, last=last)
    return singular(sampling.steps, first + torch.arange(rows) % (last - first), a)


def normals(
    numbers: Sequence[int], shape: Sequence[int], *, seed: int, step: int, stream: int = TRAINING
) -> Float[Tensor, "n *d"]:
    """Standard normal noise, each row's a function of seed, step, stream and its number; of a counter, like `uniforms`.

    >>> bool((normals(range(4), (3,), seed=0, step=1)[2:] == normals([2, 3], (3,), seed=0, step=1)).all())
    True
    """
    rows = [np.random.Philox(key=[seed, step], counter=[0, row, stream, 1]) for row in numbers]
    found = [np.random.Generator(row).standard_normal(tuple(shape), np.float32) for row in rows]
    return torch.as_tensor(np.stack(found))


def shown(job: DenoisingJob, samples: Float[Tensor, "n *d"]) -> tuple[list[Picture], Flags]:
    """The pictures of samples, of all processes, and whether each sample is finite."""
    parts = gather(job.accelerator, (job.denoiser.decode(samples), finite(samples)))
    return [picture for pictures, _ in parts for picture in pictures], np.concatenate([flags for _, flags in parts])


def finite(samples: Float[Tensor, "n *d"]) -> Flags:
    """Whether each sample is."""
    return to_numpy(torch.isfinite(samples.flatten(1)).all(1))


def beside(job: DenoisingJob, batch: Batch) -> tuple[list[Picture], Flags] | None:
    """Pictures that credit compares beside those of a batch, so many for each row, one behind the other.

    Credit of potentials begins with those of the samples before each exploring step (`explored`), completed without
    noise; several granularities with those of every stride but the first. None where there is neither.
    """
    if reads_potentials(job.method):
        clean = complete(
            job.denoiser, batch.trajectory, batch.chain, condition=batch.condition, chunk=job.recipe.batch.micro
        )[:, :-1][:, explored(batch.chain)]
    elif len(job.recipe.sampling.granularities) > 1:
        strides = job.recipe.sampling.granularities[1:]
        clean = torch.stack([_coarse(job, batch, stride) for stride in strides], 1)
    else:
        return None
    return shown(job, clean.flatten(0, 1))


def explored(chain: Chain) -> Bool[Tensor, "t"]:
    """The steps at which any row adds noise."""
    return (chain.std > 0).reshape(-1, len(chain)).any(0)


def _coarse(job: DenoisingJob, batch: Batch, stride: int) -> Float[Tensor, "n *d"]:
    """The samples as they would be had the steps behind the one that explored been taken a stride at a time."""
    ends, at = batch.states[:, -1].clone(), batch.chain.amount.argmax(1).to(batch.states.device)
    for step in torch.unique(at).tolist():
        rest = job.chain().deterministic()[step + 1 :]
        if not len(rest):
            continue
        rows = at == step
        condition = {name: value[rows] for name, value in batch.condition.items()}
        begin = batch.states[rows, step + 1]
        sound = torch.isfinite(begin.flatten(1)).all(1)
        found = sample(
            job.denoiser, begin.nan_to_num(), rest.coarser(stride), condition=condition, chunk=job.recipe.batch.micro
        )
        assert found.states is not None
        ends[rows] = torch.where(sound.reshape(-1, *[1] * (begin.ndim - 1)), found.states[:, -1], torch.nan)
    return ends
