"""Rollouts for a training step: sampled by all processes, scored by one, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from guerdon.algebra import Learned
from guerdon.core.context import Context
from guerdon.core.protocols import Leaf
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.objectives import kl_penalty
from guerdon.train.distributed import on_main
from guerdon.train.language.beginnings import Going, steps_taken
from guerdon.train.language.guidance import GUIDED
from guerdon.train.language.job import Job
from guerdon.train.language.writing import write, write_candidates
from guerdon.train.scoring import Abstentions, credited, informative


def collect(job: Job, step: int, context: Context) -> tuple[Rollouts, Scores, Scores, dict[str, Any], Abstentions]:
    """The rollouts of a step, their scores, those that are learned from, and what is to be said of all it sampled.

    What a filter leaves out has a score, and none to learn from. With dynamic sampling, groups without signal (or those
    that its filter leaves out) are replaced by others, for at most `sampling.rounds` rounds; what is then still missing
    is made up of them. Step by step, a round is of one step of all prompts that still go on, and all rounds are the
    batch.
    """
    wanted, sampling = job.recipe.batch.prompts, job.method.sampling
    rounds: list[tuple[Rollouts, Mapping[Leaf, Scores]]] = []
    sampled: list[tuple[Rollouts, Scores, Scores]] = []
    useful: list[np.ndarray[Any, Any]] = []
    kept: list[np.ndarray[Any, Any]] = []
    full = drawn = 0
    going: list[Going] = []
    for depth in range(sampling.steps.most if sampling.steps else sampling.rounds if sampling.dynamic else 1):
        if sampling.steps is None:
            n = wanted if job.pace is None else job.pace.ask(wanted - full)
            rollouts = write(job, step, n, drawn, context)
        else:
            going = going or [Going(row, []) for row in job.prompts.following(wanted, context)]
            n, rollouts = len(going), write_candidates(job, step, going, drawn, depth)

        def score(rollouts: Rollouts = rollouts) -> tuple[Scores, Any]:
            measured = job.engine.measure(job.reward.demand(rollouts), rollouts, context)
            rounds.append((rollouts, measured))
            here = context.with_(rollouts=rollouts)
            scores = job.reward.combine(measured, here)
            return scores, job.filter.rows(scores, here) if job.filter else None

        scores, rows = on_main(job.accelerator, score)
        taught, groups = scores, None
        if rows is not None:
            groups = informative(rollouts, rows)  # of those that only fill the batch, all rollouts are learned from
            taught = scores.restrict(rows | ~groups if sampling.dynamic else rows)
        sampled.append((rollouts, scores, taught))
        useful.append(informative(rollouts, credited(job.method, rollouts, taught)))
        kept.append(useful[-1] if groups is None else groups)
        count = int(kept[-1].sum()) // sampling.group
        drawn, full = drawn + n, full + count
        if job.pace is not None:
            job.pace.saw(kept=count, sampled=n)
        if sampling.steps is not None:
            going = steps_taken(job, going, rollouts, scores, range(drawn - n, drawn), step=step)
            if not going:
                break
        elif full >= wanted:
            if job.pace is not None:
                job.pace.filled(kept=full, sampled=drawn)
            break
    everything = Rollouts.concat([r for r, _, _ in sampled]), Scores.concat([s for _, s, _ in sampled])
    learned = Scores.concat([t for _, _, t in sampled])
    abstentions = job.abstentions.plus(everything[1])
    abstentions.check(job.recipe.max_abstain)
    record = on_main(job.accelerator, lambda: _observe(job, rounds, everything[1], context))
    record |= job.prompts.observe(everything[1], context.with_(rollouts=everything[0]))
    record |= _described(*everything, np.concatenate(useful))
    first = np.concatenate(kept)
    if job.filter:
        record |= {"kept": float(first.mean())}
    if not sampling.dynamic:
        return *everything, learned, record, abstentions
    order = np.concatenate([np.flatnonzero(first), np.flatnonzero(~first)])[: wanted * sampling.group]
    rollouts, scores = everything[0].select(order), everything[1].select(order)
    return rollouts, scores, learned.select(order), record | {"rounds": len(sampled)}, abstentions


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
    helped = {"reward_guided": True, "reward_unguided": False} if GUIDED in rollouts.columns else {}
    return {
        "reward": scores.mean(),
        **{name: scores.select(np.equal(rollouts.column(GUIDED), how)).mean() for name, how in helped.items()},
        "parts": {name: part.mean() for name, part in scores.parts.items()},
        "length": float(rollouts.lengths().mean()),
        **{name: float(values[written].mean()) for name, values in per_token.items()},
        "no_signal": float(1.0 - signal.mean()),
        "abstained": len(scores.abstained_rows) / len(scores),
        "reasons": scores.tally(),
    }
