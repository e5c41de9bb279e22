"""What rollouts of a group begin with, where they go on from what the policy wrote before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from guerdon.core.arrays import to_numpy
from guerdon.core.parsing import text_of
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.credit import choose_fork
from guerdon.rewards.probe import Cut, cuts
from guerdon.train.language.generation import generate, uniforms
from guerdon.train.language.job import Job
from guerdon.train.language.tokenizer import encode_text
from guerdon.train.prompts import Row
from guerdon.train.scoring import credited

STREAM, DRAWS = 3, 4  # of randomness, beside training, evaluation and probes


def beginnings(job: Job, rows: Sequence[Row], numbers: Sequence[int], *, step: int) -> list[list[int]]:
    """For each prompt, the tokens of a rollout of the policy up to the end of one of its steps, drawn by chance.

    Every step but the last can be the end, and so can the begin, with equal chance; save those that would leave no
    room for the text that stops and a token. With a prior, the end is at one of the budgets, the last among them. A cut
    within a token is before it.

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
        ends = cuts(text, Cut.of(begin.cut), written.offsets[i])
        counts = [_before(end, written.offsets[i]) for end in ends]
        if begin.prior is None:
            counts = [count for count in (0, *counts[:-1]) if count <= room]
            found.append(ids[: counts[int(chance[i, -1] * len(counts))]])
        else:
            edges = np.cumsum(begin.prior)
            drawn = int(np.searchsorted(edges, chance[i, -1] * edges[-1], side="right"))
            found.append(ids[: min(counts[drawn], room)] if counts else [])
    return found


def stopping(job: Job) -> list[int]:
    """The tokens that end the reasoning of the rollouts that do not go on; none, where all do."""
    begin = job.method.sampling.begin
    return encode_text(job.tokenizer, begin.stop) if begin is not None and begin.stops else []


class Going(NamedTuple):
    """A prompt that is answered step by step: its row, and the tokens of the steps that were taken."""

    row: Row
    taken: list[int]


def steps_taken(
    job: Job, going: Sequence[Going], rollouts: Rollouts, scores: Scores, numbers: Sequence[int], *, step: int
) -> list[Going]:
    """The prompts that go on, each with the candidate for its next step that is taken.

    Drawn from softmax(A / η) over the candidates that have a score; A is the advantage that the method gives the
    candidate, the mean over its tokens where each has one. A prompt does not go on if no candidate has a score, or the
    one that is taken ends the completion, by itself or at its limit.

    Args:
        job: whose method says how.
        going: the prompts.
        rollouts, scores: their candidates, group by group.
        numbers: of the prompts in their step, which key the randomness.
        step: of training.

    Source: SLATE (arXiv 2602.23440; algoprog/SLATE).
    """
    steps, tokens, shape = job.method.sampling.steps, rollouts.tokens, (len(going), -1)
    assert steps is not None
    assert tokens is not None
    advantages = credited(job.method, rollouts, scores)
    if advantages.ndim == 2:
        advantages = advantages.sum(1) / np.maximum(rollouts.lengths(), 1)
    chance = uniforms(numbers, 1, seed=job.recipe.seed, step=step, stream=DRAWS)[:, 0]
    table, known = (torch.as_tensor(x).view(shape) for x in (advantages, to_numpy(scores.usable)))
    picked = choose_fork(table, torch.as_tensor(chance), temperature=steps.temperature, mask=known)
    attended = np.asarray(tokens.attended)
    over = rollouts.finished | (attended.sum(1) >= job.recipe.sampling.max_tokens)
    rows = [(i, i * table.shape[1] + k) for i, k in enumerate(picked.tolist()) if k >= 0]
    return [Going(going[i].row, tokens.ids[row][attended[row]].tolist()) for i, row in rows if not over[row]]


def last_steps(rollouts: Rollouts) -> list[str]:
    """The text of each completion behind what it began with."""
    tokens = rollouts.tokens
    assert tokens is not None
    assert tokens.offsets is not None
    begun = np.where(tokens.attended & ~tokens.written, tokens.offsets[:, :, 1], 0).max(1, initial=0)
    said: list[Any] = [rollouts.completions[i] for i in range(len(rollouts))]
    return [text_of(text)[max(at, 0) :] for text, at in zip(said, begun.tolist(), strict=True)]


def _before(end: int, offsets: np.ndarray[Any, Any]) -> int:
    """How many tokens are whole before a character."""
    beyond = np.flatnonzero(offsets[:, 1] > end)
    return int(beyond[0]) if len(beyond) else int((offsets[:, 0] >= 0).sum())
