"""How near a frame is to a goal: by itself, along the line from a baseline to it, or against its opposite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.scores import Scores
from guerdon.rewards.embedding.encoders import Frames, Vector, frame_vectors, goal_vector
from guerdon.rewards.relevance import Embeddings

Goal = tuple[Any, ...]


def _column(column: str, **options: Any) -> tuple[str, ...]:
    return (column,)


def _projection(goal: Goal, baseline: Goal, alpha: float, **options: Any) -> tuple[str, ...]:
    listed("goal", goal)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is in [0, 1], got {alpha}")
    if alpha and not baseline:
        raise ValueError("alpha above 0 projects on the line from a baseline to the goal: name a baseline")
    if baseline:
        listed("baseline", baseline)
    return ()


@reward(lane="batch", range=(-1, 1), columns=_column, requires=_projection)
def goal(
    frame: Sequence[Any],
    *,
    goal: tuple[Any, ...],
    baseline: tuple[Any, ...] = (),
    alpha: float = 0.0,
    encoder: Any = None,
    texts: Callable[[Sequence[str]], Any] | None = None,
    column: str = "completion",
) -> Scores:
    """How near a frame is to what the goal says, as `projected` has it: 1 at the goal.

    A frame that looks like the goal is paid, whatever it shows: what an encoder confuses with the goal is found by a
    policy that looks for it. The baseline, a plain description of any frame of the task, takes out of the comparison
    what all frames share. See `label_distance` for a check without a policy.

    Args:
        frame: a picture, or its vector.
        goal: descriptions of it, such as 'a humanoid robot kneeling', or their vectors: their mean counts.
        baseline: such as 'a humanoid robot', likewise. Not read at alpha 0.
        alpha: 0 for the cosine; 1 for nothing but the place on the line from baseline to goal.
        encoder: None, where the column holds vectors; the folder or name of a `dual_encoder`; or a function from the
            column's entries to rows of numbers.
        texts: a function from texts to rows of numbers, where the encoder is not a `dual_encoder` and goals are words.
        column: its name. Texts in it name files of pictures, but never in a completion: a model could name any file.

    Returns:
        One score per rollout. What is no picture gets −1, with the problem as a detail; a vector that is missing, zero
        or not finite is an abstention.

    Raises:
        Abstain: of all rows, if a goal cannot be used.
        ValueError: at once, if there is no goal, alpha is outside of [0, 1], or it needs a baseline.

    >>> from guerdon.rewards import embedding
    >>> part = embedding.goal(goal=[[1.0, 0.0]], column="seen")
    >>> part(["?"] * 3, [""] * 3, seen=[[2.0, 0.0], [0.0, 1.0], None])
    [1.0, 0.0, None]

    Source: VLM-RM (AlignmentResearch/vlmrm; arXiv 2310.12921), whose alpha is chosen by task; 0.5 is a good start.
    """
    target = goal_vector(goal, encoder, texts)
    start = goal_vector(baseline, encoder, texts) if baseline and alpha else target
    same_space(target, start)
    if alpha and np.linalg.norm(target - start) <= 1e-9:
        raise Abstain("goal and baseline are the same: there is no line from one to the other")
    seen = frame_vectors(frame, encoder, len(target), paths=column != "completion")
    return scored(seen, projected(seen.units, target, start, alpha=alpha), -1.0)


def projected(states: Embeddings, goal: Vector, baseline: Vector, *, alpha: float) -> Float[np.ndarray[Any, Any], "n"]:
    """The reward of states by their distance from a goal, partly or all along the line from a baseline to it.

        d = g − b        P = α ddᵀ/‖d‖² + (1 − α) I        R = 1 − ½ ‖P(s − g)‖²

    Args:
        states: s, of length 1.
        goal: g, in length at most 1.
        baseline: b, likewise; not read at α = 0.
        alpha: α in [0, 1]; at 0 and for g of length 1, R = cos(s, g).

    Returns:
        In [−1, 1].

    Raises:
        ValueError: if α is outside of [0, 1], or goal and baseline are the same and α above 0.

    Source: the goal-baseline regularisation of VLM-RM (arXiv 2310.12921).

    >>> s, g, b = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1.0, 0.0]), np.array([0.0, 1.0])
    >>> projected(s, g, b, alpha=0.0), projected(s, g, b, alpha=1.0)
    (array([0., 1.]), array([0., 1.]))
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is in [0, 1], got {alpha}")
    apart = states - goal
    moved = (1 - alpha) * apart
    if alpha:
        line = goal - baseline
        length = float(line @ line)
        if length <= 1e-18:
            raise ValueError("goal and baseline are the same: there is no line from one to the other")
        moved = moved + alpha * np.outer(apart @ line / length, line)
    return np.asarray(np.clip(1 - 0.5 * (moved**2).sum(1), -1.0, 1.0))


