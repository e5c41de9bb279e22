"""What rollouts of a group begin with, where they go on from one that the policy wrote before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.rewards.probe import Cut, cuts
from guerdon.train.language.generation import generate, uniforms
from guerdon.train.language.job import Job
from guerdon.train.language.tokenizer import encode_text
from guerdon.train.prompts import Row

STREAM = 3  # of randomness, beside training, evaluation and probes


def beginnings(job: Job, rows: Sequence[Row], numbers: Sequence[int], *, step: int) -> list[list[int]]:
    """For each prompt, the tokens of a rollout of the policy up to the end of one of its steps, drawn by chance.

    Every step but the last can be the end, and so can the begin, with equal chance; save those that would leave no
    room for the text that stops and a token. A cut within a token is before it.

    Args:
        job: whose method says where steps end.
        rows: the prompts.
        numbers: of the prompts in their step, which key the randomness.
        step: of training.
    """
    begin, limit = job.method.sampling.begin, job.recipe.sampling.max_tokens
    assert begin is not None
    chance = uniforms(numbers, limit + 1, seed=job.recipe.seed, step=step, stream=STREAM)
    prompts = [row["prompt"] for row in rows]
    written = generate(job.policy, job.tokenizer, prompts, uniforms=chance, config=job.recipe.sampling)
    room = limit - len(stopping(job)) - 1
    found = []
    for i, (text, ids) in enumerate(zip(written.texts, written.ids.tolist(), strict=True)):
        ends = cuts(text, Cut.of(begin.cut), written.offsets[i])[:-1]
        counts = [0, *(_before(end, written.offsets[i]) for end in ends)]
        counts = [count for count in counts if count <= room]
        found.append(ids[: counts[int(chance[i, -1] * len(counts))]])
    return found


def stopping(job: Job) -> list[int]:
    """The tokens that end the reasoning of the rollouts that do not go on; none, where all do."""
    begin = job.method.sampling.begin
    return encode_text(job.tokenizer, begin.stop) if begin is not None and begin.stops else []


def _before(end: int, offsets: np.ndarray[Any, Any]) -> int:
    """How many tokens are whole before a character."""
    beyond = np.flatnonzero(offsets[:, 1] > end)
    return int(beyond[0]) if len(beyond) else int((offsets[:, 0] >= 0).sum())
