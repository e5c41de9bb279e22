"""All that a step of a denoising run needs: built from a recipe, or taken up where a run stands."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float
from rich.console import Console
from torch import Tensor, nn

from guerdon.algebra import Reward
from guerdon.core.context import Context
from guerdon.core.errors import RecipeError
from guerdon.core.rollouts import RESERVED, Rollouts, Tokens, Tree
from guerdon.engine import Engine, require
from guerdon.objectives.denoising import Chain, uniform
from guerdon.train import checkpoint as checkpoints
from guerdon.train.checkpoint import Checkpoint
from guerdon.train.denoising.denoiser import Denoiser, Picture, build
from guerdon.train.denoising.digits import digits, teach
from guerdon.train.denoising.recipe import DenoisingRecipe, DenoisingSampling, given
from guerdon.train.distributed import as_on_main, on_main
from guerdon.train.loop import Standing, last_checkpoint, reference
from guerdon.train.method import Method
from guerdon.train.progress import ticker
from guerdon.train.prompts import Prompts, Row
from guerdon.train.run import Run
from guerdon.train.updates import adamw


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


@dataclass(kw_only=True)
class DenoisingJob(Standing):
    """All that a step needs, and where the run stands."""

    method: Method
    denoiser: Denoiser
    prompts: Drawn
    held_out: list[Row]
    noise: Float[Tensor, "t"] | None = None  # of each step, where it is calibrated
    real: tuple[list[Picture], list[str]] | None = None  # real pictures and their prompts

    @property
    def network(self) -> nn.Module:
        """The denoiser's."""
        network: nn.Module = self.denoiser.network
        return network

    def chain(self) -> Chain:
        """That of sampling, before it is said which steps explore."""
        sampling = self.recipe.sampling
        kind = sampling.kind if sampling.calibration is None else "dance"
        return self.denoiser.chain(sampling.steps, kind=kind, a=sampling.a, reduce=sampling.reduce)

    def checkpoint(self) -> Checkpoint:
        """With the noise of each step."""
        found = super().checkpoint()
        found.state["noise"] = None if self.noise is None else self.noise.tolist()
        return found

    def go_on(self, checkpoint: Checkpoint) -> None:
        """With the noise of each step."""
        if self.noise is not None:
            self.noise = torch.tensor(checkpoint.state["noise"])
        super().go_on(checkpoint)


def prepare(
    recipe: DenoisingRecipe,
    accelerator: Accelerator,
    engine: Engine,
    run: Run,
    console: Console | None,
    *,
    allow_import: bool,
) -> DenoisingJob:
    """Everything built, and the policy as the last checkpoint has it, or newly taught.

    Raises:
        RecipeError: if the parts of the recipe do not fit one another.
        MissingInput: if prompts lack a column that the reward reads.
    """
    started = time.monotonic()
    if recipe.batch.prompts % accelerator.num_processes:
        raise RecipeError(
            f"batch: {recipe.batch.prompts} prompts do not divide over {accelerator.num_processes} processes"
        )
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
    noise = _noise(denoiser, recipe.sampling)
    _check_columns(reward, held_out[0], denoiser)
    denoiser.guidance = recipe.sampling.guidance
    denoiser.network.to(accelerator.device)
    if denoiser.pipeline is not None:
        denoiser.pipeline.to(accelerator.device)
    denoiser.encode([row["prompt"] for row in held_out])
    checkpoint = last_checkpoint(run, console)
    if checkpoint is not None:
        checkpoints.restore(denoiser.network, checkpoint.weights)
    elif recipe.teach is not None:
        _teach(denoiser, recipe, console)
    as_on_main(accelerator, denoiser.network.parameters())
    updates = recipe.steps * recipe.batch.passes * recipe.batch.minibatches
    optimizer, schedule = adamw(denoiser.network, recipe.optimizer, updates)
    job = DenoisingJob(
        recipe=recipe, method=recipe.load_method(), reward=reward, accelerator=accelerator, engine=engine,
        denoiser=denoiser, prompts=prompts, held_out=held_out, optimizer=optimizer, schedule=schedule, run=run,
        console=console, noise=noise, real=_real(recipe), started=started,
    )  # fmt: skip
    if checkpoint is not None:
        job.go_on(checkpoint)
    else:
        on_main(accelerator, lambda: run.rewind(-1))
    if job.method.kl.coefficient or recipe.keep.kl or "ref_logp" in given(job.method):
        job.reference = reference(job)
    return job


def _noise(denoiser: Denoiser, sampling: DenoisingSampling) -> Float[Tensor, "t"] | None:
    """What calibration begins with, as deviations per square root of time; and whether sampling can be done at all."""
    chain = denoiser.chain(sampling.steps, kind=sampling.kind, a=sampling.a, reduce=sampling.reduce)
    if denoiser.consistency and (sampling.a, sampling.window, sampling.singular) != (None, None, False):
        raise RecipeError("sampling: the noise of a consistency model is its own: set neither a, window nor singular")
    if sampling.calibration is None:
        return None
    if not denoiser.flow:
        raise RecipeError("sampling.calibration: the noise of a flow is calibrated; DDIM's is tied to its levels")
    first, last = sampling.explored
    explored = chain.exploring(uniform(len(chain), float(chain.amount[0]), first=first, last=last))
    return explored.std / (chain.levels[:-1] - chain.levels[1:]).sqrt()


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
    pictures: Sequence[Picture | None],
    groups: Sequence[int],
    taken: np.ndarray[Any, Any],
    logp: np.ndarray[Any, Any] | None = None,
    tree: Tree | None = None,
) -> Rollouts:
    """Pictures as rollouts, a denoising step as a token: the stochastic ones are what the policy wrote."""
    columns = {name: [row[name] for row in rows] for name in rows[0] if name not in ("prompt", *RESERVED)}
    tokens = Tokens(np.zeros(taken.shape, np.int64), written=taken, attended=np.ones(taken.shape, bool), logp=logp)
    prompts = [row["prompt"] for row in rows]
    return Rollouts(prompts, list(pictures), columns, groups=np.asarray(groups, np.int64), tokens=tokens, tree=tree)
