"""The reference loop for language policies: sample, score, credit, learn.

One step, read from top to bottom:

    rows      = prompts.draw(step)                       every process takes its part
    rollouts  = generate(policy, rows)                   randomness keyed by (seed, step, row)
    scores    = reward(rollouts)                         on the main process, through the engine
    advantage = method.credit(scores, groups, …)         per rollout, or per token
    loss      = method.objective(logp, old_logp, advantage)

What is random depends on the seed, the step and the row only, never on how rows are batched or split
over processes, so a resumed run and a run on two processes follow the run on one.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from guerdon.core.context import Context
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.train.language import critic
from guerdon.train.language.answers import answers
from guerdon.train.language.blending import reweigh
from guerdon.train.language.collecting import collect
from guerdon.train.language.evaluation import evaluate
from guerdon.train.language.job import Job, prepare
from guerdon.train.language.learning import learn
from guerdon.train.language.losses import Experience, read_from, readable_rows
from guerdon.train.language.tokenizer import encode_prompts, pad
from guerdon.train.loop import Loop, conduct
from guerdon.train.recipe import Recipe
from guerdon.train.run import disk
from guerdon.train.scoring import credited


def train(
    recipe: Recipe,
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
        The summary: `before` and `after`, each `{accuracy, ci95, mean_length}`, `seconds`,
        `peak_rss_mib`, `abstained`.

    Raises:
        RunExists: if the folder holds a run of another recipe.
        TooManyAbstentions: if too many of the last batches' rollouts have no score.
    """
    loop = Loop(partial(prepare, recipe, allow_import=allow_import), evaluate, _step, _save_policy)
    return conduct(loop, recipe, folder, fresh=fresh, console=console)


def _step(job: Job) -> dict[str, Any]:
    """One training step; returns its metrics."""
    began = time.monotonic()
    recipe, step = job.recipe, job.step + 1
    progress = job.step / max(1, recipe.steps - 1)
    context = Context(progress=progress, training=True, step=step, models=job.models)
    rollouts, whole, scores, record, abstentions = collect(job, step, context)
    advantages = credited(job.method, rollouts, scores)
    seeds = np.random.SeedSequence([recipe.seed, step, job.accelerator.process_index])
    torch.manual_seed(int(seeds.generate_state(1)[0]))  # dropout, where the policy has any
    job.model.train()
    experience = _experience(job, rollouts, scores, advantages)
    rows = readable_rows(job.method, rollouts, scores)
    read = read_from(job.method, rollouts, scores, limit=recipe.sampling.max_tokens)
    if job.method.answer is not None:
        read |= answers(job.method.answer, rollouts, job.policy, job.tokenizer)
    if recipe.critic:
        read |= critic.targets(job.method, rollouts, scores, by=recipe.critic.targets)
    experience = replace(experience, mask=experience.mask & rows[:, None], **read)
    record |= reweigh(job, experience, rollouts, scores)
    learned = learn(
        experience, recipe, job.method, job.model, job.optimizer, job.schedule, job.accelerator, step=step,
        models=job.models, critic=job.critic,
    )  # fmt: skip
    job.step, job.abstentions = step, abstentions
    seconds = time.monotonic() - began
    record |= {"step": step, "seconds": round(job.elapsed, 2)}
    record |= {name: value for name, value in learned.items() if name not in ("tokens", "kl")}
    record |= {
        "learning_rate": job.schedule.get_last_lr()[0],
        "tokens_per_second": round(float(rollouts.lengths().sum()) / seconds, 1),
    }
    if job.accelerator.is_main_process:
        job.run.log(record)
        if step % recipe.keep.rollouts_every == 0 or step in (1, recipe.steps):
            _keep_sample(job, rollouts, whole, advantages)
    return record


def _experience(job: Job, rollouts: Rollouts, scores: Scores, advantages: np.ndarray[Any, Any]) -> Experience:
    tokens = rollouts.tokens
    assert tokens is not None
    prompt_ids, prompt_mask = pad(
        encode_prompts(job.tokenizer, rollouts.prompts), job.tokenizer.pad_token_id, side="left"
    )
    written = torch.as_tensor(tokens.written)
    return Experience(
        prompt_ids,
        prompt_mask,
        torch.as_tensor(tokens.ids),
        torch.as_tensor(tokens.attended),
        written & torch.as_tensor(scores.usable)[:, None],
        torch.as_tensor(advantages, dtype=torch.float32),
        None if tokens.ref_logp is None else torch.as_tensor(tokens.ref_logp),
    )


def _keep_sample(job: Job, rollouts: Rollouts, scores: Scores, advantages: np.ndarray[Any, Any]) -> None:
    group = job.method.sampling.group
    rows = slice(0, max(group, job.recipe.keep.rollouts // group * group))
    sample = rollouts.select(rows)
    assert sample.tokens is not None
    kept: list[Any] = advantages[rows].tolist()
    if advantages.ndim == 2:
        kept = [row[: int(there.sum())] for row, there in zip(kept, sample.tokens.attended, strict=True)]
    job.run.save_rollouts(job.step, sample, scores.select(rows), advantage=kept, length=sample.lengths().tolist())


def _save_policy(job: Job, folder: Path) -> None:
    """Write the policy and its tokenizer by `save_pretrained`, whole or not at all."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    temporary = folder.with_name(f".{folder.name}.tmp")
    with disk(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        job.policy.save_pretrained(temporary)
        job.tokenizer.save_pretrained(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
