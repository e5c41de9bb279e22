"""Rollouts for a training step: sampled by all processes, scored by one, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.algebra import Learned
from guerdon.core.context import Context
from guerdon.core.errors import RecipeError
from guerdon.core.protocols import Leaf
from guerdon.core.rollouts import RESERVED, Rollouts, Tokens
from guerdon.core.scores import Scores
from guerdon.objectives import kl_penalty
from guerdon.train.distributed import gather, on_main, share
from guerdon.train.generation import SamplingConfig, generate, uniforms
from guerdon.train.job import Job
from guerdon.train.policy import borrowed, logprobs
from guerdon.train.scoring import Abstentions, credited, informative
from guerdon.train.tokenizer import decode, encode_prompts, encode_text, pad

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
    external = job.method.sampling.external
    others = [k for k, (row, i) in enumerate(mine) if external and rows[i].get(external) and row % group == group - 1]
    own = np.setdiff1d(np.arange(len(mine)), others).tolist()
    rollouts = sample(
        job, [rows[mine[k][1]] for k in own], [number * n * group + mine[k][0] for k in own],
        [mine[k][1] for k in own], job.recipe.sampling, step=step, stream=TRAINING,
    )  # fmt: skip
    if external and others:
        given = written_by_others(
            job, [rows[mine[k][1]] for k in others], [mine[k][1] for k in others], column=external
        )
        rollouts = Rollouts.concat([rollouts, given], keep_groups=True).select(np.argsort([*own, *others]))
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
    if stream == TRAINING and job.method.sampling.external is not None:
        tokens = replace(tokens, origin=np.zeros(tokens.ids.shape, np.int64))
    if stream == TRAINING:
        tokens = _read(job, tokens, generated.prompt_ids, generated.prompt_mask)
    return _rollouts(rows, groups, generated.texts, generated.finished.cpu().numpy(), tokens)


def written_by_others(job: Job, rows: list[dict[str, Any]], groups: list[int], *, column: str) -> Rollouts:
    """The completions that rows bring with them, as rollouts: their tokens are of another origin than the policy.

    They end with the end-of-sequence token, or at the limit on generated tokens. Their log-probabilities are the
    policy's.

    Raises:
        RecipeError: if one is no text.
    """
    config, end = job.recipe.sampling, job.tokenizer.eos_token_id
    said = []
    for row in rows:
        if not isinstance(row[column], str):
            raise RecipeError(
                f"method.sampling.external: {column!r} holds completions as text, got {row[column]!r:.80}"
            )
        said.append([*encode_text(job.tokenizer, row[column]), end])
    finished = np.array([len(ids) <= config.max_tokens for ids in said], bool)
    said = [ids[: config.max_tokens] for ids in said]
    prompts = encode_prompts(job.tokenizer, [row["prompt"] for row in rows])
    device = job.accelerator.device
    ids, written = (x.to(device) for x in pad(said, job.tokenizer.pad_token_id, side="right"))
    prompt_ids, prompt_mask = (x.to(device) for x in pad(prompts, job.tokenizer.pad_token_id, side="left"))
    logp, entropy = _logprobs(job, prompt_ids, prompt_mask, ids, written)
    texts, offsets = [], np.full((*ids.shape, 2), -1, np.int64)
    for i, (text, places) in enumerate(decode(job.tokenizer, said)):
        texts.append(text)
        offsets[i, : len(places)] = places
    there = written.cpu().numpy()
    tokens = Tokens(
        ids.cpu().numpy(), there, there, logp=logp, entropy=entropy, offsets=offsets, origin=there.astype(np.int64)
    )
    tokens = _read(job, tokens, prompt_ids, prompt_mask)
    return _rollouts(rows, groups, texts, finished, tokens)


def _logprobs(job: Job, *inputs: Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Log-probabilities and entropies under the policy as it stands."""
    training, temperature = job.policy.training, job.recipe.sampling.temperature or 1.0
    job.policy.train(False)
    try:
        with torch.no_grad():
            found = logprobs(job.policy, *inputs, temperature=temperature, micro_batch=job.recipe.batch.micro)
    finally:
        job.policy.train(training)
    logp, entropy = (x.cpu().numpy() for x in found)
    return logp, entropy


def _read(job: Job, tokens: Tokens, prompt_ids: Tensor, prompt_mask: Tensor) -> Tokens:
    """The tokens with what the reference policy and the critic say of them, where there are such."""
    device = job.accelerator.device
    ids, attended = (torch.as_tensor(x, device=device) for x in (tokens.ids, tokens.attended))
    if job.reference is not None:
        with borrowed(job.policy, job.reference):
            tokens = replace(tokens, ref_logp=_logprobs(job, prompt_ids, prompt_mask, ids, attended)[0])
    if job.critic is not None:
        values = job.critic.values(prompt_ids, prompt_mask, ids, attended)
        tokens = replace(tokens, values=values.cpu().numpy())
    return tokens


def _rollouts(
    rows: list[dict[str, Any]],
    groups: list[int],
    texts: list[str],
    finished: np.ndarray[Any, Any],
    tokens: Tokens,
) -> Rollouts:
    prompts = [row["prompt"] for row in rows]
    spoken: list[Any] = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    columns = (
        {name: [row[name] for row in rows] for name in rows[0] if name not in ("prompt", *RESERVED)} if rows else {}
    )
    return Rollouts(prompts, spoken, columns, groups=np.asarray(groups, np.int64), finished=finished, tokens=tokens)
