"""What a denoising policy makes of the same noise: how good its pictures are, how varied and how real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.scores import Scores
from guerdon.objectives.denoising import sample
from guerdon.train.denoising.denoiser import Picture
from guerdon.train.denoising.job import DenoisingJob, rollouts
from guerdon.train.denoising.pictures import diversity, nearest, recognized, sheet
from guerdon.train.denoising.sampling import EVALUATION, finite, normals
from guerdon.train.denoising.scoring import measured
from guerdon.train.distributed import gather, on_main, share
from guerdon.train.progress import ticker


def evaluate(job: DenoisingJob) -> dict[str, Any]:
    """The reward of pictures made without exploring, with its interval, and how varied and how real they are.

    The same prompts and the same noise each time. The interval is that of the mean over pictures, ± 1.96 standard
    errors: what a rerun with other noise would move, not what another seed of training would.
    """
    settings, sampling = job.recipe.evaluation, job.recipe.sampling
    rows, device = job.held_out, job.denoiser.device
    chain = job.denoiser.chain(settings.steps or sampling.steps, kind=sampling.kind)
    # A consistency model takes its steps through fresh noise, the same each time; others take theirs without.
    chain, draws = (chain, len(chain)) if job.denoiser.consistency else (chain.deterministic(), 0)
    mine = share(job.accelerator, range(len(rows)))
    pictures: list[Picture] = []
    sound: list[bool] = []
    with ticker(job.console, "evaluate", len(mine)) as progress:
        for at in range(0, len(mine), settings.batch):
            part = mine[at : at + settings.batch]
            condition = job.denoiser.encode([rows[i]["prompt"] for i in part])
            noise = normals(part, (1 + draws, *job.denoiser.size), seed=job.recipe.seed, step=0, stream=EVALUATION).to(
                device
            )
            states = sample(
                job.denoiser, noise[:, 0], chain, condition=condition, draws=noise[:, 1:] if draws else None
            ).states
            assert states is not None
            sound += finite(states).tolist()
            pictures += job.denoiser.decode(states[:, -1])
            if progress:
                progress.step(by=len(part))
    everyone = gather(job.accelerator, (pictures, sound))
    pictures = [picture for pictures, _ in everyone for picture in pictures]
    sound = [flag for _, flags in everyone for flag in flags]
    return on_main(job.accelerator, lambda: _judged(job, pictures, np.array(sound)))


def _judged(job: DenoisingJob, pictures: list[Picture], sound: np.ndarray[Any, Any]) -> dict[str, Any]:
    rows = job.held_out
    made = rollouts(rows, pictures, range(len(rows)), np.ones((len(rows), 1), bool))
    scores = measured(job, made, sound, Context(step=job.step), observed=False)
    prompts = [row["prompt"] for row in rows]
    result: dict[str, Any] = {"reward": scores.mean(), "ci95": _interval(scores)}
    if len(scores.parts) > 1:
        result["parts"] = {name: part.mean() for name, part in scores.parts.items()}
    result["vendi"] = diversity(pictures, prompts)
    if job.real is not None:
        result["nearest"] = nearest(pictures, prompts, *job.real)
        result["recognized"] = recognized(pictures, prompts, *job.real)
        result["vendi_real"] = _real_diversity(job, prompts)
    details = {"n": len(scores), "abstained": len(scores.abstained_rows) / len(scores)}
    job.run.save_pictures(job.step, sheet(pictures))
    job.run.log_evaluation({"step": job.step, **result, **details})
    return result


def _interval(scores: Scores) -> list[float] | None:
    values = to_numpy(scores.read(0.0))[to_numpy(scores.usable)]
    if len(values) < 2:
        return None
    half = 1.959964 * float(values.std(ddof=1)) / len(values) ** 0.5
    return [float(values.mean()) - half, float(values.mean()) + half]


def _real_diversity(job: DenoisingJob, prompts: Sequence[str]) -> float | None:
    """Of as many real pictures of each prompt as were made."""
    assert job.real is not None
    chosen, left = [], {prompt: prompts.count(prompt) for prompt in prompts}
    for i, label in enumerate(job.real[1]):
        if left.get(label, 0):
            left[label] -= 1
            chosen.append(i)
    return diversity([job.real[0][i] for i in chosen], [job.real[1][i] for i in chosen]) if chosen else None
