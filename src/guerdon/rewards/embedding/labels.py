"""A reward against labels, without a policy; and a buffer whose rewards are written anew, many frames at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from guerdon.algebra import Reward
from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.rollouts import Rollouts
from guerdon.rewards.embedding.encoders import Vector
from guerdon.rewards.embedding.goals import projected
from guerdon.rewards.relevance import Embeddings

Values = Float[np.ndarray[Any, Any], "n"]


def label_distance(rewards: Values, labels: Values) -> float | None:
    """How far a reward is from labels of the same states, whatever the unit and origin of either: √((1 − ρ)/2).

    Args:
        rewards: one per state.
        labels: what people, or a simulator, say of the same states.

    Returns:
        0 for a positive affine map of the labels, 1 for a negative one, √½ for what has nothing to do with them; None
        where either is the same everywhere.

    Raises:
        ValueError: if the shapes differ, or a number is not finite.

    Source: the EPIC-like distance of VLM-RM (arXiv 2310.12921); EPIC (2006.13900).

    >>> round(label_distance(np.array([0.1, 0.2, 0.4]), np.array([1.0, 2.0, 4.0])), 9)
    0.0
    """
    mine, said = np.asarray(rewards, np.float64), np.asarray(labels, np.float64)
    if mine.ndim != 1 or mine.shape != said.shape:
        raise ValueError(f"rewards {mine.shape} and labels {said.shape} need one shape (n,)")
    if not (np.isfinite(mine).all() and np.isfinite(said).all()):
        raise ValueError("rewards and labels must be finite: leave out what was not scored")
    if not len(mine) or any(np.ptp(x) <= 1e-12 * np.abs(x).max() for x in (mine, said)):
        return None
    apart = [(x - x.mean()) / np.linalg.norm(x - x.mean()) for x in (mine, said)]
    # 1 − ρ as a difference of unit vectors: ½‖u − v‖² keeps the digits where ρ is near 1.
    return min(1.0, float(np.linalg.norm(apart[0] - apart[1])) / 2)


def best_alpha(
    states: Embeddings,
    goal: Vector,
    baseline: Vector,
    labels: Values,
    *,
    alphas: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
) -> tuple[float, list[float | None]]:
    """The α of `projected` whose reward is nearest to the labels of a few states.

    Args:
        states: of length 1.
        goal: see `projected`.
        baseline: see `projected`.
        labels: see `label_distance`.
        alphas: those that are tried.

    Returns:
        The first of the best, and the distance at each; None where the reward is the same everywhere.

    Raises:
        ValueError: if no α gives a reward that varies.

    Source: VLM-RM (arXiv 2310.12921), which looks at the reward of a few frames.
    """
    distances = [label_distance(projected(states, goal, baseline, alpha=alpha), labels) for alpha in alphas]
    known = [(distance, i) for i, distance in enumerate(distances) if distance is not None]
    if not known:
        raise ValueError("no alpha gives rewards that vary over these states, or the labels do not")
    return alphas[min(known)[1]], distances


def relabel(
    rewards: Float[np.ndarray[Any, Any], "n *m"],
    reward: Reward,
    columns: Mapping[str, Sequence[Any]],
    *,
    rows: Sequence[int] | None = None,
    batch: int = 64,
    context: Context | None = None,
) -> Bool[np.ndarray[Any, Any], "n"]:
    """Write the rewards of a replay buffer anew, in place, from the frames that came into it.

    Frames are scored together once they are there, and not one by one while the simulator waits.

    Args:
        rewards: the buffer's, such as Stable-Baselines3's `buffer.rewards`: its rows are written, every entry of one
            with the same number.
        reward: scores rows by themselves.
        columns: what it reads: an entry for each of the rows that are written.
        rows: which are. Default: as many from the first on as there are entries.
        batch: frames that are scored together.
        context: see `Reward.score`.

    Returns:
        Which rows of the buffer were written. Where the reward abstains the old number stays, and the row is False:
        leave it out of updates.

    Raises:
        ValueError: if the reward compares rows, columns have different lengths, or rows do not fit them.

    >>> from guerdon.rewards import embedding
    >>> buffer = np.zeros((4, 1))
    >>> relabel(buffer, embedding.goal(goal=[[1.0, 0.0]], column="seen"), {"seen": [[1, 0], [0, 1], None]})
    array([ True,  True, False, False])
    >>> buffer[:, 0]
    array([1., 0., 0., 0.])

    Source: the batch step of VLM-RL (zihaosheng/VLM-RL; arXiv 2412.15544) and VLM-RM (2310.12921).
    """
    sizes = {len(column) for column in columns.values()}
    if len(sizes) != 1:
        raise ValueError(
            f"columns of one length, got {', '.join(f'{k}: {len(v)}' for k, v in columns.items()) or 'none'}"
        )
    (count,) = sizes
    at = np.arange(count) if rows is None else np.asarray(rows)
    if at.shape != (count,) or ((at < 0) | (at >= len(rewards))).any():
        raise ValueError(f"rows are {count} places in a buffer of {len(rewards)}, got {at.shape}")
    if reward.scope != "row":
        raise ValueError(f"{reward.name} compares the rows of a {reward.scope}, which a buffer is not")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    written = np.zeros(len(rewards), bool)
    for start in range(0, count, batch):
        places = at[start : start + batch]
        given = {name: list(column[start : start + batch]) for name, column in columns.items()}
        completions = given.pop("completion", [""] * len(places))
        scores = reward.score(Rollouts([""] * len(places), completions, given), context)
        usable = to_numpy(scores.usable)
        values = to_numpy(scores.read(math.nan))[usable]
        rewards[places[usable]] = values.reshape(-1, *[1] * (rewards.ndim - 1))
        written[places[usable]] = True
    return written
