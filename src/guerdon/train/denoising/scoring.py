"""From pictures to what credit begins with: their scores, and those of what they might have been."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from guerdon.algebra import Learned
from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.core.spans import Spans
from guerdon.train.denoising.denoiser import Picture
from guerdon.train.denoising.job import DenoisingJob
from guerdon.train.denoising.recipe import reads_potentials
from guerdon.train.denoising.sampling import Batch, Flags, beside, explored
from guerdon.train.distributed import on_main


@dataclass(frozen=True)
class Scored:
    """A batch's scores, of all processes.

    Args:
        scores: of the pictures.
        views: what credit begins with, and does so with each by itself: the scores; or those of all samples on the
            way, as potentials; or the scores at each granularity.
        record: what is to be said of them.
    """

    scores: Scores
    views: list[Scores]
    record: dict[str, Any]


def score(job: DenoisingJob, batch: Batch, context: Context) -> Scored:
    """Score a batch on the main process, and what its credit compares beside it."""
    others = beside(job, batch)

    def judged() -> Scored:
        scores = measured(job, batch.rollouts, batch.sound, context, observed=True)
        record = {"reward": scores.mean(), "parts": {name: part.mean() for name, part in scores.parts.items()}}
        if others is None:
            return Scored(scores, [scores], record)
        each, sound = _beside(batch.rollouts, *others), others[1]
        found = measured(job, each, sound, context, observed=False)
        columns = len(each) // len(scores)
        if reads_potentials(job.method):
            places = np.flatnonzero(to_numpy(explored(batch.chain)))
            return Scored(scores, [_potentials(found, scores, places, len(batch.chain))], record)
        rows = np.arange(len(scores)) * columns
        return Scored(scores, [scores, *(found.select(rows + k) for k in range(columns))], record)

    return on_main(job.accelerator, judged)


def measured(job: DenoisingJob, made: Rollouts, sound: Flags, context: Context, *, observed: bool) -> Scores:
    """Scores of pictures; a sample that is not finite has none."""
    found = job.engine.measure(job.reward.demand(made), made, context)
    here = context.with_(rollouts=made)
    scores = job.reward.combine(found, here)
    if observed:
        job.reward.observe(found, here)
        for leaf in found:
            if isinstance(leaf, Learned):
                leaf.update(made, found[leaf], here)
    if sound.all():
        return scores
    why = dict.fromkeys(np.flatnonzero(~sound).tolist(), "the sample is not finite")
    valid = to_numpy(scores.valid) & sound
    return Scores(
        to_numpy(scores.read(0.0)), mask=to_numpy(scores.mask), valid=valid, reasons={**scores.reasons, **why},
        details=scores.details, parts=scores.parts,
    )  # fmt: skip


def _beside(made: Rollouts, pictures: list[Picture], sound: Flags) -> Rollouts:
    """Several pictures of each row, as rollouts: those of one group and place are compared, where a reward compares."""
    n, columns = len(made), len(sound) // len(made)
    groups = np.repeat(made.groups, columns) * columns + np.tile(np.arange(columns), n)
    return made.select(np.arange(n).repeat(columns)).with_(completions=pictures, groups=groups)


def _potentials(before: Scores, last: Scores, places: np.ndarray[Any, Any], t: int) -> Scores:
    """What the sample before each step, and the last one, are worth: steps of one token behind an empty one.

    Only samples before steps that explore were scored: what is before a step without noise becomes what is behind it.
    """
    n = len(last)
    columns = np.searchsorted(places, np.arange(t))  # the next scored sample; the last one behind all
    values, valid = (
        np.concatenate([to_numpy(x).reshape(n, len(places)), to_numpy(y)[:, None]], 1)[:, [*columns, len(places)]]
        for x, y in ((before.read(0.0), last.read(0.0)), (before.valid, last.valid))
    )
    end = np.tile(np.arange(t + 1), (n, 1))
    spans = Spans(np.maximum(end - 1, 0), end, np.ones_like(end, bool))
    reasons = {row // max(1, len(places)): why for row, why in before.reasons.items()} | dict(last.reasons)
    whole = np.logical_and(valid, valid.all(1, keepdims=True))
    return Scores(values, valid=whole, spans=spans, reasons=reasons)
