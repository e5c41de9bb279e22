"""A reward, unchanged, as TRL's reward function.

    GRPOTrainer(model, reward_funcs=0.8 * math.answer() + 0.2 * format.tags("think", "answer"), …)

Pass one composed reward, not several: beside another function, TRL sums an abstention as 0.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.errors import GuerdonError
from guerdon.core.rollouts import Rollouts, Tokens
from guerdon.core.scores import Scores

if TYPE_CHECKING:
    from guerdon.algebra.expression import Reward

# What TRL passes beside the dataset's columns.
HOOKS = ("trainer_state", "log_extra", "log_metric", "environments", "completion_ids")


def call(
    reward: Reward, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]
) -> list[float | None]:
    """Score one call of TRL's: `None` for an abstention, which TRL leaves out of the group's statistics.

    - Parts and the share of abstentions go to TRL's metrics (`log_metric`), reasons to its table of
      completions (`log_extra`).
    - `trainer_state` gives the progress of schedules; shapers observe once at each `global_step`, and
      not while TRL evaluates.
    - TRL scores each process's slice of a batch by itself, so a reward that compares the rollouts of
      a group needs every group whole on one process, and one that compares the whole batch one process.
    - Columns `id`, `group` and `finished` of the dataset are what they are in `Rollouts`.

    Raises:
        MissingInput: before any work, if TRL does not pass what the reward reads.
        GuerdonError: if the reward compares what TRL gives to different processes or calls, or if it
            gives one score per step.

    Source: trl's `GRPOTrainer._calculate_rewards`.
    """
    from guerdon.engine import default, require

    hooks = {name: columns[name] for name in HOOKS if name in columns}
    given = {name: column for name, column in columns.items() if name not in HOOKS}
    if reward.level == "step":
        raise GuerdonError(f"{reward} gives one score per step and TRL takes one per rollout: use reduce(…, 'min')")
    rollouts = Rollouts.from_columns({"prompt": prompts, "completion": completions, **given})
    if hooks.get("completion_ids") is not None:
        rollouts = rollouts.with_(tokens=_tokens(hooks["completion_ids"]))
    _check_scope(reward, rollouts)
    context = _context(hooks, rollouts)
    require(reward, rollouts, context)
    measured = default().measure(reward.demand(rollouts), rollouts, context)
    scores = reward.combine(measured, context)
    if context.training and _new_step(reward, context.step):
        reward.observe(measured, context)
    _log(scores, hooks.get("log_metric"), hooks.get("log_extra"))
    values, there = to_numpy(scores.read(0.0)).tolist(), to_numpy(scores.valid).tolist()
    return [value if ok else None for value, ok in zip(values, there, strict=True)]


def _context(hooks: Mapping[str, Any], rollouts: Rollouts) -> Context:
    state = hooks.get("trainer_state")
    if state is None:
        return Context(rollouts)
    most = getattr(state, "max_steps", 0) or 0
    progress = min(1.0, state.global_step / most) if most > 0 else 0.0
    # Nothing TRL passes says whether it is evaluating, but `log_metric` is a method of the trainer that is.
    trainer = getattr(hooks.get("log_metric"), "__self__", None)
    training = bool(getattr(getattr(trainer, "model", None), "training", True))
    return Context(rollouts, progress=progress, training=training, step=int(state.global_step))


def _new_step(reward: Reward, step: int) -> bool:
    """Whether this reward has not observed at this step yet; kept beside the expression, not in it."""
    seen = getattr(reward, "_observed_step", None)
    object.__setattr__(reward, "_observed_step", step)
    return step != seen


def _tokens(ids: Sequence[Sequence[int]]) -> Tokens:
    width = max((len(row) for row in ids), default=0)
    padded = np.zeros((len(ids), width), np.int64)
    there = np.zeros((len(ids), width), bool)
    for i, row in enumerate(ids):
        padded[i, : len(row)], there[i, : len(row)] = np.asarray(row), True
    return Tokens(padded, written=there, attended=there)


def _check_scope(reward: Reward, rollouts: Rollouts) -> None:
    """What is scored together must be here: the batch, or groups of one size, none going on at the next process."""
    if reward.scope == "row":
        return
    torch = sys.modules.get("torch")
    shared = torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()
    processes = torch.distributed.get_world_size() if torch is not None and shared else 1
    if reward.scope == "batch":
        if processes > 1:
            raise GuerdonError(
                f"{reward} compares the rollouts of the whole batch, of which each of the {processes} processes scores "
                "a part: compare groups, as in shaping.center('group')"
            )
        return
    _, sizes = np.unique(rollouts.groups, return_counts=True)
    split = len(set(sizes.tolist())) > 1
    if torch is not None and processes > 1:
        ends = [rollouts.ids[i] for i in (0, -1)] if len(rollouts) else [None, "no rollouts here"]
        everywhere: list[Any] = [None] * processes
        torch.distributed.all_gather_object(everywhere, (split, *ends))
        split = any(s for s, _, _ in everywhere) or any(a[2] == b[1] for a, b in pairwise(everywhere))
    if split:
        raise GuerdonError(
            f"{reward} compares the rollouts of a group, and a group is split over processes or calls: make "
            "per_device_train_batch_size × steps_per_generation a multiple of num_generations (and see that no "
            "prompt stands twice in a row in the dataset)"
        )


def _log(
    scores: Scores, metric: Callable[[str, float], None] | None, extra: Callable[[str, list[Any]], None] | None
) -> None:
    if metric is not None:
        for name, part in scores.parts.items():
            mean = part.mean()
            if mean is not None:
                metric(f"reward/{name}", mean)
        if len(scores):
            metric("reward/abstained", len(scores.abstained_rows) / len(scores))
    if extra is not None:  # always: TRL's table keeps a column's last entries until there are new ones
        extra("abstained_because", [scores.reasons.get(i, "") for i in range(len(scores))])
