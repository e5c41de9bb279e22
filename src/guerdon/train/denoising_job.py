"""All that a step of a denoising run needs: built from a recipe, or taken up where a run stands."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor

from guerdon.algebra import Reward
from guerdon.core.context import Context
from guerdon.core.errors import GuerdonError, RecipeError
from guerdon.core.rollouts import RESERVED, Rollouts, Tokens
from guerdon.engine import Engine, require
from guerdon.train import checkpoint as checkpoints
from guerdon.train import report
from guerdon.train.checkpoint import Checkpoint, trainable_state
from guerdon.train.denoiser import Denoiser, Picture, build
from guerdon.train.denoising_recipe import DenoisingRecipe
from guerdon.train.digits import digits, teach
from guerdon.train.learning import rate
from guerdon.train.method import Method
from guerdon.train.progress import ticker
from guerdon.train.prompts import Prompts, Row
from guerdon.train.run import Run
from guerdon.train.scoring import Abstentions


class Drawn(Protocol):
    """Where prompts come from: those of training in an order that the seed gives, and those of evaluation."""

    def draw(self, step: int, n: int) -> list[Row]: ...

    def held_out(self, n: int) -> list[Row]: ...


class Classes:
    """The classes of a model as prompts; in training each once before any comes again, in evaluation in turn.

    >>> Classes(3, seed=0).held_out(4)
    [{'prompt': '0'}, {'prompt': '1'}, {'prompt': '2'}, {'prompt': '0'}]
    """

    def __init__(self, number: int, *, seed: int) -> None:
        self.number, self.seed = number, seed

    def draw(self, step: int, n: int) -> list[Row]:
        """The `n` rows of one training step: the same for the same arguments, whatever was drawn before."""
        found = []
        for position in range(step * n, (step + 1) * n):
            epoch, place = divmod(position, self.number)
            order = np.random.default_rng([self.seed, 0, epoch]).permutation(self.number)
            found.append({"prompt": str(order[place])})
        return found

    def held_out(self, n: int) -> list[Row]:
        """The classes in turn: what was not seen in training is the noise, not the class."""
        return [{"prompt": str(i % self.number)} for i in range(n)]


@dataclass
class DenoisingJob:
    """All that a step needs, and where the run stands."""

    recipe: DenoisingRecipe
    method: Method
    reward: Reward
    accelerator: Accelerator
    denoiser: Denoiser
    prompts: Drawn
    held_out: list[Row]
    engine: Engine
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    run: Run
    console: Console | None
    real: tuple[list[Picture], list[str]] | None = None  # real pictures and their prompts
    reference: dict[str, Tensor] | None = None  # the weights the KL refers to
    step: int = 0
    before: dict[str, Any] | None = None
    abstentions: Abstentions = field(default_factory=Abstentions)
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0  # spent by earlier processes of this run

    @property
    def elapsed(self) -> float:
        """Seconds of work on this run, by this process and earlier ones."""
        return self.seconds + time.monotonic() - self.started


def prepare(
    recipe: DenoisingRecipe,
    accelerator: Accelerator,
    engine: Engine,
    run: Run,
    console: Console | None,
    allow_import: bool,
) -> DenoisingJob:
    """Everything built, and the policy as the last checkpoint has it, or newly taught.

    Raises:
        RecipeError: if the parts of the recipe do not fit one another.
        MissingInput: if prompts lack a column that the reward reads.
    """
    started = time.monotonic()
    if accelerator.num_processes > 1:
        raise RecipeError("a denoising policy is trained by one process: start `guerdon train` by itself")
    reward = recipe.load_reward(allow_import=allow_import)
    denoiser = build(recipe.denoiser, recipe.seed)
    if recipe.prompts is None and not denoiser.classes:
        raise RecipeError("prompts is missing: the denoiser reads texts, it has no classes")
    prompts: Drawn = (
        Classes(denoiser.classes, seed=recipe.seed)
        if recipe.prompts is None
        else Prompts(recipe.prompts, seed=recipe.seed)
    )
    held_out = prompts.held_out(recipe.evaluation.prompts)
    sampling = recipe.sampling
    denoiser.chain(sampling.steps, kind=sampling.kind, a=sampling.a, reduce=sampling.reduce)
    _check_columns(reward, held_out[0], denoiser)
    denoiser.guidance = sampling.guidance
    denoiser.network.to(accelerator.device)
    if denoiser.pipeline is not None:
        denoiser.pipeline.to(accelerator.device)
    denoiser.encode([row["prompt"] for row in held_out])
    checkpoint, broken = checkpoints.latest(run.folder / "checkpoints")
    if console:
        for warning in broken:
            console.print(warning)
    if checkpoint is not None:
        checkpoints.restore(denoiser.network, checkpoint.weights)
    elif recipe.teach is not None:
        _teach(denoiser, recipe, console)
    settings = recipe.optimizer
    learned = [parameter for parameter in denoiser.network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        learned, settings.learning_rate, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay
    )
    updates = recipe.steps * recipe.batch.passes * recipe.batch.minibatches
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(rate, settings=settings, updates=updates))
    job = DenoisingJob(
        recipe, recipe.load_method(), reward, accelerator, denoiser, prompts, held_out, engine, optimizer, schedule,
        run, console, real=_real(recipe), started=started,
    )  # fmt: skip
    if checkpoint is not None:
        _resume(job, checkpoint)
    else:
        run.rewind(-1)
    if job.method.kl.coefficient or recipe.keep.kl:
        job.reference = _reference(job)
    return job


def save(job: DenoisingJob) -> None:
    """Write a checkpoint, and the report as it stands."""
    state = {
        "seconds": job.elapsed,
        "before": job.before,
        "schedule": job.schedule.state_dict()["last_epoch"],
        "abstentions": job.abstentions.state(),
    }
    weights, reward = trainable_state(job.denoiser.network), job.reward.state_dict()
    checkpoint = Checkpoint(job.step, weights, job.optimizer.state_dict(), reward, state)
    checkpoints.save(job.run.folder / "checkpoints", checkpoint, keep=job.recipe.keep.checkpoints)
    try:
        report.write(job.run)
    except GuerdonError as error:  # a page that cannot be drawn is no reason to stop training
        if job.console:
            job.console.print(f"no report: {error}")


def _teach(denoiser: Denoiser, recipe: DenoisingRecipe, console: Console | None) -> None:
    assert recipe.teach is not None
    with ticker(console, "teach", recipe.teach.steps) as progress:

        def show(_: int, loss: float) -> None:
            if progress:
                progress.step(f"loss {loss:.3f}")

        teach(denoiser, recipe.teach, seed=recipe.seed, report=show)


def _real(recipe: DenoisingRecipe) -> tuple[list[Picture], list[str]] | None:
    if recipe.teach is None:
        return None
    pictures, labels = digits()
    pixels = ((pictures[:, 0] + 1) * 127.5).round().to(torch.uint8).numpy()
    return list(pixels), [str(label) for label in labels.tolist()]


def _check_columns(reward: Reward, row: Row, denoiser: Denoiser) -> None:
    """Check, before any work, that rollouts of these prompts will have what the reward reads."""
    channels, height, width = denoiser.size
    picture = np.zeros((height, width) if channels == 1 else (height, width, 3), np.uint8)
    require(reward, rollouts([row], [picture], [0], np.ones((1, 1), bool)), Context())


def rollouts(
    rows: Sequence[Row],
    pictures: Sequence[Picture],
    groups: Sequence[int],
    taken: np.ndarray[Any, Any],
    logp: np.ndarray[Any, Any] | None = None,
) -> Rollouts:
    """Pictures as rollouts, a denoising step as a token: the stochastic ones are what the policy wrote."""
    columns = {name: [row[name] for row in rows] for name in rows[0] if name not in ("prompt", *RESERVED)}
    tokens = Tokens(np.zeros(taken.shape, np.int64), written=taken, attended=np.ones(taken.shape, bool), logp=logp)
    prompts = [row["prompt"] for row in rows]
    return Rollouts(prompts, list(pictures), columns, groups=np.asarray(groups, np.int64), tokens=tokens)


def _resume(job: DenoisingJob, checkpoint: Checkpoint) -> None:
    job.optimizer.load_state_dict(checkpoint.optimizer)
    job.schedule.last_epoch = checkpoint.state["schedule"]
    job.schedule._last_lr = [group["lr"] for group in job.optimizer.param_groups]
    job.reward.load_state_dict(checkpoint.reward)
    job.abstentions = Abstentions.restored(checkpoint.state["abstentions"])
    job.step, job.before, job.seconds = checkpoint.step, checkpoint.state["before"], checkpoint.state["seconds"]
    job.run.rewind(job.step)
    if job.console:
        job.console.print(f"{job.run.folder}: going on after step {job.step}")


def _reference(job: DenoisingJob) -> dict[str, Tensor]:
    """The policy's weights as training found them, kept beside the checkpoints."""
    folder = job.run.folder / "checkpoints" / "reference"
    if job.step == 0:
        weights = {name: value.detach().clone() for name, value in trainable_state(job.denoiser.network).items()}
        checkpoints.save(folder, Checkpoint(0, weights, {}, {}, {}), keep=1)
    start, broken = checkpoints.latest(folder)
    if start is None:
        raise GuerdonError(f"{folder} has no whole copy of the reference policy {broken}: use --fresh")
    return {name: value.to(job.denoiser.device) for name, value in start.weights.items()}