def _two_goals(good: Goal, bad: Goal, weights: tuple[float, float], **options: Any) -> tuple[str, ...]:
    listed("good", good)
    listed("bad", bad)
    if not all(0 <= weight < np.inf for weight in weights):
        raise ValueError(f"weights must not be negative, got {weights}")
    return ()


def _contrast_range(weights: tuple[float, float], **options: Any) -> tuple[float, float]:
    return -float(sum(weights)), float(sum(weights))


@reward(lane="batch", range=_contrast_range, columns=_column, requires=_two_goals)
def contrast(
    frame: Sequence[Any],
    *,
    good: tuple[Any, ...],
    bad: tuple[Any, ...],
    weights: tuple[float, float] = (0.5, 0.5),
    encoder: Any = None,
    texts: Callable[[Sequence[str]], Any] | None = None,
    column: str = "completion",
) -> Scores:
    """How much nearer a frame is to a good description than to a bad one: α cos(s, good) − β cos(s, bad).

    What all frames are near to, in the words that both descriptions share, cancels.

    Args:
        frame, encoder, texts, column: see `goal`.
        good: descriptions such as 'The road is clear with no car accidents', or their vectors: their mean counts.
        bad: such as 'Two cars have collided with each other on the road', likewise.
        weights: α and β.

    Returns:
        One score per rollout; what is no picture gets −α − β, with the problem as a detail.

    Raises:
        Abstain: as `goal`.
        ValueError: at once, if a goal is missing or a weight negative.

    >>> from guerdon.rewards import embedding
    >>> part = embedding.contrast(good=[[1.0, 0.0]], bad=[[0.0, 1.0]], column="seen")
    >>> part(["?"] * 3, [""] * 3, seen=[[1, 0], [0, 1], [1, 1]])
    [0.5, -0.5, 0.0]

    Source: the contrasting language goals of VLM-RL (arXiv 2412.15544).
    """
    seen, towards, away = contrasted(frame, good, bad, encoder, texts, paths=column != "completion")
    return scored(seen, weights[0] * towards - weights[1] * away, -sum(weights))


def contrasted(
    frame: Sequence[Any], good: Goal, bad: Goal, encoder: Any, texts: Any, *, paths: bool
) -> tuple[Frames, Float[np.ndarray[Any, Any], "n"], Float[np.ndarray[Any, Any], "n"]]:
    """The vectors of frames, and the mean cosine of each with the descriptions of both goals."""
    ends = [goal_vector(said, encoder, texts) for said in (good, bad)]
    same_space(*ends)
    seen = frame_vectors(frame, encoder, len(ends[0]), paths=paths)
    towards, away = (np.clip(seen.units @ end, -1.0, 1.0) for end in ends)
    return seen, towards, away


def scored(seen: Frames, values: Any, floor: float) -> Scores:
    """Values of frames: the floor for what is no picture, and an abstention where there is no vector."""
    values = np.where(np.isin(np.arange(len(values)), list(seen.unreadable)), floor, values)
    problems = [seen.unreadable.get(row) for row in range(len(values))]
    return Scores.of(values.tolist(), reasons=seen.missing, details={"problem": problems})


def same_space(first: Vector, second: Vector) -> None:
    """Refuse goals of different lengths.

    Raises:
        Abstain: naming the lengths.
    """
    if len(first) != len(second):
        raise Abstain(f"vectors of one space have one length, the goals have {len(first)} and {len(second)}")


def listed(name: str, said: Any) -> None:
    """Refuse what is no list of descriptions.

    Raises:
        ValueError: if it is one text, or empty.
    """
    if isinstance(said, str) or not len(said):
        raise ValueError(f"{name} is a list of at least one description or vector: a single one is written [{said!r}]")
