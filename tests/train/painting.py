"""A denoising recipe so small that a step takes a moment, and a reward whose value is plain to see."""

from typing import Any

import numpy as np
from accelerate import Accelerator
from merging import merged

from guerdon.algebra import reward
from guerdon.engine import Engine
from guerdon.train import checkpoint as checkpoints, recipe as recipes
from guerdon.train.denoising import job as jobs
from guerdon.train.run import Run

TINY: dict[str, Any] = {
    "name": "tiny",
    "denoiser": {"from_config": {"size": 4, "layers": 1, "width": 8, "heads": 2, "classes": 3}},
    "sampling": {"steps": 4},
    "reward": "image.compactness",
    "method": {"preset": "flow_grpo", "sampling": {"group": 4}},
    "batch": {"prompts": 3, "micro": 64},
    "optimizer": {"learning_rate": 1e-2},
    "evaluation": {"prompts": 12},
    "keep": {"checkpoint_every": 1, "rollouts_every": 2, "rollouts": 8},
    "steps": 2,
    "threads": 1,
    "device": "cpu",
}


def tiny(**changes):
    return recipes.from_data(merged(TINY, changes))


def weights(folder):
    return checkpoints.latest(folder / "checkpoints")[0].weights


@reward(range=(0, 1), lane="batch")
def brightness(completion) -> list[float]:
    return [float(np.asarray(picture).mean() / 255) for picture in completion]


def job_of(recipe, folder):
    engine = Engine()
    run = Run.open(folder, recipe.data())
    return jobs.prepare(recipe, Accelerator(cpu=True), engine, run, None, allow_import=False), engine
