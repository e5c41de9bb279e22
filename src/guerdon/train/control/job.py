"""All that a step of a planner's run needs: built from a recipe, or taken up where a run stands."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from torch import nn

from guerdon.algebra import Reward
from guerdon.core import tables
from guerdon.core.context import Context
from guerdon.core.errors import RecipeError
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.engine import Engine, require
from guerdon.models import MultiScalePlanner
from guerdon.train import checkpoint as checkpoints
from guerdon.train.control.episodes import World, as_rollouts, read, record
from guerdon.train.control.recipe import ControlRecipe
from guerdon.train.control.windows import Windows, earned, to_go
from guerdon.train.distributed import as_on_main, on_main
from guerdon.train.loop import Standing, last_checkpoint
from guerdon.train.progress import ticker
from guerdon.train.run import Run, disk
from guerdon.train.scoring import Abstentions
from guerdon.train.updates import adamw

EPISODES = "episodes.parquet"
TARGETS = 5  # that are asked for, where the recipe names none
KEPT = ("observations", "actions", "to_go")


@dataclass(kw_only=True)
class ControlJob(Standing):
    """All that a step needs, and where the run stands."""

    planner: MultiScalePlanner
    windows: Windows
    targets: list[float]

    @property
    def network(self) -> nn.Module:
        """The planner."""
        return self.planner


def prepare(
    recipe: ControlRecipe,
    accelerator: Accelerator,
    engine: Engine,
    run: Run,
    console: Console | None,
    *,
    allow_import: bool,
) -> ControlJob:
    """Everything built: episodes recorded or read, and scored once; the planner new, or as the last checkpoint has it.

    Raises:
        RecipeError: if the parts of the recipe do not fit one another.
        MissingInput: if episodes lack a column that the reward reads.
        TooManyAbstentions: if too many of them have no score.
    """
    started = time.monotonic()
    reward = recipe.load_reward(allow_import=allow_import)
    world = World(recipe.environment)
    if recipe.windows % accelerator.num_processes:
        raise RecipeError(f"windows: {recipe.windows} do not divide over {accelerator.num_processes} processes")
    planner = _planner(recipe, world).to(accelerator.device)
    # Before any work: what the planner earns will be scored, too, and has only what is recorded here.
    require(reward, as_rollouts([], recipe.environment.id), Context())
    episodes, abstentions = on_main(accelerator, lambda: _episodes(recipe, world, reward, engine, run, console))
    world.close()
    windows = Windows.of(*(episodes[name] for name in KEPT))
    checkpoint = last_checkpoint(run, console)
    if checkpoint is not None:
        checkpoints.restore(planner, checkpoint.weights)
    else:
        planner.standardize(*(x.to(accelerator.device) for x in (windows.steps, windows.actions)))
    as_on_main(accelerator, planner.parameters())
    optimizer, schedule = adamw(planner, recipe.optimizer, recipe.steps)
    job = ControlJob(
        recipe=recipe, reward=reward, accelerator=accelerator, engine=engine, planner=planner, windows=windows,
        targets=_targets(recipe, windows), optimizer=optimizer, schedule=schedule, run=run, console=console,
        abstentions=abstentions, started=started,
    )  # fmt: skip
    if checkpoint is not None:
        job.go_on(checkpoint)
    else:
        on_main(accelerator, lambda: run.rewind(-1))
    return job


def measured(job: ControlJob, rollouts: Rollouts) -> Scores:
    """The scores of episodes; nothing is remembered of them."""
    context = Context(step=job.step)
    found = job.engine.measure(job.reward.demand(rollouts), rollouts, context)
    return job.reward.combine(found, context.with_(rollouts=rollouts))


def _planner(recipe: ControlRecipe, world: World) -> MultiScalePlanner:
    """One of random weights, a function of the seed."""
    size = recipe.planner
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        try:
            return MultiScalePlanner(
                state=world.state, action=world.action, length=size.length, scales=size.scales, codes=size.codes,
                width=size.width, layers=size.layers, heads=size.heads,
            )  # fmt: skip
        except (ValueError, AssertionError) as error:
            raise RecipeError(f"planner: {error}") from None


def _episodes(
    recipe: ControlRecipe, world: World, reward: Reward, engine: Engine, run: Run, console: Console | None
) -> tuple[dict[str, list[Any]], Abstentions]:
    """The episodes with their returns-to-go, recorded and scored once and kept with the run; and those without a score.

    Raises:
        TooManyAbstentions: if too many have none.
    """
    path = run.folder / EPISODES
    if path.exists():
        columns = tables.read_parquet(path)
    else:
        columns = _scored(recipe, _obtained(recipe, world, console), reward, engine)
        with disk(path):
            tables.write_parquet(path, columns)
    reasons = {row: str(why) for row, why in enumerate(columns["reason"]) if why is not None}
    known = [why is None for why in columns["reason"]]
    abstentions = Abstentions().plus(Scores(np.zeros(len(known)), valid=np.array(known), reasons=reasons))
    abstentions.check(recipe.max_abstain)
    return columns, abstentions


def _obtained(recipe: ControlRecipe, world: World, console: Console | None) -> Rollouts:
    """The episodes of the file, or newly recorded."""
    if recipe.episodes.file is not None:
        return read(recipe.episodes.file, world)
    assert recipe.episodes.record is not None
    with ticker(console, "record", recipe.episodes.record) as progress:

        def show(n: int) -> None:
            if progress:
                progress.step(by=n)

        done = record(recipe.episodes, recipe.environment, seed=recipe.seed, done=show)
    return as_rollouts(done, recipe.environment.id)


def _scored(recipe: ControlRecipe, rollouts: Rollouts, reward: Reward, engine: Engine) -> dict[str, list[Any]]:
    """The columns of episodes, with what is still to be earned at each step, or why that is not known."""
    context = Context(training=True)
    require(reward, rollouts, context)
    found = engine.measure(reward.demand(rollouts), rollouts, context)
    here = context.with_(rollouts=rollouts)
    scores = reward.combine(found, here)
    reward.observe(found, here)
    gained, reasons = earned(scores, [len(actions) for actions in rollouts.column("actions")])
    columns = {name: list(column) for name, column in rollouts.columns.items()}
    return columns | {"to_go": to_go(gained), "reason": [reasons.get(row) for row in range(len(gained))]}


def _targets(recipe: ControlRecipe, windows: Windows) -> list[float]:
    """The returns that are asked for."""
    if recipe.evaluation.targets is not None:
        return list(recipe.evaluation.targets)
    low, high = float(np.quantile(windows.totals, 0.1)), float(windows.totals.max())
    return sorted({round(float(x), 6) for x in np.linspace(low, high, TARGETS)})
