"""What a planner earns when so much is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from guerdon.core.scores import Scores
from guerdon.train.control.episodes import EVALUATION, Episode, Vectors, as_rollouts, play, seeded
from guerdon.train.control.job import ControlJob, measured
from guerdon.train.control.windows import earned
from guerdon.train.distributed import on_main
from guerdon.train.progress import ticker


def evaluate(job: ControlJob) -> dict[str, Any]:
    """The return when most is asked for, with its interval; and that at every target, and how they go together.

    Every target has the same episodes, the same at each evaluation. Intervals are those of means over episodes, ± 1.96
    standard errors: what other episodes would move, not what another seed of training would.
    """
    return on_main(job.accelerator, lambda: _judged(job, *_played(job)))


def _played(job: ControlJob) -> tuple[list[Episode], Float[np.ndarray[Any, Any], "n"]]:
    """The episodes of all targets, one target behind the other, and what was asked for in each."""
    settings, seed = job.recipe.evaluation, job.recipe.seed
    asked = np.repeat(job.targets, settings.episodes)
    seeds = [seeded(seed, EVALUATION, i) for i in range(settings.episodes)] * len(job.targets)
    device = job.accelerator.device
    generator = torch.Generator(device).manual_seed(seeded(seed, EVALUATION)) if settings.drawn else None

    def act(numbers: Sequence[int], episodes: Sequence[Episode]) -> Vectors:
        target = asked[list(numbers)] - (_so_far(job, episodes) if settings.lower else 0.0)
        seen = np.stack([episode.observations[-1] for episode in episodes])
        state, left = (torch.as_tensor(x, dtype=torch.float32, device=device) for x in (seen, target))
        return job.planner.act(state, left, generator=generator).cpu().numpy().astype(np.float64)

    played: list[Episode] = []
    with ticker(job.console, "evaluate", len(seeds)) as progress:
        for some in play(job.recipe.environment, seeds, act):
            played += some
            if progress:
                progress.step(by=len(some))
    return played, asked


def _so_far(job: ControlJob, episodes: Sequence[Episode]) -> Float[np.ndarray[Any, Any], "m"]:
    """What episodes that go on have earned: nothing where the reward is of whole episodes, or cannot say it yet."""
    if job.reward.level != "step" or not episodes[0].actions:
        return np.zeros(len(episodes))
    gained, _ = earned(measured(job, as_rollouts(episodes, job.recipe.environment.id)), _steps(episodes))
    return np.array([sum(row or ()) for row in gained])


def _steps(episodes: Sequence[Episode]) -> list[int]:
    return [len(episode.actions) for episode in episodes]


def _judged(job: ControlJob, played: list[Episode], asked: Float[np.ndarray[Any, Any], "n"]) -> dict[str, Any]:
    rollouts = as_rollouts(played, job.recipe.environment.id)
    scores = measured(job, rollouts)
    gained, reasons = earned(scores, _steps(played))
    known = np.array([row is not None for row in gained])
    totals = np.array([sum(row or ()) for row in gained])
    by_target = [_mean(totals[known & (asked == target)]) | {"target": target} for target in job.targets]
    result = {name: by_target[-1][name] for name in ("reward", "ci95")}
    result |= {
        "follows": rank_correlation(asked[known], totals[known]),
        "recorded": {"mean": float(job.windows.totals.mean()), "best": float(job.windows.totals.max())},
        "asked": by_target,
    }
    details = {
        "n": job.recipe.evaluation.episodes,
        "mean_steps": float(np.mean(_steps(played))),
        "abstained": float(1 - known.mean()),
    }
    job.run.log_evaluation({"step": job.step, **result, **details, "reasons": Counter(reasons.values())})
    said = [f"{n} steps{', ended by itself' if played[i].ended else ''}" for i, n in enumerate(_steps(played))]
    prompts = [f"{job.recipe.environment.id}, {target:g} asked for" for target in asked]
    shown = rollouts.with_(prompts=prompts, completions=said, ids=None, groups=None)
    kept = np.arange(len(asked)) % job.recipe.evaluation.episodes < max(1, job.recipe.keep.rollouts // len(job.targets))
    outcome = Scores(totals, valid=known, reasons=reasons, parts=scores.parts)
    job.run.save_rollouts(job.step, shown.select(kept), outcome.select(kept))
    return result


def _mean(values: Float[np.ndarray[Any, Any], "n"]) -> dict[str, Any]:
    """A mean with its 95 % interval; None where there is too little for it."""
    if not len(values):
        return {"reward": None, "ci95": None}
    mean = float(values.mean())
    half = 1.959964 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
    return {"reward": mean, "ci95": None if half is None else [mean - half, mean + half]}


def rank_correlation(first: Float[np.ndarray[Any, Any], "n"], second: Float[np.ndarray[Any, Any], "n"]) -> float | None:
    """Spearman's: the correlation of ranks, equal values sharing the mean of theirs; None where one does not vary.

    >>> rank_correlation(np.array([1.0, 2, 2, 3]), np.array([10.0, 20, 20, 90]))
    1.0
    """
    one, other = _ranks(first), _ranks(second)
    if len(one) < 2 or one.std() == 0 or other.std() == 0:
        return None
    return round(float(np.corrcoef(one, other)[0, 1]), 12)


def _ranks(values: Float[np.ndarray[Any, Any], "n"]) -> Float[np.ndarray[Any, Any], "n"]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    middle: np.ndarray[Any, Any] = np.cumsum(count) - (count + 1) / 2
    return middle[place]
