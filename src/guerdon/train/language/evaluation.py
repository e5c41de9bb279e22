"""What a policy can do on prompts it was not trained on."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.audit.theory import pass_at_k
from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.train.distributed import gather, on_main, share
from guerdon.train.language import frontier
from guerdon.train.language.generation import SamplingConfig
from guerdon.train.language.job import Job
from guerdon.train.language.search import search
from guerdon.train.language.writing import EVALUATION, sample
from guerdon.train.progress import ticker

Flags: TypeAlias = Bool[np.ndarray[Any, Any], "n"]


def evaluate(job: Job) -> dict[str, Any]:
    """Accuracy and length of sampled answers to held-out prompts; the same randomness each time.

    Where each prompt is answered several times, also pass@k: the chance that one of k answers is right. Answers to one
    prompt are alike, so the interval of the accuracy is that of as many answers as there are prompts, which is
    never too narrow. With `evaluation.search`, each prompt is also answered once by a search, whose accuracy stands
    beside that of the samples; with `evaluation.frontier`, what the score has cost in KL, see `frontier.economy`.
    """
    settings = job.recipe.evaluation
    config = job.recipe.sampling
    if settings.temperature is not None:
        config = replace(config, temperature=settings.temperature)
    rows, samples = job.held_out, settings.samples
    mine = share(job.accelerator, range(len(rows) * samples))
    pieces, spent = [], list[float]()
    with ticker(job.console, "evaluate", len(mine)) as progress:
        for at in range(0, len(mine), settings.batch):
            part = list(mine[at : at + settings.batch])
            groups = [i // samples for i in part]
            pieces.append(sample(job, [rows[i] for i in groups], part, groups, config, step=0, stream=EVALUATION))
            if settings.frontier:
                spent += frontier.kl_to_start(job, pieces[-1], temperature=config.temperature).tolist()
            if progress:
                progress.step(by=len(part))
    rollouts = _together(job, pieces)
    kl = np.array([x for part in gather(job.accelerator, spent) for x in part])
    searched, tokens = _search(job, config) if settings.search is not None else (None, 0)

    def judged() -> dict[str, Any]:
        context = Context(step=job.step, models=job.models)
        scores = job.engine.score(job.accuracy, rollouts, context)
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
        if searched is not None:
            found = job.engine.score(job.accuracy, searched, context)
            result["search"] = _found(found, searched) | {"tokens": tokens / len(searched)}
        if settings.frontier:
            result["frontier"], start = _frontier(job, scores, kl, samples)
            details |= start
        job.run.log_evaluation({"step": job.step, **result, **details})
        return result

    return on_main(job.accelerator, judged)


def _together(job: Job, pieces: list[Rollouts]) -> Rollouts:
    """The rollouts of all processes, in one order; on all."""
    local = Rollouts.concat(pieces, keep_groups=True) if pieces else None
    return Rollouts.concat([part for part in gather(job.accelerator, local) if part is not None], keep_groups=True)


def _search(job: Job, config: SamplingConfig) -> tuple[Rollouts, int]:
    """The answers that are searched for, and how many tokens were sampled for them; on all processes."""
    settings, by = job.recipe.evaluation, job.recipe.evaluation.search
    assert by is not None
    mine = share(job.accelerator, range(len(job.held_out)))
    size = max(1, settings.batch // by.candidates)
    pieces, sampled = list[Rollouts](), 0
    with ticker(job.console, "search", len(mine)) as progress:
        for at in range(0, len(mine), size):
            part = mine[at : at + size]
            found, tokens = search(job, [job.held_out[i] for i in part], part, config, by)
            pieces, sampled = [*pieces, found], sampled + tokens
            if progress:
                progress.step(by=len(part))
    return _together(job, pieces), sum(gather(job.accelerator, sampled))


def _found(scores: Scores, rollouts: Rollouts) -> dict[str, Any]:
    n, hits = int(to_numpy(scores.valid).sum()), int((to_numpy(scores.read(0.0)) > 0.5).sum())
    accuracy = hits / n if n else None
    return {"accuracy": accuracy, "ci95": list(wilson(hits, n)), "mean_length": float(rollouts.lengths().mean())}


def _frontier(
    job: Job, scores: Scores, kl: Float[np.ndarray[Any, Any], "n"], samples: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """See `frontier.economy`; and at the first evaluation, what the later ones are held against."""
    rewards, valid = (to_numpy(x).reshape(-1, samples) for x in (scores.read(0.0), scores.valid))
    first = next((record for record in job.run.evaluations() if "rewards" in record), None)
    start, known = rewards, valid
    if first is not None:
        start = np.array([np.nan if x is None else x for x in first["rewards"]], float).reshape(-1, samples)
        known = ~np.isnan(start)
    result = frontier.economy(rewards, kl.reshape(-1, samples), start, valid, known)
    if first is not None:
        return result, {}
    kept = [float(x) if there else None for x, there in zip(rewards.flat, valid.flat, strict=True)]
    return result, {"rewards": kept, "curve": frontier.curve(rewards, valid)}


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
