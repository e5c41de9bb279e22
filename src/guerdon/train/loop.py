"""What every training loop does around its steps: a run is begun or taken up, evaluated, kept and ended."""

from __future__ import annotations

import atexit
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from torch import Tensor, nn

from guerdon.algebra import Reward
from guerdon.core.errors import GuerdonError, TooManyAbstentions
from guerdon.engine import Engine
from guerdon.train import checkpoint as checkpoints, report
from guerdon.train.checkpoint import Checkpoint, trainable_state
from guerdon.train.distributed import leave, on_main
from guerdon.train.memory import peak_rss_mib
from guerdon.train.progress import line, ticker
from guerdon.train.run import Run
from guerdon.train.scoring import Abstentions


@dataclass(kw_only=True)
class Standing(ABC):
    """What a step of any policy needs, and where the run stands."""

    recipe: Any
    reward: Reward
    accelerator: Accelerator
    engine: Engine
    optimizer: Any
    schedule: torch.optim.lr_scheduler.LRScheduler
    run: Run
    console: Console | None
    reference: dict[str, Tensor] | None = None  # the weights the KL refers to
    step: int = 0
    before: dict[str, Any] | None = None
    abstentions: Abstentions = field(default_factory=Abstentions)
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0  # spent by earlier processes of this run

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The policy's: what learns and is kept."""

    @property
    def elapsed(self) -> float:
        """Seconds of work on this run, by this process and earlier ones."""
        return self.seconds + time.monotonic() - self.started

    def checkpoint(self) -> Checkpoint:
        """All that the run goes on from."""
        state = {
            "seconds": self.elapsed,
            "before": self.before,
            "schedule": self.schedule.state_dict()["last_epoch"],
            "abstentions": self.abstentions.state(),
        }
        weights, reward = trainable_state(self.network), self.reward.state_dict()
        return Checkpoint(self.step, weights, self.optimizer.state_dict(), reward, state)

    def go_on(self, checkpoint: Checkpoint) -> None:
        """Stand where a checkpoint stood; the network has its weights already."""
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.schedule.last_epoch = checkpoint.state["schedule"]
        self.schedule._last_lr = [group["lr"] for group in self.optimizer.param_groups]
        self.reward.load_state_dict(checkpoint.reward)
        self.abstentions = Abstentions.restored(checkpoint.state["abstentions"])
        self.step, self.before = checkpoint.step, checkpoint.state["before"]
        self.seconds = checkpoint.state["seconds"]
        on_main(self.accelerator, lambda: self.run.rewind(self.step))
        if self.console:
            self.console.print(f"{self.run.folder}: going on after step {self.step}")


J = TypeVar("J", bound=Standing)


@dataclass(frozen=True)
class Loop(Generic[J]):
    """A loop, by what it does at each place of a run.

    Args:
        prepare: (accelerator, engine, run, console) -> everything built, as the last checkpoint has it or anew.
        evaluate: measures the policy on what is held out, and writes it to the run.
        step: one training step, written to the run; gives its metrics.
        save_policy: writes the trained policy to a folder, by `save_pretrained`.
    """

    prepare: Callable[[Accelerator, Engine, Run, Console | None], J]
    evaluate: Callable[[J], dict[str, Any]]
    step: Callable[[J], dict[str, Any]]
    save_policy: Callable[[J, Path], None]


def conduct(loop: Loop[J], recipe: Any, folder: Path | None, *, fresh: bool, console: Console | None) -> dict[str, Any]:
    """A run of a loop, from wherever the run in its folder stands to its end; see `language.train`."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    folder = folder or Path("runs") / recipe.name
    trackers: list[Any] = list(recipe.keep.trackers)
    # accelerate shares its settings over a process: another trainer's precision must not become this run's.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=recipe.device == "cpu", mixed_precision="no", log_with=trackers or None, project_dir=str(folder)
    )
    console = console if accelerator.is_main_process else None
    run = Run(folder)
    finished = on_main(accelerator, lambda: Run.open(folder, recipe.data(), fresh=fresh).summary)
    if finished is not None:
        if console:
            console.print(f"{folder} holds this run, finished; --fresh moves it aside and starts anew")
        return finished
    if trackers:
        accelerator.init_trackers("guerdon", config={"name": recipe.name, "seed": recipe.seed})
    with Engine() as engine:
        job = loop.prepare(accelerator, engine, run, console)
        if job.before is None:
            job.before = loop.evaluate(job)
            save(job)
        try:
            with ticker(console, "train", recipe.steps, job.step) as progress:
                while job.step < recipe.steps:
                    record = loop.step(job)
                    _after(loop, job, record)
                    if progress:
                        progress.step(line(record))
        except TooManyAbstentions:
            save(job)
            raise
        summary = _end(loop, job)
    atexit.register(leave)  # not at once: another run may follow in this process; nor after an error, where it may wait
    if trackers:
        accelerator.end_training()
    return summary


def _after(loop: Loop[J], job: J, record: dict[str, Any]) -> None:
    """What it is time for behind a step: an evaluation, a checkpoint."""
    step, recipe = job.step, job.recipe
    job.accelerator.log({k: v for k, v in record.items() if isinstance(v, (int, float))}, step=step)
    if recipe.evaluation.every and step % recipe.evaluation.every == 0 and step < recipe.steps:
        loop.evaluate(job)
    if step % recipe.keep.checkpoint_every == 0 or step == recipe.steps:
        save(job)


def _end(loop: Loop[J], job: J) -> dict[str, Any]:
    """The last evaluation, the policy, the summary and the report."""
    after = loop.evaluate(job)

    def write() -> dict[str, Any]:
        loop.save_policy(job, job.run.folder / "policy")
        summary = {
            "name": job.recipe.name,
            "steps": job.recipe.steps,
            "before": job.before,
            "after": after,
            "seconds": round(job.elapsed, 1),
            "peak_rss_mib": round(peak_rss_mib(), 1),
            "abstained": job.abstentions.share,
            "processes": job.accelerator.num_processes,
        }
        job.run.save_summary(summary)
        report.write(job.run)
        return summary

    return on_main(job.accelerator, write)


def save(job: Standing) -> None:
    """Write a checkpoint, and the report as it stands."""

    def write() -> None:
        checkpoints.save(job.run.folder / "checkpoints", job.checkpoint(), keep=job.recipe.keep.checkpoints)
        try:
            report.write(job.run)
        except GuerdonError as error:  # a page that cannot be drawn is no reason to stop training
            if job.console:
                job.console.print(f"no report: {error}")

    on_main(job.accelerator, write)


def last_checkpoint(run: Run, console: Console | None) -> Checkpoint | None:
    """The run's last checkpoint that is whole; those that are not are named."""
    checkpoint, broken = checkpoints.latest(run.folder / "checkpoints")
    if console:
        for warning in broken:
            console.print(warning)
    return checkpoint


def reference(job: Standing) -> dict[str, Tensor]:
    """The policy's weights as training found them, kept beside the checkpoints."""
    folder = job.run.folder / "checkpoints" / "reference"
    if job.step == 0:
        weights = {name: value.detach().clone() for name, value in trainable_state(job.network).items()}
        on_main(job.accelerator, lambda: checkpoints.save(folder, Checkpoint(0, weights, {}, {}, {}), keep=1) and None)
    start, broken = checkpoints.latest(folder)
    if start is None:
        raise GuerdonError(f"{folder} has no whole copy of the reference policy {broken}: use --fresh")
    return {name: value.to(job.accelerator.device) for name, value in start.weights.items()}
