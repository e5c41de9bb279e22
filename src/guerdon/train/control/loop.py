"""The reference loop for planners: policies that write trajectories of states from coarse to fine, and take a step.

Before the first step, once:

    episodes  = recorded in the environment, or read     what somebody did
    scores    = reward(episodes)                         of steps or of whole episodes, through the engine
    to_go     = the sum of scores from each step on      what is still to be earned

One step, read from top to bottom:

    windows   = stretches of episodes                    randomness by (seed, step)
    loss      = that of the codes of a trajectory, and later that of planning with them
    planner   = its gradient's step                      each process from its own windows

Evaluation asks the planner for returns and lets it act; what it earns is scored by the same reward.
"""

from __future__ import annotations

import math
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from guerdon.core.errors import GuerdonError
from guerdon.train.control.evaluation import evaluate
from guerdon.train.control.job import ControlJob, prepare
from guerdon.train.control.recipe import ControlRecipe
from guerdon.train.distributed import add_gradients, gather, share
from guerdon.train.loop import Loop, conduct
from guerdon.train.run import disk


def train(
    recipe: ControlRecipe,
    folder: Path | None = None,
    *,
    fresh: bool = False,
    allow_import: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run a recipe to its end; arguments and errors are those of `language.train`.

    Returns:
        The summary, whose `before` and `after` are each `{reward, ci95, follows, recorded, asked}`.
    """
    loop = Loop(partial(prepare, recipe, allow_import=allow_import), evaluate, _step, _save_policy)
    return conduct(loop, recipe, folder, fresh=fresh, console=console)


def _step(job: ControlJob) -> dict[str, Any]:
    """One training step; returns its metrics."""
    began = time.monotonic()
    recipe, step = job.recipe, job.step + 1
    drawn = job.windows.drawn(recipe.windows, seed=recipe.seed, step=step)
    mine = np.array(share(job.accelerator, drawn.tolist()))
    trajectories, actions = (x.to(job.accelerator.device) for x in job.windows.read(mine, recipe.planner.length))
    coding = step <= recipe.planner.coding * recipe.steps
    job.planner.train()
    found = job.planner.autoencoder_loss(trajectories) if coding else job.planner.planner_loss(trajectories, actions)
    loss = found * (len(mine) / len(drawn))
    loss.backward()  # type: ignore[no-untyped-call]
    weights = [weight for group in job.optimizer.param_groups for weight in group["params"]]
    add_gradients(job.accelerator, weights)
    whole = sum(gather(job.accelerator, float(loss.detach())))
    if not math.isfinite(whole):
        raise GuerdonError(f"step {step}: the loss is {whole}: lower optimizer.learning_rate")
    norm = None
    if recipe.optimizer.max_grad_norm:
        norm = float(torch.nn.utils.clip_grad_norm_(weights, recipe.optimizer.max_grad_norm))
    job.optimizer.step()
    job.schedule.step()
    job.optimizer.zero_grad()
    job.planner.eval()
    job.step = step
    record: dict[str, Any] = {
        "codes_loss" if coding else "plan_loss": whole,
        "grad_norm": norm,
        "step": step,
        "seconds": round(job.elapsed, 2),
        "learning_rate": job.schedule.get_last_lr()[0],
        "windows_per_second": round(len(drawn) / (time.monotonic() - began), 1),
    }
    if step == 1:  # of the recorded episodes
        record |= {"abstained": job.abstentions.share, "reasons": job.abstentions.reasons}
    if job.accelerator.is_main_process:
        job.run.log(record)
    return record


def _save_policy(job: ControlJob, folder: Path) -> None:
    """Write the planner by `save_pretrained`, whole or not at all."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    with disk(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        job.planner.save_pretrained(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
