"""What a policy can do on prompts it was not trained on."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Int

from guerdon.audit.theory import pass_at_k
from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.rollouts import Rollouts
from guerdon.train.distributed import gather, on_main, share
from guerdon.train.language.collecting import EVALUATION, sample
from guerdon.train.language.job import Job
from guerdon.train.progress import ticker

Flags: TypeAlias = Bool[np.ndarray[Any, Any], "n"]


def evaluate(job: Job) -> dict[str, Any]:
    """Accuracy and length of sampled answers to held-out prompts; the same randomness each time.

    Where each prompt is answered several times, also pass@k: the chance that one of k answers is right. Answers to one
    prompt are alike, so the interval of the accuracy is that of as many answers as there are prompts, which is
    never too narrow.
    """
    settings = job.recipe.evaluation
    config = job.recipe.sampling
    if settings.temperature is not None:
        config = replace(config, temperature=settings.temperature)
    rows, samples = job.held_out, settings.samples
    mine = share(job.accelerator, range(len(rows) * samples))
    pieces = []
    with ticker(job.console, "evaluate", len(mine)) as progress:
        for at in range(0, len(mine), settings.batch):
            part = list(mine[at : at + settings.batch])
            groups = [i // samples for i in part]
            pieces.append(sample(job, [rows[i] for i in groups], part, groups, config, step=0, stream=EVALUATION))
            if progress:
                progress.step(by=len(part))
    local = Rollouts.concat(pieces, keep_groups=True) if pieces else None
    rollouts = Rollouts.concat([part for part in gather(job.accelerator, local) if part is not None], keep_groups=True)

    def judged() -> dict[str, Any]:
        scores = job.engine.score(job.accuracy, rollouts, Context(step=job.step, models=job.models))
        valid, right = to_numpy(scores.valid), to_numpy(scores.read(0.0)) > 0.5
        n, hits = int(valid.sum()), int(right.sum())
        lengths = rollouts.lengths()
        result: dict[str, Any] = {
            "accuracy": hits / n if n else None,
            "ci95": list(wilson(round(hits / samples), max(1, round(n / samples)) if n else 0)),
            "mean_length": float(lengths.mean()),
        }
        if samples > 1:
            result["pass_at"] = _pass_at(right, valid, rollouts.groups, samples)
        details = {"n": len(scores), "abstained": 1 - n / len(scores), "lengths": lengths.tolist()}
        job.run.log_evaluation({"step": job.step, **result, **details})
        return result

    return on_main(job.accelerator, judged)


def _pass_at(right: Flags, valid: Flags, groups: Int[np.ndarray[Any, Any], "n"], samples: int) -> dict[str, float]:
    """pass@k for k = 1, 2, 4, …, over the prompts all of whose answers have a score."""
    total, hits = (np.bincount(groups, weights=flags).astype(int) for flags in (valid, right))
    hits = hits[total == samples]
    ks = [2**i for i in range(samples.bit_length())]
    return {str(k): float(pass_at_k(hits, samples, k).mean()) for k in ks} if len(hits) else {}


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
