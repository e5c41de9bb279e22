"""Which of the candidates for a next step are taken: one by chance, as many as there are places, or the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from guerdon.core.arrays import to_numpy
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.credit.forks import choose_fork, keep_forks
from guerdon.credit.group import group_relative
from guerdon.data.selection import places

Judge = Callable[[Rollouts], Scores]  # a reward's `score`, of completions whose last step is the column 'step'


@dataclass(frozen=True, eq=False)
class Candidates:
    """What all paths propose as their next step.

    Args:
        rollouts: a row for each: all so far and the step as its completion, the step alone as column 'step';
            candidates of one path stand together and are a group.
        roots: Int["m"], from which start each comes.
        scores: Float["m"], the judge's; 0 where it abstained, or there is none.
        valid: Bool["m"], where it did not.
        paths: Int["r"], how many paths of each start have ended before.
    """

    rollouts: Rollouts
    roots: Int[np.ndarray[Any, Any], "m"]
    scores: Float[np.ndarray[Any, Any], "m"]
    valid: Bool[np.ndarray[Any, Any], "m"]
    paths: Int[np.ndarray[Any, Any], "r"]


Choose = Callable[[Candidates], Bool[np.ndarray[Any, Any], "m"]]


def drawn(
    candidates: Candidates, *, rng: np.random.Generator, temperature: float = 0.7, eps: float = 1e-6
) -> Bool[np.ndarray[Any, Any], "m"]:
    """One candidate of each path, drawn by its advantage among its siblings: softmax(A / η).

    Args:
        candidates: judged; one without a score is not drawn, and a path without any is given up.
        rng: of the draw.
        temperature: η; 0 takes the best.
        eps: of the advantage; see `credit.group_relative`.

    Raises:
        ValueError: if some paths have more candidates than others.

    Source: SLATE (arXiv 2602.23440; algoprog/SLATE), η = 0.7.
    """
    groups = candidates.rollouts.groups
    sizes = np.unique(groups, return_counts=True)[1]
    if len(set(sizes.tolist())) > 1:
        raise ValueError(f"one is drawn of equally many candidates of each path, got {sizes}")
    shape = len(sizes), -1
    valid = torch.as_tensor(candidates.valid)
    advantages = group_relative(torch.as_tensor(candidates.scores), torch.as_tensor(groups), mask=valid, eps=eps)
    uniform = torch.as_tensor(rng.random(shape[0]))
    table = advantages.view(shape)
    picked = choose_fork(table, uniform, temperature=temperature, mask=valid.view(shape))
    return np.asarray(torch.arange(table.shape[1]) == picked[:, None], bool).reshape(-1)


def forked(
    candidates: Candidates, *, paths: int, rng: np.random.Generator | None = None
) -> Bool[np.ndarray[Any, Any], "m"]:
    """As many as there are places left: `paths` for each start, less those that have ended.

    Args:
        candidates: judged or not.
        paths: the number of paths each start ends with.
        rng: which forks of a path are kept is then random, and else those that come first.

    Source: PORTool (arXiv 2510.26020); see `credit.keep_forks`.
    """
    kept = np.zeros(len(candidates.roots), bool)
    for root in np.unique(candidates.roots):
        rows = np.flatnonzero(candidates.roots == root)
        rows = rows if rng is None else rng.permutation(rows)
        room = max(0, paths - int(candidates.paths[root]))
        kept[rows] = to_numpy(keep_forks(torch.as_tensor(candidates.rollouts.groups[rows]), keep=room))
    return kept


def highest(candidates: Candidates, *, paths: int) -> Bool[np.ndarray[Any, Any], "m"]:
    """The candidates with the highest scores, for the places left: `paths` for each start, less those that have ended.

    Args:
        candidates: judged; one without a score is not taken. Of equal ones the earlier.
        paths: beams per start.

    Source: the beam search of PAV (arXiv 2410.08146).
    """
    place, _ = places(candidates.scores, candidates.roots, candidates.valid)
    return np.asarray(candidates.valid & (place < (paths - candidates.paths)[candidates.roots]), bool)


def effective_value(value: Judge, prover: Judge, *, alpha: float = 1.0) -> Judge:
    """A judge of steps by what they are worth and by the progress a prover makes with them.

        Q^π(s, a) + α A^μ        A^μ = Q^μ(s, a) − Q^μ(s)

    Args:
        value: Q^π of the completions, whose last step is the column 'step'.
        prover: Q^μ of the same, and of what was there before the step.
        alpha: the source tunes it, from 0.2 to 5.

    Source: PAV (arXiv 2410.08146), the effective reward of its beam search.
    """

    def judge(rollouts: Rollouts) -> Scores:
        steps, texts = rollouts.column("step"), rollouts.column("completion")
        before = [text[: len(text) - len(step)] for text, step in zip(texts, steps, strict=True)]
        found = [value(rollouts), prover(rollouts), prover(rollouts.with_(completions=before, tokens=None))]
        own, after, ahead = (to_numpy(scores.read(0.0)) for scores in found)
        reasons = {row: reason for scores in reversed(found) for row, reason in scores.reasons.items()}
        valid = np.logical_and.reduce([to_numpy(scores.valid) for scores in found])
        return Scores(own + alpha * (after - ahead), valid=valid, reasons=reasons)

    return judge
