"""Answers that are searched for, step by step, by what the critic expects of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from guerdon.core.rollouts import Rollouts
from guerdon.models import beam_searches
from guerdon.train.language.generation import SamplingConfig, end_tokens, generate, spoken, uniforms
from guerdon.train.language.job import Job
from guerdon.train.language.tokenizer import encode_prompts, pad
from guerdon.train.language.writing import of_tokens
from guerdon.train.prompts import Row
from guerdon.train.recipe import Search

STREAM = 5  # of randomness, beside training, evaluation, probes, beginnings and draws of steps


@dataclass(frozen=True)
class Answer:
    """An answer as far as it has been written.

    Args:
        row: which of the prompts it is to.
        ids: its tokens.
        finished: whether it has ended by itself.
        full: whether it is at the limit.
    """

    row: int
    ids: tuple[int, ...] = ()
    finished: bool = False
    full: bool = False

    @property
    def ended(self) -> bool:
        """Whether it does not go on."""
        return self.finished or self.full


def search(
    job: Job, rows: Sequence[Row], numbers: Sequence[int], config: SamplingConfig, by: Search
) -> tuple[Rollouts, int]:
    """The answer to each prompt that a beam search by the critic's values ends with.

    Of all continuations by a step, those of the highest value go on. The value of an answer that goes on is what the
    critic expects behind its last token; that of one that has ended, what it expected before the token that ended it:
    behind that it has never learned anything.

    Args:
        job: its policy writes, its critic ranks.
        rows: the prompts.
        numbers: of the prompts in the evaluation, which with the depth key the randomness.
        config: how continuations are sampled.
        by: where steps end, and how many are looked at and kept.

    Returns:
        The answers, each in the group of its prompt's number, and how many tokens were sampled for all of them.

    Source: TVM (arXiv 2407.12863), step-by-step beam search.
    """
    assert job.critic is not None
    prompts = [row["prompt"] for row in rows]
    encoded = encode_prompts(job.tokenizer, prompts)
    ends, limit = set(end_tokens(job.policy, job.tokenizer)), config.max_tokens
    separators = (by.step,) if isinstance(by.step, str) else ()
    step = replace(config, stop=(*config.stop, *separators))
    depth = sampled = 0

    def expand(answers: Sequence[Answer], counts: Sequence[int]) -> list[list[Answer]]:
        nonlocal depth, sampled
        depth += 1
        grown = [answer for answer, count in zip(answers, counts, strict=True) for _ in range(count)]
        slots, used = list[int](), dict[int, int]()
        for answer in grown:
            slots.append(numbers[answer.row] * by.candidates + used.get(answer.row, 0))
            used[answer.row] = used.get(answer.row, 0) + 1
        most = min(limit, max((len(a.ids) for a in grown), default=0) + by.step) if isinstance(by.step, int) else limit
        made = generate(
            job.policy, job.tokenizer, [prompts[answer.row] for answer in grown],
            uniforms=uniforms(slots, most, seed=job.recipe.seed, step=depth, stream=STREAM),
            config=replace(step, max_tokens=most), begun=[answer.ids for answer in grown],
        )  # fmt: skip
        sampled += int(made.written.sum())
        ids = [tuple(row[: int(there.sum())].tolist()) for row, there in zip(made.ids, made.attended, strict=True)]
        texts, _ = spoken(job.tokenizer, list(map(list, ids)), limit, replace(config, stop=()))
        stopped = [any(stop in text for stop in config.stop) for text in texts]
        new = iter(
            Answer(answer.row, tokens, tokens[-1] in ends or stops, len(tokens) >= limit)
            for answer, tokens, stops in zip(grown, ids, stopped, strict=True)
        )
        return [[next(new) for _ in range(count)] for count in counts]

    def value(answers: Sequence[Answer]) -> list[float]:
        # The critic is asked before the last of these tokens; what the token is it does not see.
        asked = [answer.ids if answer.ended else (*answer.ids, job.tokenizer.eos_token_id) for answer in answers]
        return _values(job, [encoded[answer.row] for answer in answers], asked)

    found = beam_searches(
        [Answer(i) for i in range(len(rows))], expand, value, lambda answer: answer.ended,
        candidates=by.candidates, keep=by.keep, steps=limit, temperature=by.allot,
    )  # fmt: skip
    best = [beam[0][0] for beam in found]
    ids, finished = [list(answer.ids) for answer in best], [answer.finished for answer in best]
    return of_tokens(job, rows, numbers, ids, finished, config), sampled


def _values(job: Job, prompts: list[list[int]], asked: Sequence[Sequence[int]]) -> list[float]:
    """What the critic expects before the last token of each."""
    assert job.critic is not None
    device, fill = job.accelerator.device, job.tokenizer.pad_token_id
    ids, attended = pad(asked, fill, side="right")
    inputs = [x.to(device) for x in (*pad(prompts, fill, side="left"), ids, attended)]
    last = attended.sum(1, keepdim=True) - 1
    found: list[float] = job.critic.values(*inputs).cpu().gather(1, last)[:, 0].tolist()
    return found
