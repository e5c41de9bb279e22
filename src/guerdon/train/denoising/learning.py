"""From advantages of denoising steps to weights: the update of a step, each process learning from its own rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.objectives import denominator, token_means
from guerdon.objectives.denoising import gaussian_kl, replay
from guerdon.train.denoising.job import DenoisingJob
from guerdon.train.denoising.recipe import by_groups, given
from guerdon.train.denoising.sampling import Batch
from guerdon.train.distributed import add_gradients, gather
from guerdon.train.language.policy import borrowed
from guerdon.train.method import options
from guerdon.train.updates import shuffled


@dataclass(frozen=True)
class Lessons:
    """What a batch teaches: one entry per row of all processes.

    Args:
        advantages: one per row, or per row and step.
        rewards: of the pictures, for objectives that compare them; 0 where there is none.
        valid: the rows that have a score.
    """

    advantages: Float[Tensor, "n"] | Float[Tensor, "n t"]
    rewards: Float[Tensor, "n"]
    valid: Bool[Tensor, "n"]


def learn(job: DenoisingJob, batch: Batch, lessons: Lessons, step: int) -> dict[str, float]:
    """The optimiser steps of one training step.

    Rows are divided over minibatches (one optimiser step each) and processes, steps over micro-batches (one backward
    pass each); groups stay whole where the objective compares the rows of a group. Every part is divided by the
    denominator of its whole minibatch, and gradients of processes are added, so how they are divided does not change
    the update.

    Returns:
        Means, over the steps that were learned from, of what the objective reports; the loss; and the norm of the
        gradient.
    """
    settings, accelerator = job.recipe.batch, job.accelerator
    assert batch.rollouts.tokens is not None
    learned_from = torch.as_tensor(batch.rollouts.tokens.written) & lessons.valid[:, None]
    taught = learned_from
    if _by_advantages(job):
        advantages = lessons.advantages
        taught = learned_from & (advantages if advantages.ndim == 2 else advantages[:, None]).ne(0)
    n = len(lessons.valid)
    unit = job.method.sampling.group if by_groups(job.method) else 1
    once = settings.passes * settings.minibatches == 1
    rowwise = unit > 1 or options(job.method.objective).get("ratio", "product") != "token"
    losses, norms, sums = [], [], []
    for number in range(settings.passes):
        order = torch.arange(n // unit) if once else shuffled(n // unit, job.recipe.seed, step, number)
        for chosen in order.chunk(settings.minibatches):
            here = torch.zeros(n, dtype=torch.bool)
            here[(chosen[:, None] * unit + torch.arange(unit)).flatten()] = True
            divisor = _divisor(job, batch, lessons, learned_from & here[:, None])
            mine = (taught & here[:, None])[batch.rows]
            loss_here = 0.0
            for rows, mask in _micro_batches(mine, settings.micro, unit=unit, rowwise=rowwise):
                shared = divisor[batch.rows][rows] if divisor.ndim else divisor
                loss, reported = _loss(job, batch, lessons, rows, mask, shared, once=once)
                loss.backward()  # type: ignore[no-untyped-call]
                loss_here += float(loss.detach())
                sums.append({name: value.detach().cpu() for name, value in reported.items()})
            weights = [weight for group in job.optimizer.param_groups for weight in group["params"]]
            add_gradients(accelerator, weights)
            if job.recipe.optimizer.max_grad_norm:
                norms.append(float(torch.nn.utils.clip_grad_norm_(weights, job.recipe.optimizer.max_grad_norm)))
            job.optimizer.step()
            job.schedule.step()
            job.optimizer.zero_grad()
            losses.append(loss_here)
    everywhere = gather(accelerator, (losses, sums))
    metrics = {"loss": sum(sum(losses) / len(losses) for losses, _ in everywhere)}
    if norms:
        metrics["grad_norm"] = sum(norms) / len(norms)
    means = token_means(*(part for _, sums in everywhere for part in sums))
    if "terms" in means:  # what is counted in pairs
        terms = means.pop("terms")
        means |= {name: means[name] / terms if terms else 0.0 for name in ("right", "held") if name in means}
    return metrics | means


def _by_advantages(job: DenoisingJob) -> bool:
    """Whether a step whose advantage is 0 has no gradient, and nothing to be measured."""
    return not job.method.kl.coefficient and not job.recipe.keep.kl and "advantages" in given(job.method)


def _divisor(job: DenoisingJob, batch: Batch, lessons: Lessons, whole: Bool[Tensor, "n t"]) -> Tensor:
    """What the losses of the parts of a minibatch are divided by: its steps or rows; or the terms it has in pairs."""
    chosen = options(job.method.objective)
    if "aggregate" in chosen:
        return denominator(whole, chosen["aggregate"], length=chosen.get("length")).to(job.denoiser.device)
    nothing = torch.zeros(whole.shape)
    known = {"logp": nothing, "old_logp": nothing, "ref_logp": nothing, "mask": whole}
    known |= _of_rows(job, batch, lessons, torch.arange(len(whole)))
    _, sums = job.method.objective(**{name: known[name] for name in given(job.method) if name in known})
    return torch.as_tensor(sums["terms"]).clamp(min=1).to(job.denoiser.device)


def _of_rows(job: DenoisingJob, batch: Batch, lessons: Lessons, rows: Int[Tensor, "m"]) -> dict[str, Any]:
    """What an objective may read of rows, numbered over all processes, beside their steps."""
    groups = torch.as_tensor(batch.rollouts.groups)
    table = {"advantages": lessons.advantages, "rewards": lessons.rewards, "valid": lessons.valid, "groups": groups}
    return {name: value[rows] for name, value in table.items()}


def _loss(
    job: DenoisingJob, batch: Batch, lessons: Lessons, rows: Tensor, mask: Bool[Tensor, "m t"], divisor: Tensor, *,
    once: bool,
) -> tuple[Tensor, Mapping[str, Tensor]]:  # fmt: skip
    """The loss of some steps of this process's rows, with the exact KL to the policy that training began with."""
    device = job.denoiser.device
    here, mask = rows.to(device), mask.to(device)
    trajectory, chain = batch.trajectory.select(here), batch.chain
    if chain.amount.ndim == 2:
        chain = chain.exploring(chain.amount[rows])
    condition = {name: value[here] for name, value in batch.condition.items()}
    reference = None
    if job.reference is not None:
        with torch.no_grad(), borrowed(job.denoiser.network, job.reference):
            reference = replay(job.denoiser, trajectory, chain, mask=mask, condition=condition)
    now = replay(job.denoiser, trajectory, chain, mask=mask, condition=condition)
    # With one update per batch the policy that learns is the one that sampled, and the ratio is 1.
    old = now.logp.detach() if once or trajectory.logp is None else torch.as_tensor(trajectory.logp)
    divergence = None if reference is None else gaussian_kl(now.mean, reference.mean, now.std, reduce=chain.reduce)
    penalty = None
    if divergence is not None and job.method.kl.coefficient:
        penalty = job.method.kl.coefficient * divergence
    known = {"logp": now.logp, "old_logp": old, "mask": mask, "kl": penalty, "denominator": divisor}
    known |= {name: x.to(device) for name, x in _of_rows(job, batch, lessons, batch.rows.start + rows).items()}
    if reference is not None:
        known["ref_logp"] = reference.logp
    loss, reported = job.method.objective(**{name: known[name] for name in given(job.method)})
    if "tokens" not in reported:
        reported = {**reported, "tokens": mask.sum()}
    if divergence is not None:
        reported = {**reported, "kl": torch.where(mask, divergence.detach(), 0.0).sum()}
    return loss, reported


def _micro_batches(
    mask: Bool[Tensor, "n t"], size: int, *, unit: int, rowwise: bool
) -> Iterator[tuple[Tensor, Bool[Tensor, "m t"]]]:
    """At most `size` steps each, as rows and a mask over them.

    Rows are cut only where steps are weighed one by one, and so many consecutive ones as a unit has stay together.
    """
    if not bool(mask.any()):
        return
    if rowwise:
        units = mask.reshape(-1, unit, mask.shape[1]).any((1, 2)).nonzero()[:, 0]
        for part in torch.split(units, max(1, size // (mask.shape[1] * unit))):
            rows = (part[:, None] * unit + torch.arange(unit)).flatten()
            yield rows, mask[rows]
        return
    places = mask.nonzero()
    for part in torch.split(places, size):
        rows, index = torch.unique(part[:, 0], return_inverse=True)
        some = mask.new_zeros(len(rows), mask.shape[1])
        some[index, part[:, 1]] = True
        yield rows, some
