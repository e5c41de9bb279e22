"""From advantages to weights: the update of a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.objectives import denominator, importance_ratio, kl_penalty, token_means
from guerdon.train.distributed import gather, share
from guerdon.train.method import Method, options
from guerdon.train.policy import logprobs

if TYPE_CHECKING:
    from accelerate import Accelerator

    from guerdon.train.recipe import Optimizer, Recipe


@dataclass(frozen=True)
class Experience:
    """Scored rollouts of all processes, in one order, ready to learn from; tensors on the CPU.

    Args:
        prompt_ids, prompt_mask: the prompts, padded on the left.
        ids, attended: the completions, padded on the right.
        mask: tokens the policy wrote, in rows that have a score: the ones that are learned from.
        advantages: one per rollout or per token.
        ref_logp: under the reference policy, where the method needs it.
    """

    prompt_ids: Int[Tensor, "n p"]
    prompt_mask: Bool[Tensor, "n p"]
    ids: Int[Tensor, "n t"]
    attended: Bool[Tensor, "n t"]
    mask: Bool[Tensor, "n t"]
    advantages: Float[Tensor, "n"] | Float[Tensor, "n t"]
    ref_logp: Float[Tensor, "n t"] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Int[Tensor, "m"] | slice, device: Any = None) -> Experience:
        """Some of the rows, on a device."""
        columns = {name: value[rows].to(device) for name, value in vars(self).items() if value is not None}
        return Experience(**columns)


def learn(
    experience: Experience,
    recipe: Recipe,
    method: Method,
    model: Any,
    optimizer: Any,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    accelerator: Accelerator,
    *,
    step: int,
) -> dict[str, float]:
    """The optimiser steps of one training step.

    Rows are divided over minibatches (one optimiser step each), processes, and micro-batches (one
    backward pass each). Every part is divided by the denominator of its whole minibatch, so how rows
    are divided does not change the gradient.

    Returns:
        Means, over the tokens that were learned from, of what the objective reports; the loss; and the
        norm of the gradient.
    """
    batch, n = recipe.batch, len(experience)
    temperature = recipe.sampling.temperature or 1.0

    def forward(part: Experience) -> Tensor:
        logp, _ = logprobs(model, part.prompt_ids, part.prompt_mask, part.ids, part.attended, temperature=temperature)
        return logp

    # With one update per batch the policy that learns is the one that wrote, and the ratio is 1.
    once = batch.passes * batch.minibatches == 1
    old_logp = None if once else _old_logp(experience, forward, accelerator, batch.micro)
    losses, norms, sums = [], [], []
    for number in range(batch.passes):
        order = torch.arange(n) if once else _shuffled(n, recipe.seed, step, number)
        for rows in order.chunk(batch.minibatches):
            whole = experience.mask[rows]
            micro = _micro_batches(experience, torch.as_tensor(share(accelerator, rows.tolist())), method, batch.micro)
            loss_here = 0.0
            for i, part_rows in enumerate(micro):
                part = experience.select(part_rows, accelerator.device)
                last = i == len(micro) - 1
                with nullcontext() if last else accelerator.no_sync(model):
                    logp = forward(part)
                    old = logp if old_logp is None else old_logp[part_rows].to(logp.device)
                    loss, parts = _loss(part, logp, old, method, whole, length=recipe.sampling.max_tokens)
                    if method.denominator == "micro-batch":
                        loss = loss / len(micro)
                    else:  # DDP averages gradients over processes, and the denominator is that of all of them
                        loss = loss * accelerator.num_processes
                    accelerator.backward(loss)
                loss_here += float(loss.detach())
                sums.append({name: value.detach().cpu() for name, value in parts.items()})
            if recipe.optimizer.max_grad_norm:
                norms.append(float(accelerator.clip_grad_norm_(model.parameters(), recipe.optimizer.max_grad_norm)))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss_here)
    everywhere = gather(accelerator, (losses, sums))
    metrics = {"loss": sum(sum(losses) / len(losses) for losses, _ in everywhere) / len(everywhere)}
    if norms:
        metrics["grad_norm"] = sum(norms) / len(norms)
    return metrics | token_means(*(part for _, sums in everywhere for part in sums))


def _micro_batches(experience: Experience, rows: Tensor, method: Method, size: int) -> list[Tensor]:
    """Rows of like length together, so that little padding is computed, and none that teach nothing.

    Where the only gradient is that of the surrogate, a row whose advantages are 0 has none. One row is
    kept in any case: every process takes part in every update. Micro-batches that are averaged, each over
    its own denominator, are left as they come.
    """
    if method.denominator == "micro-batch":
        return list(torch.split(rows, size))
    if not (method.kl.coefficient and method.kl.place == "loss"):
        teaching = experience.advantages[rows] != 0
        teaching = teaching.any(1) if teaching.ndim == 2 else teaching
        rows = rows[teaching] if teaching.any() else rows[:1]
    order = experience.attended[rows].sum(1).argsort(stable=True)
    return list(torch.split(rows[order], size))


def _loss(
    part: Experience, logp: Tensor, old_logp: Tensor, method: Method, whole: Tensor, *, length: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a micro-batch, over the denominator of the minibatch whose written tokens are `whole`."""
    chosen = options(method.objective)
    length = chosen.get("length") or length
    counts = {"rows": int(whole.any(1).sum()), "tokens": int(whole.sum())} if method.denominator == "batch" else {}
    kl = None
    if method.kl.coefficient and method.kl.place == "loss":
        assert part.ref_logp is not None
        ratio = importance_ratio(logp, old_logp, part.mask, ratio=chosen["ratio"]) if method.kl.corrected else None
        kl = kl_penalty(logp, part.ref_logp, kind=method.kl.kind, mask=part.mask, ratio=ratio)
        kl = method.kl.coefficient * kl
    loss, sums = method.objective(
        logp,
        old_logp.detach(),
        part.advantages.to(logp),
        part.mask,
        kl=kl,
        denominator=denominator(part.mask, chosen["aggregate"], length=length, **counts),
    )
    if kl is not None:
        sums["kl"] = sums["kl"] / method.kl.coefficient
    return loss, sums


def _old_logp(
    experience: Experience, forward: Callable[[Experience], Tensor], accelerator: Accelerator, micro: int
) -> Tensor:
    """Log-probabilities before the first update, of all rows; every process computes its part."""
    rows = share(accelerator, range(len(experience)))
    with torch.no_grad():
        parts = [
            forward(experience.select(chunk, accelerator.device)).cpu()
            for chunk in torch.split(torch.as_tensor(list(rows)), micro)
        ]
    return torch.cat([part for parts in gather(accelerator, parts) for part in parts])


def _shuffled(n: int, seed: int, step: int, number: int) -> Tensor:
    order = np.random.default_rng([seed, step, number]).permutation(n)
    return torch.from_numpy(order)


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
