"""The reference loop for denoising policies: diffusion and flow models. A denoising step is a token.

One step, read from top to bottom:

    batch     = sampled(denoiser, prompts, chain)        trajectories of each process; randomness by (seed, step, row)
    scores    = reward(pictures of all)                  on the main process, through the engine
    advantage = method.credit(scores, groups, …)         per picture, or per denoising step
    loss      = method.objective(logp, old_logp, advantage, mask)      each process from its own rows

Credit and objective are those of language policies, called unchanged. What is random depends on the seed, the step and
the row only, so a resumed run and a run on two processes follow the run on one.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.credit import progress
from guerdon.objectives.denoising import calibrated
from guerdon.train.crediting import scored
from guerdon.train.denoising.evaluation import evaluate
from guerdon.train.denoising.job import DenoisingJob, prepare
from guerdon.train.denoising.learning import Lessons, learn
from guerdon.train.denoising.pictures import data_url, diversity
from guerdon.train.denoising.recipe import DenoisingRecipe
from guerdon.train.denoising.sampling import sampled
from guerdon.train.denoising.scoring import score
from guerdon.train.loop import Loop, conduct
from guerdon.train.scoring import credited, informative


def train(
    recipe: DenoisingRecipe,
    folder: Path | None = None,
    *,
    fresh: bool = False,
    allow_import: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run a recipe to its end; arguments and errors are those of `language.train`.

    Returns:
        The summary, whose `before` and `after` are each `{reward, ci95, vendi, …}`.
    """
    loop = Loop(partial(prepare, recipe, allow_import=allow_import), evaluate, _step, _save_policy)
    return conduct(loop, recipe, folder, fresh=fresh, console=console)


def _step(job: DenoisingJob) -> dict[str, Any]:
    """One training step; returns its metrics."""
    began = time.monotonic()
    recipe, step = job.recipe, job.step + 1
    context = Context(progress=job.step / max(1, recipe.steps - 1), training=True, step=step)
    batch = sampled(job, step)
    found = score(job, batch, context)
    abstentions = job.abstentions.plus(found.scores)
    abstentions.check(recipe.max_abstain)
    # What every view of a picture says of it is added; there is one view but for several granularities.
    advantages = np.sum([credited(job.method, batch.rollouts, view) for view in found.views], axis=0)
    usable = np.logical_or.reduce([scored(job.method.credit, view) for view in found.views])
    lessons = Lessons(
        torch.as_tensor(advantages, dtype=torch.float32),
        torch.as_tensor(to_numpy(found.scores.read(0.0)), dtype=torch.float32),
        torch.as_tensor(usable),
    )
    torch.manual_seed(int(np.random.SeedSequence([recipe.seed, step]).generate_state(1)[0]))
    learned = learn(job, batch, lessons, step)
    if job.noise is not None:
        job.noise = _calibrated(job, batch.rollouts, found.views[0])
    job.step, job.abstentions = step, abstentions
    pictures = batch.rollouts.completions
    assert isinstance(pictures, list)
    record = found.record | {
        "vendi": diversity(pictures, [str(group) for group in batch.rollouts.groups]),
        "no_signal": float(1.0 - informative(batch.rollouts, advantages).mean()),
        "abstained": len(found.scores.abstained_rows) / len(found.scores),
        "reasons": found.scores.tally(),
        "step": step,
        "seconds": round(job.elapsed, 2),
        **{name: value for name, value in learned.items() if name != "tokens"},
        "learning_rate": job.schedule.get_last_lr()[0],
        "steps_per_second": round(len(batch.rollouts) * len(batch.chain) / (time.monotonic() - began), 1),
    }
    if job.accelerator.is_main_process:
        job.run.log(record)
        if step % recipe.keep.rollouts_every == 0 or step in (1, recipe.steps):
            _keep_sample(job, batch.rollouts, found.scores, advantages)
    return record


def _calibrated(job: DenoisingJob, made: Rollouts, table: Scores) -> torch.Tensor:
    """The noise of the next step's chains, by what this one's steps gained."""
    settings = job.recipe.sampling.calibration
    assert settings is not None
    assert job.noise is not None
    assert made.tokens is not None
    known = torch.as_tensor(to_numpy(table.valid)[:, 1:] & to_numpy(made.tokens.written))
    gains = progress(torch.as_tensor(to_numpy(table.read(0.0))), known)
    return calibrated(
        job.noise, gains, mask=known, balance=settings.balance, change=settings.change, floor=settings.floor
    )


def _keep_sample(job: DenoisingJob, made: Rollouts, scores: Scores, advantages: np.ndarray[Any, Any]) -> None:
    group = job.method.sampling.group
    rows = slice(0, max(group, job.recipe.keep.rollouts // group * group))
    kept = made.select(rows)
    shown = kept.with_(completions=[data_url(kept.completions[i]) for i in range(len(kept))])
    job.run.save_rollouts(job.step, shown, scores.select(rows), advantage=advantages[rows].tolist())


def _save_policy(job: DenoisingJob, folder: Path) -> None:
    job.denoiser.save(folder)
