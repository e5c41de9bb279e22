"""From advantages to weights: the update of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.objectives import kl_penalty, token_means
from guerdon.train.distributed import gather, share
from guerdon.train.language.answers import answered
from guerdon.train.language.losses import Experience, Forward, by_advantages, by_groups, forward, loss, told
from guerdon.train.method import KL, Method, options
from guerdon.train.updates import shuffled

if TYPE_CHECKING:
    from accelerate import Accelerator

    from guerdon.core.protocols import Model
    from guerdon.train.language.critic import Critic
    from guerdon.train.recipe import Recipe


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
    models: Mapping[str, Model] | None = None,
    critic: Critic | None = None,
) -> dict[str, float]:
    """The optimiser steps of one training step.

    Rows are divided over minibatches (one optimiser step each), processes, and micro-batches (one
    backward pass each); whole groups of them, where the objective compares the rollouts of a group. Every
    part is divided by the denominator of its whole minibatch, so how rows are divided does not change the
    gradient.

    Args:
        models: other models that the objective reads.
        critic: learns beside the policy, from its targets or from an objective that reads its values; and alone in the
            first `critic.warmup` steps.

    Returns:
        Means, over the tokens that were learned from, of what the objective reports; the loss; and the
        norm of the gradient.
    """
    batch, length = recipe.batch, recipe.sampling.max_tokens
    temperature = recipe.sampling.temperature or 1.0

    def passed(part: Experience) -> Forward:
        return forward(model, part, method, temperature=temperature)

    # With one update per batch the policy that learns is the one that wrote, and the ratio is 1.
    once = batch.passes * batch.minibatches == 1
    old_logp = None if once else _old_logp(experience, passed, accelerator, batch.micro)
    units = _units(experience, method)
    alone = critic is not None and critic.alone(step)
    modules = [model] if critic is None else [model, critic.module]
    losses, norms, sums, errors = [], [], [], []
    for number in range(batch.passes):
        order = torch.arange(len(units)) if once else shuffled(len(units), recipe.seed, step, number)
        for chosen in order.tensor_split(batch.minibatches):
            whole = experience.select(torch.cat([units[i] for i in chosen]))
            mine = [units[i] for i in share(accelerator, chosen.tolist())]
            micro = _micro_batches(experience, mine, method, batch.micro, every_row=critic is not None)
            drift = None
            if method.constraint is not None and old_logp is not None:
                drift = _drift(experience, micro, old_logp, passed, method, accelerator)
            loss_here = 0.0
            for i, part_rows in enumerate(micro):
                part = experience.select(part_rows, accelerator.device)
                with ExitStack() as unsynchronised:
                    for module in modules if i < len(micro) - 1 else ():
                        unsynchronised.enter_context(accelerator.no_sync(module))
                    said = told(part, method, models or {}, temperature=temperature, critic=critic)
                    policy = passed(part)
                    said |= answered(model, part, method)
                    old = policy.logp if old_logp is None else old_logp[part_rows].to(policy.logp.device)
                    value, parts = loss(part, policy, old, method, whole, said, length=length, drift=drift)
                    if method.denominator == "micro-batch":
                        value = value / len(micro)
                    else:  # DDP averages gradients over processes, and the denominator is that of all of them
                        value = value * accelerator.num_processes
                    accelerator.backward(value)
                    if critic is not None and part.targets is not None:
                        errors.append(critic.backward(part, whole))
                loss_here += float(value.detach())
                sums.append({name: value.detach().cpu() for name, value in parts.items()})
            if recipe.optimizer.max_grad_norm:
                norms.append(float(accelerator.clip_grad_norm_(model.parameters(), recipe.optimizer.max_grad_norm)))
            if critic is not None:
                critic.update()
            if not alone:
                optimizer.step()
                schedule.step()
            optimizer.zero_grad()
            losses.append(loss_here)
    everywhere = gather(accelerator, (losses, sums, errors))
    metrics = {"loss": sum(sum(losses) / len(losses) for losses, _, _ in everywhere) / len(everywhere)}
    if norms:
        metrics["grad_norm"] = sum(norms) / len(norms)
    if every := [one for _, _, errors in everywhere for one in errors]:
        metrics["value_error"] = sum(error for error, _ in every) / max(1.0, sum(count for _, count in every))
    return metrics | _means([part for _, sums, _ in everywhere for part in sums])


def gradients(
    experience: Experience,
    advantages: Mapping[str, Tensor],
    recipe: Recipe,
    method: Method,
    policy: torch.nn.Module,
    accelerator: Accelerator,
    *,
    models: Mapping[str, Model] | None = None,
) -> dict[str, Float[Tensor, "d"]]:
    """The ways up that a method's objective would go with each of several advantages alone, before any update.

    Args:
        experience: what it goes by, of all processes; each computes its part.
        advantages: by name, one per rollout or per token.
        policy: as it is kept; what accelerate made of it would bring together the gradients of an update.
        models: other models that the objective reads.

    Returns:
        For each name the gradient of minus the loss, by all weights that learn, in one vector; without KL, entropy and
        constraint, and nothing is left in the weights' own gradients.
    """
    method = replace(method, kl=KL(), entropy=0.0, constraint=None, denominator="batch")
    temperature, length = recipe.sampling.temperature or 1.0, recipe.sampling.max_tokens
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    size = sum(weight.numel() for weight in weights)
    totals = {name: torch.zeros(size, device=accelerator.device) for name in advantages}
    mine = list(share(accelerator, _units(experience, method)))
    for rows in _micro_batches(experience, mine, method, recipe.batch.micro, every_row=True) if mine else ():
        part = experience.select(rows, accelerator.device)
        said = told(part, method, models or {}, temperature=temperature)
        passed = forward(policy, part, method, temperature=temperature)
        for name, table in advantages.items():
            alone = replace(part, advantages=table[rows].to(accelerator.device))
            value, _ = loss(alone, passed, passed.logp, method, experience, said, length=length)
            found = torch.autograd.grad(value, weights, retain_graph=True, materialize_grads=True)
            totals[name] -= torch.cat([gradient.flatten().float() for gradient in found])
    return {name: accelerator.reduce(total, "sum") for name, total in totals.items()}


def _means(sums: list[dict[str, Tensor]]) -> dict[str, float]:
    """Means over tokens; over groups, pairs or rollouts of what is counted in them."""
    means = token_means(*sums)
    counts = (("groups", "kept"), ("pairs", "right"), ("trajectories", "log_z"), ("answers", "answer_logp"))
    for counted, name in counts:
        if counted in means:
            count = means.pop(counted)
            means[name] = means[name] / count if count else 0.0
    return means


def _units(experience: Experience, method: Method) -> list[Tensor]:
    """What is not to be cut: rows, or groups of them, in the order in which they come."""
    if not by_groups(method):
        return list(torch.split(torch.arange(len(experience)), 1))
    assert experience.groups is not None
    _, index = torch.unique(experience.groups, return_inverse=True)
    first = torch.full((int(index.max()) + 1,), len(index)).scatter_reduce(0, index, torch.arange(len(index)), "amin")
    return [torch.nonzero(index == i)[:, 0] for i in first.argsort()]


def _micro_batches(
    experience: Experience, units: list[Tensor], method: Method, size: int, *, every_row: bool
) -> list[Tensor]:
    """Rows of like length together, so that little padding is computed, and none that teach nothing.

    Where the only gradient is that of the surrogate, a row whose advantages are 0 has none. One row is
    kept in any case: every process takes part in every update. Micro-batches that are averaged, each over
    its own denominator, are left as they come. A group that is not to be cut may be more than `size` rows.
    """
    if method.denominator == "batch":
        if by_advantages(method) and not every_row:
            teaching = [unit for unit in units if bool((experience.advantages[unit] != 0).any())]
            units = teaching or units[:1]
        lengths = experience.attended.sum(1)
        units = sorted(units, key=lambda unit: int(lengths[unit].max()))
    micro: list[list[Tensor]] = [[]]
    for unit in units:
        if micro[-1] and sum(map(len, micro[-1])) + len(unit) > size:
            micro.append([])
        micro[-1].append(unit)
    return [torch.cat(part) for part in micro]


def _drift(
    experience: Experience,
    micro: list[Tensor],
    old_logp: Tensor,
    passed: Callable[[Experience], Forward],
    method: Method,
    accelerator: Accelerator,
) -> float:
    """How far the policy is from the one that wrote a minibatch: the mean over its tokens of KL(old ‖ now)."""
    assert method.constraint is not None
    kind = options(method.constraint)["kind"]
    total = count = 0.0
    with torch.no_grad():
        for rows in micro:
            part = experience.select(rows, accelerator.device)
            # The estimators of kl_penalty are for tokens of their first argument.
            estimate = kl_penalty(old_logp[rows].to(accelerator.device), passed(part).logp, kind=kind, mask=part.mask)
            total, count = total + float(estimate[part.mask].sum()), count + int(part.mask.sum())
    everywhere = gather(accelerator, (total, count))
    return sum(total for total, _ in everywhere) / max(1.0, sum(count for _, count in everywhere))


def _old_logp(
    experience: Experience, passed: Callable[[Experience], Forward], accelerator: Accelerator, micro: int
) -> Tensor:
    """Log-probabilities before the first update, of all rows; every process computes its part."""
    rows = share(accelerator, range(len(experience)))
    with torch.no_grad():
        parts = [
            passed(experience.select(chunk, accelerator.device)).logp.cpu()
            for chunk in torch.split(torch.as_tensor(list(rows)), micro)
        ]
    return torch.cat([part for parts in gather(accelerator, parts) for part in parts])
