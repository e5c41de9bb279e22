"""What a policy can do on prompts it was not trained on."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from guerdon.core.context import Context
from guerdon.core.rollouts import Rollouts
from guerdon.train.collecting import EVALUATION, sample
from guerdon.train.distributed import gather, on_main, share
from guerdon.train.job import Job
from guerdon.train.progress import ticker


def evaluate(job: Job) -> dict[str, Any]:
    """Accuracy and length of sampled answers to held-out prompts; the same randomness each time."""
    settings = job.recipe.evaluation
    config = job.recipe.sampling
    if settings.temperature is not None:
        config = replace(config, temperature=settings.temperature)
    rows = job.held_out
    mine = share(job.accelerator, range(len(rows)))
    pieces = []
    with ticker(job.console, "evaluate", len(mine)) as progress:
        for at in range(0, len(mine), settings.batch):
            part = list(mine[at : at + settings.batch])
            pieces.append(sample(job, [rows[i] for i in part], part, part, config, step=0, stream=EVALUATION))
            if progress:
                progress.step(by=len(part))
    local = Rollouts.concat(pieces, keep_groups=True) if pieces else None
    rollouts = Rollouts.concat([part for part in gather(job.accelerator, local) if part is not None], keep_groups=True)

    def judged() -> dict[str, Any]:
        scores = job.engine.score(job.accuracy, rollouts, Context(step=job.step, models=job.models))
        n, right = int(scores.valid.sum()), int((scores.read(0.0) > 0.5).sum())
        lengths = rollouts.lengths()
        result = {
            "accuracy": right / n if n else None,
            "ci95": list(wilson(right, n)),
            "mean_length": float(lengths.mean()),
        }
        details = {"n": len(scores), "abstained": 1 - n / len(scores), "lengths": lengths.tolist()}
        job.run.log_evaluation({"step": job.step, **result, **details})
        return result

    return on_main(job.accelerator, judged)


def wilson(right: int, n: int, *, z: float = 1.959964) -> tuple[float, float]:
    r"""The Wilson score interval of a proportion.

        (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)        p = right/n

    Unlike p ± z√(p(1−p)/n) it stays within [0, 1] and is not empty at p = 0 or 1.

    Args:
        right: successes.
        n: trials.
        z: the normal quantile; 1.96 for 95 %.

    Returns:
        The lower and upper end; (0, 1) for no trials.

    >>> low, high = wilson(50, 100)
    >>> round(low, 4), round(high, 4)
    (0.4038, 0.5962)

    Source: Wilson (1927), doi:10.1080/01621459.1927.10502953.
    """
    if not 0 <= right <= n:
        raise ValueError(f"{right} of {n} is not a proportion")
    if n == 0:
        return 0.0, 1.0
    p = right / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))
