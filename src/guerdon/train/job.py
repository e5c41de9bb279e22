"""All that a training step needs: built from a recipe, or taken up where a run stands."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor

from guerdon.algebra import Reward, spec
from guerdon.core.context import Context
from guerdon.core.errors import GuerdonError, RecipeError, nearest
from guerdon.core.rollouts import RESERVED, Rollouts, Tokens
from guerdon.data import Filter
from guerdon.engine import Engine, require
from guerdon.train import checkpoint as checkpoints
from guerdon.train import report
from guerdon.train.checkpoint import Checkpoint, trainable_state
from guerdon.train.critic import Critic
from guerdon.train.distributed import on_main
from guerdon.train.generation import check_context
from guerdon.train.learning import rate
from guerdon.train.losses import by_groups, models_of
from guerdon.train.method import Method
from guerdon.train.models import LanguageModel, same_tokenizer
from guerdon.train.policy import build
from guerdon.train.progress import ticker
from guerdon.train.prompts import Prompts, Row
from guerdon.train.recipe import OWN_MODELS, Recipe
from guerdon.train.run import Run
from guerdon.train.scoring import Abstentions
from guerdon.train.teach import teach
from guerdon.train.tokenizer import encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from guerdon.core.protocols import Model


@dataclass
class Job:
    """All that a step needs, and where the run stands."""

    recipe: Recipe
    method: Method
    reward: Reward
    accuracy: Reward
    accelerator: Accelerator
    model: Any  # what accelerate made of the policy
    policy: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: Prompts
    held_out: list[Row]
    engine: Engine
    optimizer: Any
    schedule: torch.optim.lr_scheduler.LRScheduler
    run: Run
    console: Console | None
    filter: Filter | None = None  # of the prompts that dynamic sampling draws; its memory is the main process's
    reference: dict[str, Tensor] | None = None  # the weights the KL refers to
    models: dict[str, Model] = field(default_factory=dict)  # by name: what rewards read, on the main process only
    critic: Critic | None = None
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
    recipe: Recipe, accelerator: Accelerator, engine: Engine, run: Run, console: Console | None, allow_import: bool
) -> Job:
    """Everything built, and the policy as the last checkpoint has it, or newly taught."""
    started = time.monotonic()
    method = recipe.load_method()
    unit, size = ("groups", 1) if by_groups(method) else ("rollouts", method.sampling.group)
    minibatch = recipe.batch.prompts * size // recipe.batch.minibatches
    if recipe.batch.prompts % accelerator.num_processes or minibatch % accelerator.num_processes:
        raise RecipeError(
            f"batch: {recipe.batch.prompts} prompts and minibatches of {minibatch} {unit} do not divide over "
            f"{accelerator.num_processes} processes"
        )
    prompts = Prompts(recipe.prompts, seed=recipe.seed)
    reward = recipe.load_reward(allow_import=allow_import)
    accuracy = spec.load(recipe.evaluation.accuracy, allow_import=allow_import)
    held_out = prompts.held_out(recipe.evaluation.prompts)
    _check_columns((reward, accuracy), held_out[0], [*OWN_MODELS, *recipe.models])
    external = method.sampling.external
    if external is not None and external not in held_out[0]:
        raise RecipeError(f"method.sampling.external: prompts have no {external!r}: {nearest(external, held_out[0])}")
    policy, tokenizer = build(recipe.policy, seed=recipe.seed)
    encoded = encode_prompts(tokenizer, [row["prompt"] for row in held_out])
    check_context(policy, encoded, recipe.sampling.max_tokens)
    policy.to(accelerator.device)
    told = models_of(method).values()
    named = {
        name: build(config, seed=recipe.seed)
        for name, config in recipe.load_models().items()
        if config != "policy" and (accelerator.is_main_process or name in told)
    }
    trunk, own = None, recipe.critic.load_model() if recipe.critic else None
    if own is not None:
        trunk, trunk_tokenizer = build(own, seed=recipe.seed)
        _check_reader("critic.model", trunk, trunk_tokenizer, policy, tokenizer, encoded, recipe)
    for name in [name for name in told if name in named]:
        _check_reader(f"models.{name}", *named[name], policy, tokenizer, encoded, recipe)
    checkpoint, broken = checkpoints.latest(run.folder / "checkpoints")
    if console:
        for warning in broken:
            console.print(warning)
    if checkpoint is not None:
        checkpoints.restore(policy, checkpoint.weights)
    elif recipe.teach is not None:
        with ticker(console, "teach", recipe.teach.steps) as progress:

            def show(_: int, loss: float) -> None:
                if progress:
                    progress.step(f"loss {loss:.3f}")

            teach(policy, tokenizer, prompts, recipe.teach, seed=recipe.seed, report=show)
    settings = recipe.optimizer
    learned = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer: Any = torch.optim.AdamW(
        learned, settings.learning_rate, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay
    )
    learning = recipe.steps - (min(recipe.critic.warmup, recipe.steps) if recipe.critic else 0)
    updates = learning * recipe.batch.passes * recipe.batch.minibatches
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(rate, settings=settings, updates=updates))
    model, optimizer = accelerator.prepare(policy, optimizer)
    job = Job(
        recipe, method, reward, accuracy, accelerator, model, policy, tokenizer, prompts, held_out,
        engine, optimizer, schedule, run, console, method.sampling.load_filter(allow_import=allow_import),
        started=started,
    )  # fmt: skip
    if recipe.critic is not None:
        shared = {"betas": settings.betas, "eps": settings.eps, "weight_decay": settings.weight_decay}
        job.critic = Critic(
            recipe.critic, policy, trunk, shared, accelerator, max_grad_norm=settings.max_grad_norm, seed=recipe.seed
        )
    if checkpoint is not None:
        _resume(job, checkpoint)
    else:
        on_main(accelerator, lambda: run.rewind(-1))
    read = reward.requires | accuracy.requires
    start = "model:reference" in read or "policy" in recipe.load_models().values()
    if method.kl.coefficient or recipe.keep.kl or start or "reference" in told:
        job.reference = _reference(job)
    if accelerator.is_main_process or told:
        job.models = _models(job, named)
    return job


def _models(job: Job, named: Mapping[str, tuple[Any, Any]]) -> dict[str, Model]:
    """The models that rewards and the objective read: the policy, what it was, and those that the recipe names."""
    micro = job.recipe.batch.micro
    policy = LanguageModel(job.policy, job.tokenizer, micro_batch=micro)
    # Rollouts are scored before they are learned from: the policy that wrote them is the policy.
    models: dict[str, Model] = {"policy": policy, "old": policy}
    if job.reference is not None:
        models["reference"] = LanguageModel(job.policy, job.tokenizer, weights=job.reference, micro_batch=micro)
    for name, config in job.recipe.load_models().items():
        if config == "policy":
            assert job.reference is not None
            model, tokenizer = copy.deepcopy(job.policy), job.tokenizer
            checkpoints.restore(model, job.reference)
        elif name in named:
            model, tokenizer = named[name]
        else:  # for rewards, which are scored on the main process
            continue
        models[name] = LanguageModel(model.to(job.accelerator.device).eval(), tokenizer, micro_batch=micro)
    return models


def _check_reader(
    place: str, model: Any, own: Any, policy: Any, tokenizer: Any, prompts: list[list[int]], recipe: Recipe
) -> None:
    """Check that a model reads the policy's tokens as the policy does.

    Raises:
        RecipeError: if its tokens are others, or its context is too short.
    """
    if not same_tokenizer(own, tokenizer) or model.config.vocab_size != policy.config.vocab_size:
        raise RecipeError(f"{place}: its tokens are not the policy's: it cannot say anything of them")
    try:
        check_context(model, prompts, recipe.sampling.max_tokens)
    except RecipeError as error:
        raise RecipeError(f"{place}: {error}") from error


def _check_columns(rewards: Sequence[Reward], row: Row, models: Sequence[str]) -> None:
    """Check, before any work, that rollouts of these prompts will have what the rewards read.

    Raises:
        MissingInput: naming the column, who reads it, and what there is.
    """
    columns = {name: [value] for name, value in row.items() if name not in RESERVED}
    nothing = np.zeros((1, 0), bool)
    tokens = Tokens(np.zeros((1, 0), np.int64), written=nothing, attended=nothing)
    rollouts = Rollouts([row["prompt"]], [""], columns, tokens=tokens)
    for reward in rewards:
        require(reward, rollouts, Context(rollouts, models=dict.fromkeys(models, cast("Model", None))))


def save(job: Job) -> None:
    """Write a checkpoint, and the report as it stands."""

    def write() -> None:
        state = {
            "seconds": job.elapsed,
            "before": job.before,
            "schedule": job.schedule.state_dict()["last_epoch"],
            "abstentions": job.abstentions.state(),
            "filter": job.filter.state_dict() if job.filter else {},
        }
        weights, reward = trainable_state(job.policy), job.reward.state_dict()
        critic = job.critic.state_dict() if job.critic else {}
        checkpoint = Checkpoint(job.step, weights, job.optimizer.state_dict(), reward, state, critic)
        checkpoints.save(job.run.folder / "checkpoints", checkpoint, keep=job.recipe.keep.checkpoints)
        try:
            report.write(job.run)
        except GuerdonError as error:  # a page that cannot be drawn is no reason to stop training
            if job.console:
                job.console.print(f"no report: {error}")

    on_main(job.accelerator, write)


def _resume(job: Job, checkpoint: Checkpoint) -> None:
    job.optimizer.load_state_dict(checkpoint.optimizer)
    job.schedule.last_epoch = checkpoint.state["schedule"]
    job.schedule._last_lr = [group["lr"] for group in job.optimizer.param_groups]
    job.reward.load_state_dict(checkpoint.reward)
    if job.critic:
        job.critic.load_state_dict(checkpoint.critic)
    job.abstentions = Abstentions.restored(checkpoint.state["abstentions"])
    if job.filter:
        job.filter.load_state_dict(checkpoint.state["filter"])
    job.step, job.before, job.seconds = checkpoint.step, checkpoint.state["before"], checkpoint.state["seconds"]
    on_main(job.accelerator, lambda: job.run.rewind(job.step))
    if job.console:
        job.console.print(f"{job.run.folder}: going on after step {job.step}")


def _reference(job: Job) -> dict[str, Tensor]:
    """The policy's weights as training found them, kept beside the checkpoints."""
    folder = job.run.folder / "checkpoints" / "reference"
    if job.step == 0:
        weights = {name: value.detach().clone() for name, value in trainable_state(job.policy).items()}
        on_main(job.accelerator, lambda: checkpoints.save(folder, Checkpoint(0, weights, {}, {}, {}), keep=1) and None)
    start, broken = checkpoints.latest(folder)
    if start is None:
        raise GuerdonError(f"{folder} has no whole copy of the reference policy {broken}: use --fresh")
    device = job.accelerator.device
    return {name: value.to(device) for name, value in start.weights.items()}
