"""Rollouts of a round: written by the policy on all processes, or by others, and read by whom the method reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.core.context import Context
from guerdon.core.rollouts import RESERVED, Rollouts, Tokens
from guerdon.train.crediting import STOPPED
from guerdon.train.distributed import gather, share
from guerdon.train.language.beginnings import Going, beginnings, last_steps, stopping
from guerdon.train.language.generation import SamplingConfig, generate, spoken, uniforms
from guerdon.train.language.guidance import GUIDED, with_guidance
from guerdon.train.language.job import DEPTH, STEP, Job
from guerdon.train.language.losses import teaches_critic
from guerdon.train.language.policy import borrowed, logprobs
from guerdon.train.language.tokenizer import Prompt, decode, encode_prompts, encode_text, pad
from guerdon.train.prompts import Row, completions

TRAINING, EVALUATION = 0, 1  # streams of randomness


def write(job: Job, step: int, n: int, drawn: int, context: Context) -> Rollouts:
    """A round of rollouts of `n` prompts, after as many as were drawn, of all processes, in one order; on all."""
    sampling, group = job.method.sampling, job.method.sampling.group
    rows = job.prompts.following(n, context)
    mine = share(job.accelerator, range(n))
    begun: dict[int, list[int]] = {}
    if sampling.begin is not None:
        before = (step - 1) * job.recipe.batch.prompts + drawn
        asked = [i for i in mine if sampling.begin.asks(before + i)]
        found = beginnings(job, [rows[i] for i in asked], [drawn + i for i in asked], step=step)
        begun = dict(zip(asked, found, strict=True))
    own, others, said = list[int](), list[int](), list[str]()
    told: dict[int, Prompt] = {}
    for i in mine:
        texts = _external(job, rows[i], [job.recipe.seed, step, drawn + i])
        first = (i + 1) * group - len(texts)
        own += range(i * group, first)
        told |= _told(job, rows[i], range(i * group, first))
        others += range(first, (i + 1) * group)
        said += texts
    parts = []
    if own:
        going = group if sampling.begin is None else group - sampling.begin.stops
        stops = [k // group in begun and k % group >= going for k in own]
        stop = stopping(job)
        written = sample(
            job, [rows[k // group] for k in own], [drawn * group + k for k in own], [k // group for k in own],
            job.recipe.sampling, step=step, stream=TRAINING,
            begun=[begun.get(k // group, []) + stop * stopped for k, stopped in zip(own, stops, strict=True)],
            told={place: told[k] for place, k in enumerate(own) if k in told},
        )  # fmt: skip
        parts.append(written.with_(columns={**written.columns, STOPPED: stops}) if sampling.begin else written)
    if others:
        parts.append(written_by_others(job, [rows[k // group] for k in others], [k // group for k in others], said))
    local = Rollouts.concat(parts, keep_groups=True).select(np.argsort([*own, *others])) if parts else None
    if local is not None and sampling.guided is not None:
        local = local.with_(columns={**local.columns, GUIDED: [k in told for k in sorted([*own, *others])]})
    return _of_all(job, local)


def write_candidates(job: Job, step: int, going: list[Going], drawn: int, depth: int) -> Rollouts:
    """Candidates for the next step of prompts, after as many as were drawn, of all processes, in one order; on all."""
    steps, group = job.method.sampling.steps, job.method.sampling.group
    assert steps is not None
    own = [k for i in share(job.accelerator, range(len(going))) for k in range(i * group, (i + 1) * group)]
    local = None
    if own:
        written = sample(
            job, [going[k // group].row for k in own], [drawn * group + k for k in own], [k // group for k in own],
            job.recipe.sampling, step=step, stream=TRAINING, begun=[going[k // group].taken for k in own],
            pause=steps.end if depth + 1 < steps.most else (),
        )  # fmt: skip
        said = {STEP: last_steps(written), DEPTH: [depth] * len(own)}
        local = written.with_(columns={**written.columns, **said})
    return _of_all(job, local)


def _of_all(job: Job, local: Rollouts | None) -> Rollouts:
    return Rollouts.concat([part for part in gather(job.accelerator, local) if part is not None], keep_groups=True)


def _told(job: Job, row: Row, places: range) -> dict[int, Prompt]:
    """The prompts of a group's rollouts that are written with guidance, by their places: the last of them."""
    guided = job.method.sampling.guided
    prompt = None if guided is None else with_guidance(row, guided)
    return {} if guided is None or prompt is None else dict.fromkeys(places[-guided.rollouts :], prompt)


def _external(job: Job, row: Row, key: list[int]) -> list[str]:
    """The completions in a group that another has written: of more than it has rollouts, as many, by the key."""
    sampling = job.method.sampling
    texts = [] if sampling.external is None else completions(row, sampling.external)
    if len(texts) <= sampling.group:
        return texts
    return [texts[k] for k in np.random.default_rng(key).permutation(len(texts))[: sampling.group]]


