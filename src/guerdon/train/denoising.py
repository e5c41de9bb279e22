"""The reference loop for denoising policies: diffusion and flow models. A denoising step is a token.

One step, read from top to bottom:

    rows       = prompts.draw(step)
    trajectory = sample(denoiser, noise, chain)           randomness keyed by (seed, step, row)
    rollouts   = pictures of the last states              completions that a reward reads like any other
    scores     = reward(rollouts)                         through the engine
    advantage  = method.credit(scores, groups, …)         per picture, or per denoising step
    loss       = method.objective(logp, old_logp, advantage, mask)

Credit and objective are those of language policies, called unchanged. What is random depends on the seed, the step and
the row only, so a resumed run follows one that was not interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from jaxtyping import Bool, Float
from rich.console import Console
from torch import Tensor

from guerdon.algebra import Learned
from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.errors import TooManyAbstentions
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.core.spans import Spans
from guerdon.core.trajectory import Trajectory
from guerdon.engine import Engine
from guerdon.objectives import denominator, token_means
from guerdon.objectives.denoising import Chain, complete, gaussian_kl, replay, sample, singular, uniform
from guerdon.train import report
from guerdon.train.crediting import scored
from guerdon.train.denoiser import Picture
from guerdon.train.denoising_job import DenoisingJob, prepare, rollouts, save
from guerdon.train.denoising_recipe import DenoisingRecipe, reads_potentials
from guerdon.train.memory import peak_rss_mib
from guerdon.train.method import options
from guerdon.train.pictures import data_url, diversity, nearest, sheet
from guerdon.train.policy import borrowed
from guerdon.train.progress import line, ticker
from guerdon.train.run import Run
from guerdon.train.scoring import credited, informative

TRAINING, EVALUATION, WHERE = 0, 1, 2  # streams of randomness


def train(
    recipe: DenoisingRecipe,
    folder: Path | None = None,
    *,
    fresh: bool = False,
    allow_import: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run a recipe to its end, from wherever the run in its folder stands.

    Args:
        recipe: what to do.
        folder: the run's folder; default `runs/NAME`.
        fresh: move a run that is there aside and start anew.
        allow_import: also take reward parts from outside guerdon.
        console: where progress is shown; default: nowhere.

    Returns:
        The summary: `before` and `after`, each `{reward, ci95, vendi, …}`, `seconds`, `peak_rss_mib`, `abstained`.

    Raises:
        RunExists: if the folder holds a run of another recipe.
        TooManyAbstentions: if too many of the last batches' pictures have no score.
    """
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    folder = folder or Path("runs") / recipe.name
    trackers: list[Any] = list(recipe.keep.trackers)
    # accelerate shares its settings over a process: another trainer's precision must not become this run's.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=recipe.device == "cpu", mixed_precision="no", log_with=trackers or None, project_dir=str(folder)
    )
    run = Run.open(folder, recipe.data(), fresh=fresh)
    if run.summary is not None:
        if console:
            console.print(f"{folder} holds this run, finished; --fresh moves it aside and starts anew")
        return run.summary
    if trackers:
        accelerator.init_trackers("guerdon", config={"name": recipe.name, "seed": recipe.seed})
    with Engine() as engine:
        job = prepare(recipe, accelerator, engine, run, console, allow_import)
        if job.before is None:
            job.before = evaluate(job)
            save(job)
        try:
            with ticker(console, "train", recipe.steps, job.step) as progress:
                while job.step < recipe.steps:
                    record = _step(job)
                    if progress:
                        progress.step(line(record))
        except TooManyAbstentions:
            save(job)
            raise
        summary = _end(job)
    if trackers:
        accelerator.end_training()
    return summary


