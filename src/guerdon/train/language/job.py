"""All that a training step needs: built from a recipe, or taken up where a run stands."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from accelerate import Accelerator
from rich.console import Console

from guerdon.algebra import Reward, spec
from guerdon.core.context import Context
from guerdon.core.errors import RecipeError
from guerdon.core.rollouts import RESERVED, Rollouts, Tokens
from guerdon.data import Filter, Pace
from guerdon.engine import Engine, require
from guerdon.rewards.probe import Cut
from guerdon.train import checkpoint as checkpoints
from guerdon.train.checkpoint import Checkpoint
from guerdon.train.crediting import STOPPED
from guerdon.train.distributed import on_main
from guerdon.train.language.answers import check_answer
from guerdon.train.language.blending import weighted, weights
from guerdon.train.language.critic import Critic
from guerdon.train.language.generation import check_context
from guerdon.train.language.guidance import check as check_guidance
from guerdon.train.language.losses import by_groups, models_of
from guerdon.train.language.models import LanguageModel, same_tokenizer
from guerdon.train.language.policy import build
from guerdon.train.language.teach import check as check_teaching, teach
from guerdon.train.language.tokenizer import encode_prompts, encode_text
from guerdon.train.loop import Standing, last_checkpoint, reference
from guerdon.train.method import Method
from guerdon.train.progress import ticker
from guerdon.train.prompts import Prompts, Row
from guerdon.train.recipe import OWN_MODELS, Recipe
from guerdon.train.run import Run
from guerdon.train.sampling import Begin, Sampling
from guerdon.train.updates import adamw

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from guerdon.core.protocols import Model

# What rollouts that are written step by step say of themselves: the text of the step, and how many were taken before.
STEP, DEPTH = "step", "depth"


@dataclass(kw_only=True)
class Job(Standing):
    """All that a step needs, and where the run stands."""

    method: Method
    accuracy: Reward
    model: Any  # what accelerate made of the policy
    policy: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: Prompts
    held_out: list[Row]
    filter: Filter | None = None  # of what was sampled; its memory is the main process's
    pace: Pace | None = None  # of the rounds of dynamic sampling
    models: dict[str, Model] = field(default_factory=dict)  # by name: what rewards read, on the main process only
    critic: Critic | None = None

    @property
    def network(self) -> PreTrainedModel:
        """The policy, as it is kept."""
        return self.policy

    def checkpoint(self) -> Checkpoint:
        """With how far the prompts have come, the memory of filter and pace, learned weights, and the critic."""
        found = super().checkpoint()
        found.state["prompts"] = self.prompts.state_dict()
        found.state["filter"] = self.filter.state_dict() if self.filter else {}
        found.state["pace"] = self.pace.state_dict() if self.pace else {}
        found.state["weights"] = weights(self.method) if self.method.blend else {}
        found.critic = self.critic.state_dict() if self.critic else {}
        return found

    def go_on(self, checkpoint: Checkpoint) -> None:
        """With how far the prompts had come, the memory of filter and pace, learned weights, and the critic."""
        self.prompts.load_state_dict(checkpoint.state["prompts"])
        if self.pace:
            self.pace.load_state_dict(checkpoint.state["pace"])
        if self.method.blend:
            self.method = weighted(self.method, checkpoint.state["weights"])
        if self.critic:
            self.critic.load_state_dict(checkpoint.critic)
        if self.filter:
            self.filter.load_state_dict(checkpoint.state["filter"])
        super().go_on(checkpoint)


def prepare(
    recipe: Recipe, accelerator: Accelerator, engine: Engine, run: Run, console: Console | None, *, allow_import: bool
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
    models = [*OWN_MODELS, *recipe.models]
    _check_columns(accuracy, held_out[0], models)
    _check_columns(reward, {**held_out[0], **_told(method.sampling)}, models)
    if method.sampling.external is not None:
        prompts.check_external(method.sampling.external)
    if recipe.teach is not None:
        check_teaching(prompts, recipe.teach)
    if method.answer is not None:
        check_answer(method.answer, held_out[0])
    policy, tokenizer = build(recipe.policy, seed=recipe.seed)
    encoded = encode_prompts(tokenizer, [row["prompt"] for row in held_out])
    check_context(policy, encoded, recipe.sampling.max_tokens)
    _check_told(method.sampling, held_out[0])
    if method.sampling.guided is not None:
        check_guidance(prompts, method.sampling.guided, policy, tokenizer, recipe.sampling.max_tokens)
    if method.sampling.begin is not None:
        _check_begin(method.sampling.begin, tokenizer, recipe.sampling.max_tokens)
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
    checkpoint = last_checkpoint(run, console)
    if checkpoint is not None:
        checkpoints.restore(policy, checkpoint.weights)
    elif recipe.teach is not None:
        with ticker(console, "teach", recipe.teach.steps) as progress:

            def show(_: int, loss: float) -> None:
                if progress:
                    progress.step(f"loss {loss:.3f}")

            teach(policy, tokenizer, prompts, recipe.teach, seed=recipe.seed, report=show)
    settings = recipe.optimizer
    learning = recipe.steps - (min(recipe.critic.warmup, recipe.steps) if recipe.critic else 0)
    optimizer, schedule = adamw(policy, settings, learning * recipe.batch.passes * recipe.batch.minibatches)
    model, prepared = accelerator.prepare(policy, optimizer)
    job = Job(
        recipe=recipe, method=method, reward=reward, accuracy=accuracy, accelerator=accelerator, engine=engine,
        model=model, policy=policy, tokenizer=tokenizer, prompts=prompts, held_out=held_out,
        optimizer=prepared, schedule=schedule, run=run, console=console,
        filter=method.sampling.load_filter(allow_import=allow_import), started=started,
        pace=None if method.sampling.pace is None else Pace(most=method.sampling.pace),
    )  # fmt: skip
    if recipe.critic is not None:
        shared = {"betas": settings.betas, "eps": settings.eps, "weight_decay": settings.weight_decay}
        job.critic = Critic(
            recipe.critic, policy, trunk, shared, accelerator, max_grad_norm=settings.max_grad_norm, seed=recipe.seed
        )
    if checkpoint is not None:
        job.go_on(checkpoint)
    else:
        on_main(accelerator, lambda: run.rewind(-1))
    read = reward.requires | accuracy.requires
    start = "model:reference" in read or "policy" in recipe.load_models().values()
    start = start or recipe.keep.kl or recipe.evaluation.frontier
    if method.kl.coefficient or start or "reference" in told:
        job.reference = reference(job)
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


def _told(sampling: Sampling) -> Row:
    """The columns that sampling adds to those of the prompts, with a value such as they hold."""
    begun = {} if sampling.begin is None else {STOPPED: False}
    return begun | ({} if sampling.steps is None else {STEP: "", DEPTH: 0})


def _check_told(sampling: Sampling, row: Row) -> None:
    """Check that what sampling says of rollouts has a name of its own.

    Raises:
        RecipeError: if prompts have a column of that name.
    """
    for name in _told(sampling):
        if name in row:
            setting = "begin" if name == STOPPED else "steps"
            said = {STOPPED: "which rollouts stop", STEP: "the step that was written", DEPTH: "how many came before"}
            raise RecipeError(f"method.sampling.{setting}: prompts have a column {name!r}, which says {said[name]}")


def _check_begin(begin: Begin, tokenizer: Any, limit: int) -> None:
    """Check that rollouts can stop where they begin, and at the budgets that they should.

    Raises:
        RecipeError: if the text that stops them, or a budget, leaves no room for an answer.
    """
    stop = encode_text(tokenizer, begin.stop) if begin.stops else []
    if begin.stops and not 0 < len(stop) < limit:
        raise RecipeError(
            f"method.sampling.begin.stop: {begin.stop!r} is {len(stop)} tokens, of a completion's {limit}"
        )
    cut = Cut.of(begin.cut)
    if begin.prior is not None and cut.unit == "tokens" and cut.budgets[-1] + len(stop) >= limit:
        raise RecipeError(
            f"method.sampling.begin.cut: a budget of {cut.budgets[-1]} tokens and {len(stop)} that stop leave none of "
            f"a completion's {limit}: lower the budget or raise sampling.max_tokens"
        )


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


def _check_columns(reward: Reward, row: Row, models: Sequence[str]) -> None:
    """Check, before any work, that rollouts of these prompts will have what a reward reads.

    Raises:
        MissingInput: naming the column, who reads it, and what there is.
    """
    columns = {name: [value] for name, value in row.items() if name not in RESERVED}
    nothing = np.zeros((1, 0), bool)
    tokens = Tokens(np.zeros((1, 0), np.int64), written=nothing, attended=nothing)
    rollouts = Rollouts([row["prompt"]], [""], columns, tokens=tokens)
    require(reward, rollouts, Context(rollouts, models=dict.fromkeys(models, cast("Model", None))))