def sample(
    job: Job,
    rows: list[Row],
    numbers: list[int],
    groups: list[int],
    config: SamplingConfig,
    *,
    step: int,
    stream: int,
    begun: list[list[int]] | None = None,
    pause: tuple[str, ...] = (),
    told: Mapping[int, Prompt] | None = None,
) -> Rollouts:
    """This process's completions of some rows, whose randomness is that of their global numbers.

    Args:
        told: other prompts than the rows', which some completions are written with; see `Guided`.
    """
    told, guided = told or {}, job.method.sampling.guided
    prompts: list[Prompt] = [told.get(i, row["prompt"]) for i, row in enumerate(rows)]
    noise = uniforms(numbers, config.max_tokens, seed=job.recipe.seed, step=step, stream=stream)
    generated = generate(job.policy, job.tokenizer, prompts, uniforms=noise, config=config, begun=begun, pause=pause)
    tokens, prompt_ids, prompt_mask = generated.tokens(), generated.prompt_ids, generated.prompt_mask
    if stream == TRAINING and job.method.sampling.mixed:
        tokens = replace(tokens, origin=np.zeros(tokens.ids.shape, np.int64))
    if told and guided is not None and guided.keep:
        rows = [{**row, "prompt": prompt} for row, prompt in zip(rows, prompts, strict=True)]
    elif told:
        tokens, prompt_ids, prompt_mask = _without(job, tokens, [row["prompt"] for row in rows], list(told))
    if stream == TRAINING:
        tokens = _read(job, tokens, prompt_ids, prompt_mask)
    return _rollouts(rows, groups, generated.texts, generated.finished.cpu().numpy(), tokens)


def _without(job: Job, tokens: Tokens, prompts: list[Prompt], guided: list[int]) -> tuple[Tokens, Tensor, Tensor]:
    """Tokens as they are learned from, with the prompts they are learned behind, encoded.

    What some rows wrote under guidance is of another origin than the policy, and its log-probabilities and entropies
    are the policy's behind the plain prompt.
    """
    device, pad_id = job.accelerator.device, job.tokenizer.pad_token_id
    prompt_ids, prompt_mask = (x.to(device) for x in pad(encode_prompts(job.tokenizer, prompts), pad_id, side="left"))
    ids, attended = (torch.as_tensor(x[guided], device=device) for x in (tokens.ids, tokens.attended))
    logp, entropy, origin = (np.array(x) for x in (tokens.logp, tokens.entropy, tokens.origin))
    logp[guided], entropy[guided] = _logprobs(job, prompt_ids[guided], prompt_mask[guided], ids, attended)
    origin[guided] = tokens.written[guided]
    return replace(tokens, logp=logp, entropy=entropy, origin=origin), prompt_ids, prompt_mask


def written_by_others(job: Job, rows: list[Row], groups: list[int], said: list[str]) -> Rollouts:
    """Completions of rows as rollouts: their tokens are of another origin than the policy.

    They end with the end-of-sequence token, or at the limit on generated tokens. Their log-probabilities are the
    policy's.
    """
    config, end = job.recipe.sampling, job.tokenizer.eos_token_id
    encoded = [[*encode_text(job.tokenizer, text), end] for text in said]
    finished = np.array([len(ids) <= config.max_tokens for ids in encoded], bool)
    encoded = [ids[: config.max_tokens] for ids in encoded]
    prompts = encode_prompts(job.tokenizer, [row["prompt"] for row in rows])
    device = job.accelerator.device
    ids, written = (x.to(device) for x in pad(encoded, job.tokenizer.pad_token_id, side="right"))
    prompt_ids, prompt_mask = (x.to(device) for x in pad(prompts, job.tokenizer.pad_token_id, side="left"))
    logp, entropy = _logprobs(job, prompt_ids, prompt_mask, ids, written)
    texts, offsets = [], np.full((*ids.shape, 2), -1, np.int64)
    for i, (text, places) in enumerate(decode(job.tokenizer, encoded)):
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
    """The tokens with what the reference policy says of them, and the critic to the credit, where there are such."""
    device = job.accelerator.device
    ids, attended = (torch.as_tensor(x, device=device) for x in (tokens.ids, tokens.attended))
    if job.reference is not None:
        with borrowed(job.policy, job.reference):
            tokens = replace(tokens, ref_logp=_logprobs(job, prompt_ids, prompt_mask, ids, attended)[0])
    if job.critic is not None and not teaches_critic(job.method):
        values = job.critic.values(prompt_ids, prompt_mask, ids, attended)
        tokens = replace(tokens, values=values.cpu().numpy())
    return tokens


def _rollouts(
    rows: list[Row],
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


def of_tokens(
    job: Job,
    rows: Sequence[Row],
    groups: Sequence[int],
    ids: Sequence[list[int]],
    finished: Sequence[bool],
    config: SamplingConfig,
) -> Rollouts:
    """Completions of rows, as tokens that the policy chose, as rollouts; nothing is known of their probabilities."""
    padded, written = (x.numpy() for x in pad(ids, job.tokenizer.pad_token_id, side="right"))
    texts, offsets = spoken(job.tokenizer, list(ids), padded.shape[1], config)
    tokens = Tokens(padded, written, written, offsets=offsets)
    return _rollouts(list(rows), list(groups), texts, np.asarray(finished, bool), tokens)