def _step(job: DenoisingJob) -> dict[str, Any]:
    """One training step; returns its metrics."""
    began = time.monotonic()
    recipe, step = job.recipe, job.step + 1
    context = Context(progress=job.step / max(1, recipe.steps - 1), training=True, step=step)
    batch = _sampled(job, step)
    scores, credit_scores, record = _scored(job, batch, context)
    abstentions = job.abstentions.plus(scores)
    abstentions.check(recipe.max_abstain)
    advantages = credited(job.method, batch.rollouts, credit_scores)
    usable = torch.as_tensor(scored(job.method.credit, credit_scores), device=batch.trajectory.mask.device)
    torch.manual_seed(int(np.random.SeedSequence([recipe.seed, step]).generate_state(1)[0]))
    learned = _learn(job, batch, torch.as_tensor(advantages, dtype=torch.float32), usable, step)
    job.step, job.abstentions = step, abstentions
    pictures = batch.rollouts.completions
    assert isinstance(pictures, list)
    record |= {
        "vendi": diversity(pictures, [str(group) for group in batch.rollouts.groups]),
        "no_signal": float(1.0 - informative(batch.rollouts, advantages).mean()),
        "abstained": len(scores.abstained_rows) / len(scores),
        "reasons": scores.tally(),
        "step": step,
        "seconds": round(job.elapsed, 2),
        **{name: value for name, value in learned.items() if name != "tokens"},
        "learning_rate": job.schedule.get_last_lr()[0],
        "steps_per_second": round(batch.trajectory.mask.numel() / (time.monotonic() - began), 1),
    }
    job.run.log(record)
    if step % recipe.keep.rollouts_every == 0 or step in (1, recipe.steps):
        _keep_sample(job, batch.rollouts, scores, advantages)
    job.accelerator.log({k: v for k, v in record.items() if isinstance(v, (int, float))}, step=step)
    if recipe.evaluation.every and step % recipe.evaluation.every == 0 and step < recipe.steps:
        evaluate(job)
    if step % recipe.keep.checkpoint_every == 0 or step == recipe.steps:
        save(job)
    return record


@dataclass(frozen=True)
class Batch:
    """Trajectories of a step, and what they ended as."""

    trajectory: Trajectory
    chain: Chain
    condition: dict[str, Tensor]
    rollouts: Rollouts


def _sampled(job: DenoisingJob, step: int) -> Batch:
    """The trajectories of a step, those of a prompt behind one another."""
    n, group, sampling = job.recipe.batch.prompts, job.method.sampling.group, job.recipe.sampling
    rows = [row for row in job.prompts.draw(step - 1, n) for _ in range(group)]
    groups = np.arange(n).repeat(group)
    noise = normals(len(rows), (sampling.steps + 1, *job.denoiser.size), seed=job.recipe.seed, step=step)
    begin, draws = noise[:, 0], noise[:, 1:]
    if sampling.singular:
        begin = begin[::group].repeat_interleave(group, 0)
    device = job.denoiser.device
    chain = job.denoiser.chain(sampling.steps, kind=sampling.kind, a=sampling.a, reduce=sampling.reduce)
    chain = chain.exploring(exploration(job.recipe, float(chain.amount[0]), n, group, step))
    condition = job.denoiser.encode([row["prompt"] for row in rows])
    with torch.no_grad():
        trajectory = sample(
            job.denoiser, begin.to(device), chain, condition=condition, draws=draws.to(device),
            chunk=job.recipe.batch.micro,
        )  # fmt: skip
    assert trajectory.states is not None
    pictures = job.denoiser.decode(trajectory.states[:, -1])
    made = rollouts(rows, pictures, groups.tolist(), to_numpy(trajectory.mask), to_numpy(trajectory.logp))
    return Batch(trajectory, chain, condition, made)


def exploration(recipe: DenoisingRecipe, a: float, n: int, group: int, step: int) -> Float[Tensor, "..."]:
    """How much noise each step adds: the same for all rows, or one step of each group."""
    sampling = recipe.sampling
    first, last = sampling.explored
    if not sampling.singular:
        return uniform(sampling.steps, a, first=first, last=last)
    drawn = np.random.default_rng([recipe.seed, step, WHERE]).integers(first, last, n)
    return singular(sampling.steps, torch.as_tensor(drawn), a).repeat_interleave(group, 0)


