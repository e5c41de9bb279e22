"""Rollouts for a training step: sampled by all processes, scored by one, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from guerdon.algebra import Learned
from guerdon.core.context import Context
from guerdon.core.protocols import Leaf
from guerdon.core.rollouts import RESERVED, Rollouts
from guerdon.core.scores import Scores
from guerdon.objectives import kl_penalty
from guerdon.train.distributed import gather, on_main, share
from guerdon.train.generation import SamplingConfig, generate, uniforms
from guerdon.train.job import Job
from guerdon.train.policy import borrowed, logprobs
from guerdon.train.scoring import Abstentions, credited, informative

TRAINING, EVALUATION = 0, 1  # streams of randomness


def collect(job: Job, step: int, context: Context) -> tuple[Rollouts, Scores, dict[str, Any], Abstentions]:
    """The scored rollouts a step learns from, and what is to be said of all that were sampled for it.

    With dynamic sampling, groups without signal (or those that its filter leaves out) are replaced by others, for at
    most `sampling.rounds` rounds; what is then still missing is made up of them.
    """
    wanted, sampling = job.recipe.batch.prompts, job.method.sampling
    rounds: list[tuple[Rollouts, Mapping[Leaf, Scores]]] = []
    sampled: list[tuple[Rollouts, Scores]] = []
    useful: list[np.ndarray[Any, Any]] = []
    kept: list[np.ndarray[Any, Any]] = []
    for number in range(sampling.rounds if sampling.dynamic else 1):
        rollouts = _round(job, step, number)

        def score(rollouts: Rollouts = rollouts) -> tuple[Scores, Any]:
            measured = job.engine.measure(job.reward.demand(rollouts), rollouts, context)
            rounds.append((rollouts, measured))
            here = context.with_(rollouts=rollouts)
            scores = job.reward.combine(measured, here)
            return scores, job.filter.rows(scores, here) if job.filter else None

        scores, chosen = on_main(job.accelerator, score)
        sampled.append((rollouts, scores))
        useful.append(informative(rollouts, credited(job.method, rollouts, scores)))
        kept.append(useful[-1] if chosen is None else chosen)
        if sum(int(k.sum()) for k in kept) >= wanted * sampling.group:
            break
    everything = Rollouts.concat([r for r, _ in sampled]), Scores.concat([s for _, s in sampled])
    abstentions = job.abstentions.plus(everything[1])
    abstentions.check(job.recipe.max_abstain)
    record = on_main(job.accelerator, lambda: _observe(job, rounds, everything[1], context))
    record |= _described(*everything, np.concatenate(useful))
    if not sampling.dynamic:
        return *everything, record, abstentions
    first = np.concatenate(kept)
    if job.filter:
        record |= {"kept": float(first.mean())}
    order = np.concatenate([np.flatnonzero(first), np.flatnonzero(~first)])[: wanted * sampling.group]
    return everything[0].select(order), everything[1].select(order), record | {"rounds": len(sampled)}, abstentions


def _observe(
    job: Job, rounds: list[tuple[Rollouts, Mapping[Leaf, Scores]]], scores: Scores, context: Context
) -> dict[str, Any]:
    """Let the reward's shapers and the filter see the step's scores, and learned leaves learn from them, once.

    Returns what the learned leaves report, and the accuracy where it was measured.
    """
    rollouts = Rollouts.concat([r for r, _ in rounds])
    measured = {leaf: Scores.concat([m[leaf] for _, m in rounds]) for leaf in rounds[0][1]}
    context = context.with_(rollouts=rollouts)
    job.reward.observe(measured, context)
    if job.filter:
        job.filter.observe(scores, context)
    record: dict[str, Any] = {}
    for leaf in measured:
        if isinstance(leaf, Learned):
            reported = leaf.update(rollouts, measured[leaf], context)
            record |= {f"{leaf.name}/{name}": float(value) for name, value in reported.items()}
    if not set(job.accuracy.leaves()) <= set(measured):
        return record
    right = job.accuracy.combine(measured, context)
    count = int(right.valid.sum())
    return record | {"accuracy": float((right.read(0.0) > 0.5).sum()) / count if count else None}


def _described(rollouts: Rollouts, scores: Scores, signal: np.ndarray[Any, Any]) -> dict[str, Any]:
    tokens = rollouts.tokens
    assert tokens is not None
    written = torch.as_tensor(tokens.written)
    per_token = {"entropy": torch.as_tensor(tokens.entropy)}
    if tokens.ref_logp is not None:
        logp, ref_logp = (torch.as_tensor(x).double() for x in (tokens.logp, tokens.ref_logp))
        per_token["kl"] = kl_penalty(logp, ref_logp, mask=written)
    return {
        "reward": scores.mean(),
        "parts": {name: part.mean() for name, part in scores.parts.items()},
        "length": float(rollouts.lengths().mean()),
        **{name: float(values[written].mean()) for name, values in per_token.items()},
        "no_signal": float(1.0 - signal.mean()),
        "abstained": len(scores.abstained_rows) / len(scores),
        "reasons": scores.tally(),
    }


def _round(job: Job, step: int, number: int) -> Rollouts:
    """A round of rollouts, of all processes, in one order; on every process."""
    n, group = job.recipe.batch.prompts, job.method.sampling.group
    rows = job.prompts.draw(step - 1, n, stream=number + 1 if number else TRAINING)
    mine = [(i * group + j, i) for i in share(job.accelerator, range(n)) for j in range(group)]
    rollouts = sample(
        job, [rows[i] for _, i in mine], [number * n * group + row for row, _ in mine], [i for _, i in mine],
        job.recipe.sampling, step=step, stream=TRAINING,
    )  # fmt: skip
    return Rollouts.concat(gather(job.accelerator, rollouts), keep_groups=True)


def sample(
    job: Job,
    rows: list[dict[str, Any]],
    numbers: list[int],
    groups: list[int],
    config: SamplingConfig,
    *,
    step: int,
    stream: int,
) -> Rollouts:
    """This process's completions of some rows, whose randomness is that of their global numbers."""
    prompts = [row["prompt"] for row in rows]
    noise = uniforms(numbers, config.max_tokens, seed=job.recipe.seed, step=step, stream=stream)
    generated = generate(job.policy, job.tokenizer, prompts, uniforms=noise, config=config)
    tokens = generated.tokens()
    if job.reference is not None and stream == TRAINING:
        with torch.no_grad(), borrowed(job.policy, job.reference):
            ref_logp, _ = logprobs(
                job.policy, generated.prompt_ids, generated.prompt_mask, generated.ids, generated.written,
                temperature=config.temperature or 1.0, micro_batch=job.recipe.batch.micro,
            )  # fmt: skip
        tokens = replace(tokens, ref_logp=ref_logp.cpu().numpy())
    spoken: list[Any] = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for prompt, text in zip(prompts, generated.texts, strict=True)
    ]
    columns = (
        {name: [row[name] for row in rows] for name in rows[0] if name not in ("prompt", *RESERVED)} if rows else {}
    )
    return Rollouts(
        prompts, spoken, columns, groups=np.asarray(groups), finished=generated.finished.cpu().numpy(), tokens=tokens
    )
