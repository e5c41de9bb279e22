"""Prompts chosen by how they were solved: over training, or by a probe of the policy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.core.parsing import Completion, text_of


def history_spread(
    history: Float[np.ndarray[Any, Any], "p e"], mask: Bool[np.ndarray[Any, Any], "p e"] | None = None
) -> Float[np.ndarray[Any, Any], "p"]:
    """How much the accuracy on each prompt moved over training: vₚ = stdₑ sₚₑ.

    `np.argsort(-v, kind="stable")` ranks the prompts, those first that were learned or unlearned; the first of all is
    the one example of one-shot training.

    Args:
        history: mean accuracy of a prompt's rollouts in each epoch of one training run; in [0, 1].
        mask: False where the prompt was not sampled in the epoch.

    Returns:
        In [0, 1/2]; 0 for a prompt seen less than twice.

    Raises:
        ValueError: if the shapes differ or an accuracy is outside [0, 1].

    Source: "RL for Reasoning with One Training Example" (arXiv 2504.20571; ypwang61/One-Shot-RLVR).

    >>> history_spread(np.array([[0, 0, 0], [0, 0.5, 1], [1, 1, 1]])).round(3)
    array([0.   , 0.408, 0.   ])
    """
    history, mask = _checked(history, mask)
    count = np.maximum(mask.sum(1), 1)
    mean = history.sum(1) / count
    return np.asarray(np.sqrt(np.where(mask, (history - mean[:, None]) ** 2, 0.0).sum(1) / count))


def learning_impact(
    history: Float[np.ndarray[Any, Any], "p e"], mask: Bool[np.ndarray[Any, Any], "p e"] | None = None
) -> Float[np.ndarray[Any, Any], "p"]:
    """How closely the learning curve of each prompt follows that of all.

        LIMₚ = 1 − Σₑ (sₚₑ − s̄ₑ)² / Σₑ (1 − s̄ₑ)²        over the epochs in which the prompt was sampled

    Args:
        history: as for `history_spread`.
        mask: likewise.

    Returns:
        At most 1, for a curve equal to the mean curve; as for any where all prompts are always solved. 1 for a prompt
        that was never sampled would be a lie: it gets −inf, the last place.

    Raises:
        ValueError: if the shapes differ or an accuracy is outside [0, 1].

    Source: LIMR's measure, as in ypwang61/One-Shot-RLVR, which cuts all curves to the shortest.

    >>> learning_impact(np.array([[0.0, 0.5], [0.5, 0.5], [1.0, 0.5]]))
    array([0.5, 1. , 0.5])
    """
    history, mask = _checked(history, mask)
    mean = history.sum(0) / np.maximum(mask.sum(0), 1)
    apart = np.where(mask, (history - mean) ** 2, 0.0).sum(1)
    room = np.where(mask, (1.0 - mean) ** 2, 0.0).sum(1)
    impact = 1.0 - np.divide(apart, room, out=np.zeros_like(apart), where=room > 0)
    return np.where(mask.any(1), impact, -np.inf)


class Saturation(NamedTuple):
    """When training was done, and when its effect was.

    Args:
        saturated: the first point from which on the training accuracy stays high; None: it never does.
        best: the first point at which the test accuracy is highest.
        gain: the test accuracy there less that at saturation, if it comes after; else 0.
    """

    saturated: int | None
    best: int
    gain: float


def post_saturation(
    train: Float[np.ndarray[Any, Any], "e"], test: Float[np.ndarray[Any, Any], "e"], *, level: float = 0.99
) -> Saturation:
    """What the test accuracy still gains after the training accuracy has nothing left to.

    Args:
        train: accuracy on what is trained on, at points of training.
        test: accuracy on what is not, at the same points.
        level: a training accuracy of at least this is saturated. The source reads it off a plot.

    Raises:
        ValueError: if the curves are empty, not of one length or not finite.

    Source: post-saturation generalisation, "RL for Reasoning with One Training Example" (arXiv 2504.20571).

    >>> post_saturation(np.array([0.2, 1.0, 1.0, 1.0]), np.array([0.36, 0.5, 0.625, 0.75]))
    Saturation(saturated=1, best=3, gain=0.25)
    """
    train, test = np.asarray(train, np.float64), np.asarray(test, np.float64)
    if train.ndim != 1 or train.shape != test.shape or not len(train):
        raise ValueError(f"train {train.shape} and test {test.shape} need one shape (e,), e ≥ 1")
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        raise ValueError("train and test must be finite")
    below = np.flatnonzero(train < level)
    start = int(below[-1]) + 1 if len(below) else 0
    best = int(test.argmax())
    if start == len(train):
        return Saturation(None, best, 0.0)
    return Saturation(start, best, float(test[best] - test[start]) if best > start else 0.0)


def reflection_share(
    completions: Sequence[Completion], *, words: Sequence[str] = ("rethink", "recheck", "recalculat")
) -> float | None:
    """The share of completions that say they look again.

    Args:
        completions: text or messages.
        words: beginnings of words, in any case: "recalculating" counts.

    Returns:
        In [0, 1]; None without completions.

    Raises:
        ValueError: if there are no words.

    Source: the words counted in "RL for Reasoning with One Training Example" (arXiv 2504.20571).

    >>> reflection_share(["Rechecking, x = 2.", "x = 2"])
    0.5
    """
    if not words:
        raise ValueError("words are empty: there is nothing to count")
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})", re.IGNORECASE)
    said = [pattern.search(text_of(completion)) is not None for completion in completions]
    return sum(said) / len(said) if said else None


class Pair(NamedTuple):
    """Two prompts to train on, by their places; None where no prompt qualifies.

    Args:
        hard: hardly ever solved: its rare success is amplified.
        easy: hardly ever failed: its rare failure is.
    """

    hard: int | None
    easy: int | None


def success_pair(
    successes: Int[np.ndarray[Any, Any], "p"],
    attempts: Int[np.ndarray[Any, Any], "p"],
    *,
    rare: int = 2,
    hard: Bool[np.ndarray[Any, Any], "p"] | None = None,
    easy: Bool[np.ndarray[Any, Any], "p"] | None = None,
    rng: np.random.Generator | None = None,
) -> Pair:
    """A prompt that the policy solves at most c times of G, but does; and one that it fails at most c times, but does.

        hard: 1 ≤ successes ≤ c        easy: 1 ≤ G − successes ≤ c

    Under group normalisation the rare outcome has advantage ±√((1−p)/p): √(G−1) for one of G.

    Args:
        successes: of each prompt, from a probe of the policy before training.
        attempts: G of each prompt; 0 where it was not probed.
        rare: c. The source does not state it.
        hard: the pool of the hard one; default all prompts.
        easy: the pool of the easy one.
        rng: which of those whose outcome is rarest; default the first.

    Raises:
        ValueError: if the shapes differ, c < 1, or successes are not between 0 and attempts.

    Source: bidirectional pairing of "Beyond Variance" (arXiv 2602.03452).

    >>> success_pair(np.array([0, 1, 4, 7, 8]), np.full(5, 8))
    Pair(hard=1, easy=3)
    """
    successes, attempts = np.asarray(successes), np.asarray(attempts)
    pools = [np.ones(successes.shape, bool) if pool is None else np.asarray(pool, bool) for pool in (hard, easy)]
    if successes.ndim != 1 or any(x.shape != successes.shape for x in (attempts, *pools)):
        raise ValueError("successes, attempts, hard and easy need one shape (p,)")
    if rare < 1:
        raise ValueError(f"rare must be at least 1, got {rare}")
    if ((successes < 0) | (successes > attempts)).any():
        raise ValueError("successes must lie between 0 and attempts")
    found: list[int | None] = []
    for pool, count in zip(pools, (successes, attempts - successes), strict=True):
        rate = count / np.maximum(attempts, 1)
        fit = np.flatnonzero(pool & (count >= 1) & (count <= rare) & (count < attempts))
        fit = fit[rate[fit] == rate[fit].min(initial=np.inf)]
        found.append(None if not len(fit) else int(fit[0] if rng is None else rng.choice(fit)))
    return Pair(*found)


def _checked(history: Any, mask: Any) -> tuple[Float[np.ndarray[Any, Any], "p e"], Bool[np.ndarray[Any, Any], "p e"]]:
    history = np.asarray(history, np.float64)
    mask = np.ones(history.shape, bool) if mask is None else np.asarray(mask, bool)
    if history.ndim != 2 or history.shape != mask.shape:
        raise ValueError(f"history {history.shape} and mask {mask.shape} need one shape (p, e)")
    if not ((history[mask] >= 0) & (history[mask] <= 1)).all():
        raise ValueError("history holds accuracies, between 0 and 1")
    return np.where(mask, history, 0.0), mask