def normals(n: int, shape: Sequence[int], *, seed: int, step: int, stream: int = TRAINING) -> Float[Tensor, "n *d"]:
    """Standard normal noise, each row's a function of seed, step, stream and its number; of a counter, like `uniforms`.

    >>> bool((normals(4, (3,), seed=0, step=1)[:2] == normals(2, (3,), seed=0, step=1)).all())
    True
    """
    rows = [np.random.Philox(key=[seed, step], counter=[0, row, stream, 1]) for row in range(n)]
    found = [np.random.Generator(row).standard_normal(tuple(shape), np.float32) for row in rows]
    return torch.as_tensor(np.stack(found))


def _scored(job: DenoisingJob, batch: Batch, context: Context) -> tuple[Scores, Scores, dict[str, Any]]:
    """The pictures' scores; those that credit begins with, which may be of every intermediate sample; the metrics."""
    states = batch.trajectory.states
    assert states is not None
    sound = to_numpy(torch.isfinite(torch.as_tensor(states).flatten(1)).all(1))
    scores = _measured(job, batch.rollouts, sound, context, observed=True)
    record: dict[str, Any] = {
        "reward": scores.mean(),
        "parts": {name: part.mean() for name, part in scores.parts.items()},
    }
    if not reads_potentials(job.method):
        return scores, scores, record
    clean = complete(
        job.denoiser, batch.trajectory, batch.chain, condition=batch.condition, chunk=job.recipe.batch.micro
    )[:, :-1]
    n, t = clean.shape[:2]
    # Samples of one prompt and step are compared with one another, where a reward compares.
    whole = batch.rollouts.select(np.arange(n).repeat(t))
    groups = whole.groups * t + np.tile(np.arange(t), n)
    whole = whole.with_(completions=job.denoiser.decode(clean.flatten(0, 1)), groups=groups)
    before = _measured(job, whole, sound.repeat(t), context, observed=False)
    return scores, _potentials(before, scores, t), record


def _measured(
    job: DenoisingJob, made: Rollouts, sound: Bool[np.ndarray[Any, Any], "n"], context: Context, *, observed: bool
) -> Scores:
    """Scores of pictures; a sample that is not finite has none."""
    measured = job.engine.measure(job.reward.demand(made), made, context)
    here = context.with_(rollouts=made)
    scores = job.reward.combine(measured, here)
    if observed:
        job.reward.observe(measured, here)
        for leaf in measured:
            if isinstance(leaf, Learned):
                leaf.update(made, measured[leaf], here)
    if sound.all():
        return scores
    why = dict.fromkeys(np.flatnonzero(~sound).tolist(), "the sample is not finite")
    valid = to_numpy(scores.valid) & sound
    return Scores(
        to_numpy(scores.read(0.0)), mask=to_numpy(scores.mask), valid=valid, reasons={**scores.reasons, **why},
        details=scores.details, parts=scores.parts,
    )  # fmt: skip


