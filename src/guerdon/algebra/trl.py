"""A reward, unchanged, as TRL's reward function.

    GRPOTrainer(model, reward_funcs=0.8 * math.answer() + 0.2 * format.tags("think", "answer"), …)

Pass one composed reward, not several: beside another function, TRL sums an abstention as 0.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.core.context import Context
from guerdon.core.errors import GuerdonError
from guerdon.core.rollouts import Rollouts, Tokens
from guerdon.core.scores import Scores

if TYPE_CHECKING:
    from guerdon.algebra.reward import Reward

# What TRL passes beside the dataset's columns.
HOOKS = ("trainer_state", "log_extra", "log_metric", "environments", "completion_ids")


def call(
    reward: Reward, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]
) -> list[float | None]:
    """Score one call of TRL's: `None` for an abstention, which TRL leaves out of the group's statistics.

    - Parts and the share of abstentions go to TRL's metrics (`log_metric`), reasons to its table of
      completions (`log_extra`).
    - `trainer_state` gives the progress of schedules; shapers observe once each time its
      `global_step` has grown.
    - TRL scores each process's slice of a batch by itself, so a reward that compares the rollouts of
      a group needs every group whole on one process.

    Raises:
        GuerdonError: if the reward compares groups and a group is split over processes, or if it
            gives one score per step.

    Source: trl's `GRPOTrainer._calculate_rewards`.
    """
    from guerdon.engine import default

    hooks = {name: columns[name] for name in HOOKS if name in columns}
    given = {name: column for name, column in columns.items() if name not in HOOKS}
    if reward.level == "step":
        raise GuerdonError(f"{reward} gives one score per step and TRL takes one per rollout: use reduce(…, 'min')")
    groups = given.pop("group", None)
    rollouts = Rollouts(
        prompts,
        completions,
        given,
        groups=groups,
        tokens=_tokens(hooks["completion_ids"]) if hooks.get("completion_ids") is not None else None,
    )
    if reward.scope != "row":
        _check_whole_groups(reward, rollouts)
    context = _context(hooks.get("trainer_state"), rollouts)
    engine = default()
    measured = engine.measure(reward, rollouts, context)
    scores = reward.combine(measured, context)
    if context.training and _new_step(reward, context.step):
        reward.observe(measured, context)
    _log(scores, hooks.get("log_metric"), hooks.get("log_extra"))
    return [float(value) if ok else None for value, ok in zip(scores.read(0.0), scores.valid, strict=True)]


def _context(state: Any, rollouts: Rollouts) -> Context:
    if state is None:
        return Context(rollouts)
    most = getattr(state, "max_steps", 0) or 0
    progress = min(1.0, state.global_step / most) if most > 0 else 0.0
    return Context(rollouts, progress=progress, training=True, step=int(state.global_step))


def _new_step(reward: Reward, step: int) -> bool:
    """Whether training has moved on since this reward last observed; kept beside the expression, not in it."""
    seen = getattr(reward, "_observed_step", -1)
    object.__setattr__(reward, "_observed_step", max(seen, step))
    return step > seen


def _tokens(ids: Sequence[Sequence[int]]) -> Tokens:
    width = max((len(row) for row in ids), default=0)
    padded = np.zeros((len(ids), width), np.int64)
    there = np.zeros((len(ids), width), bool)
    for i, row in enumerate(ids):
        padded[i, : len(row)], there[i, : len(row)] = np.asarray(row), True
    return Tokens(padded, written=there, attended=there)


def _check_whole_groups(reward: Reward, rollouts: Rollouts) -> None:
    """Groups must have one size here, and none may go on at the next process."""
    _, sizes = np.unique(rollouts.groups, return_counts=True)
    split = len(set(sizes.tolist())) > 1
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        ends = [hashlib.sha1(str(rollouts.ids[i]).encode()).hexdigest() for i in (0, -1)] if len(rollouts) else ["", ""]
        everywhere: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everywhere, (split, *ends))
        split = any(s for s, _, _ in everywhere) or any(a[2] == b[1] for a, b in pairwise(everywhere))
    if split:
        raise GuerdonError(
            f"{reward} compares the rollouts of a group, and a group is split over processes or calls: make "
            "per_device_train_batch_size × steps_per_generation a multiple of num_generations"
        )


def _log(
    scores: Scores, metric: Callable[[str, float], None] | None, extra: Callable[[str, list[Any]], None] | None
) -> None:
    if metric is not None:
        for name, part in scores.parts.items():
            mean = part.mean()
            if mean is not None:
                metric(f"reward/{name}", mean)
        metric("reward/abstained", float(scores.abstained.mean()))
    if extra is not None and scores.reasons:
        extra("abstained_because", [scores.reasons.get(i, "") for i in range(len(scores))])