def _potentials(before: Scores, last: Scores, t: int) -> Scores:
    """What the sample before each step, and the last one, are worth: steps of one token behind an empty one."""
    n = len(last)
    values, valid = (
        np.concatenate([to_numpy(x).reshape(n, t), to_numpy(y)[:, None]], 1)
        for x, y in ((before.read(0.0), last.read(0.0)), (before.valid, last.valid))
    )
    end = np.tile(np.arange(t + 1), (n, 1))
    spans = Spans(np.maximum(end - 1, 0), end, np.ones_like(end, bool))
    reasons = {row // t: why for row, why in before.reasons.items()} | dict(last.reasons)
    whole = np.logical_and(valid, valid.all(1, keepdims=True))
    return Scores(values, valid=whole, spans=spans, reasons=reasons)


def _learn(
    job: DenoisingJob, batch: Batch, advantages: Tensor, usable: Bool[Tensor, "n"], step: int
) -> dict[str, float]:
    """The optimiser steps of one training step.

    Steps are divided over minibatches, by rows, and micro-batches, one backward pass each. Every part is divided by the
    denominator of its whole minibatch, so how steps are divided does not change the gradient.
    """
    settings, method, device = job.recipe.batch, job.method, job.denoiser.device
    advantages = advantages.to(device)
    learned_from = batch.trajectory.mask & usable[:, None]
    quiet = not method.kl.coefficient and not job.recipe.keep.kl
    taught = (
        learned_from & (advantages if advantages.ndim == 2 else advantages[:, None]).ne(0) if quiet else learned_from
    )
    once = settings.passes * settings.minibatches == 1
    chosen = options(method.objective)
    losses, norms, sums = [], [], []
    for number in range(settings.passes):
        n = len(usable)
        order = torch.arange(n) if once else _shuffled(n, job.recipe.seed, step, number)
        for part_rows in order.chunk(settings.minibatches):
            here = torch.zeros(n, dtype=torch.bool, device=device)
            here[part_rows.to(device)] = True
            whole = learned_from & here[:, None]
            divisor = denominator(whole, chosen["aggregate"], length=chosen.get("length"))
            loss_here = 0.0
            for rows, mask in _micro_batches(
                taught & here[:, None], settings.micro, rowwise=chosen["ratio"] != "token"
            ):
                shared = divisor[rows] if divisor.ndim else divisor
                loss, reported = _loss(job, batch, advantages, rows, mask, shared, once=once)
                loss.backward()  # type: ignore[no-untyped-call]
                loss_here += float(loss.detach())
                sums.append({name: value.detach().cpu() for name, value in reported.items()})
            weights = [p for group in job.optimizer.param_groups for p in group["params"]]
            if job.recipe.optimizer.max_grad_norm:
                norm = torch.nn.utils.clip_grad_norm_(weights, job.recipe.optimizer.max_grad_norm)
                norms.append(float(norm))
            job.optimizer.step()
            job.schedule.step()
            job.optimizer.zero_grad()
            losses.append(loss_here)
    metrics = {"loss": sum(losses) / len(losses)}
    if norms:
        metrics["grad_norm"] = sum(norms) / len(norms)
    return metrics | token_means(*sums)


def _loss(
    job: DenoisingJob, batch: Batch, advantages: Tensor, rows: Tensor, mask: Bool[Tensor, "m t"], divisor: Tensor, *,
    once: bool,
) -> tuple[Tensor, Mapping[str, Tensor]]:  # fmt: skip
    """The loss of some steps, with the exact KL to the policy that training began with."""
    trajectory, chain = batch.trajectory.select(rows), batch.chain
    if chain.amount.ndim == 2:
        chain = chain.exploring(chain.amount[rows.to(chain.amount.device)])
    condition = {name: value[rows] for name, value in batch.condition.items()}
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
    loss, reported = job.method.objective(
        logp=now.logp, old_logp=old, advantages=advantages[rows], mask=mask, kl=penalty, denominator=divisor
    )
    if divergence is not None:
        reported = {**reported, "kl": torch.where(mask, divergence.detach(), 0.0).sum()}
    return loss, reported


def _micro_batches(
    mask: Bool[Tensor, "n t"], size: int, *, rowwise: bool
) -> Iterator[tuple[Tensor, Bool[Tensor, "m t"]]]:
    """At most `size` steps each, as rows and a mask over them; rows are cut only where steps are weighed one by one."""
    if not bool(mask.any()):
        return
    if rowwise:
        rows = mask.any(1).nonzero()[:, 0]
        for part in torch.split(rows, max(1, size // mask.shape[1])):
            yield part, mask[part]
        return
    places = mask.nonzero()
    for part in torch.split(places, size):
        rows, index = torch.unique(part[:, 0], return_inverse=True)
        some = mask.new_zeros(len(rows), mask.shape[1])
        some[index, part[:, 1]] = True
        yield rows, some


def _shuffled(n: int, seed: int, step: int, number: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, step, number]).permutation(n))


def evaluate(job: DenoisingJob) -> dict[str, Any]:
    """The reward of pictures made without noise in the steps, with its interval, and how varied and how real they are.

    The same prompts and the same noise each time. The interval is that of the mean over pictures, ± 1.96 standard
    errors: what a rerun with other noise would move, not what another seed of training would.
    """
    settings, sampling = job.recipe.evaluation, job.recipe.sampling
    rows, device = job.held_out, job.denoiser.device
    chain = job.denoiser.chain(settings.steps or sampling.steps, kind=sampling.kind).deterministic()
    noise = normals(len(rows), job.denoiser.size, seed=job.recipe.seed, step=0, stream=EVALUATION)
    pictures: list[Picture] = []
    sound: list[bool] = []
    with ticker(job.console, "evaluate", len(rows)) as progress:
        for at in range(0, len(rows), settings.batch):
            part = slice(at, at + settings.batch)
            condition = job.denoiser.encode([row["prompt"] for row in rows[part]])
            states = sample(job.denoiser, noise[part].to(device), chain, condition=condition).states
            assert states is not None
            sound += torch.isfinite(states.flatten(1)).all(1).tolist()
            pictures += job.denoiser.decode(states[:, -1])
            if progress:
                progress.step(by=len(states))
    made = rollouts(rows, pictures, range(len(rows)), np.ones((len(rows), 1), bool))
    scores = _measured(job, made, np.array(sound), Context(step=job.step), observed=False)
    prompts = [row["prompt"] for row in rows]
    result: dict[str, Any] = {"reward": scores.mean(), "ci95": _interval(scores)}
    if len(scores.parts) > 1:
        result["parts"] = {name: part.mean() for name, part in scores.parts.items()}
    result["vendi"] = diversity(pictures, prompts)
    if job.real is not None:
        result["nearest"] = nearest(pictures, prompts, *job.real)
        result["vendi_real"] = _real_diversity(job, prompts)
    details = {"n": len(scores), "abstained": len(scores.abstained_rows) / len(scores)}
    job.run.save_pictures(job.step, sheet(pictures))
    job.run.log_evaluation({"step": job.step, **result, **details})
    return result


def _interval(scores: Scores) -> list[float] | None:
    values = to_numpy(scores.read(0.0))[to_numpy(scores.usable)]
    if len(values) < 2:
        return None
    half = 1.959964 * float(values.std(ddof=1)) / len(values) ** 0.5
    return [float(values.mean()) - half, float(values.mean()) + half]


def _real_diversity(job: DenoisingJob, prompts: Sequence[str]) -> float | None:
    """Of as many real pictures of each prompt as were made."""
    assert job.real is not None
    chosen, left = [], {prompt: prompts.count(prompt) for prompt in prompts}
    for i, label in enumerate(job.real[1]):
        if left.get(label, 0):
            left[label] -= 1
            chosen.append(i)
    return diversity([job.real[0][i] for i in chosen], [job.real[1][i] for i in chosen]) if chosen else None


def _keep_sample(job: DenoisingJob, made: Rollouts, scores: Scores, advantages: np.ndarray[Any, Any]) -> None:
    group = job.method.sampling.group
    rows = slice(0, max(group, job.recipe.keep.rollouts // group * group))
    kept = made.select(rows)
    shown = kept.with_(completions=[data_url(kept.completions[i]) for i in range(len(kept))])
    job.run.save_rollouts(job.step, shown, scores.select(rows), advantage=advantages[rows].tolist())


def _end(job: DenoisingJob) -> dict[str, Any]:
    """The last evaluation, the policy by `save_pretrained`, the summary and the report."""
    after = evaluate(job)
    job.denoiser.save(job.run.folder / "policy")
    summary = {
        "name": job.recipe.name,
        "steps": job.recipe.steps,
        "before": job.before,
        "after": after,
        "seconds": round(job.elapsed, 1),
        "peak_rss_mib": round(peak_rss_mib(), 1),
        "abstained": job.abstentions.share,
    }
    job.run.save_summary(summary)
    report.write(job.run)
    return summary
