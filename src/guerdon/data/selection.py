"""Which rollouts of a group are kept: the best, the most voted for, or as many right as wrong consistent ones."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int


def top_of_group(
    values: Float[np.ndarray[Any, Any], "n"],
    groups: Int[np.ndarray[Any, Any], "n"],
    *,
    keep: int = 1,
    mask: Bool[np.ndarray[Any, Any], "n"] | None = None,
) -> Bool[np.ndarray[Any, Any], "n"]:
    """The rollouts with the highest values of each group.

    Args:
        values: any real unit.
        groups: rows with equal numbers are compared.
        keep: so many of each group, or all there are; of equal ones the earlier.
        mask: rows that may be kept: those that are scored, that are right. What stands elsewhere is not read.

    Raises:
        ValueError: if the shapes differ, `keep` is negative, or a value is not finite.

    Source: with the total progress of right traces, the STaR form of MRT (arXiv 2503.07572).

    >>> top_of_group(np.array([0.2, 0.9, 0.5]), np.array([0, 0, 1]))
    array([False,  True,  True])
    """
    if keep < 0:
        raise ValueError(f"keep must not be negative, got {keep}")
    values, mask, index, _ = checked("values", values, groups, mask)
    place, _ = places(values, index, mask)
    return mask & (place < keep)


def answer_support(
    answers: Sequence[Hashable | None],
    groups: Int[np.ndarray[Any, Any], "n"],
    *,
    weights: Float[np.ndarray[Any, Any], "n"] | None = None,
    mask: Bool[np.ndarray[Any, Any], "n"] | None = None,
) -> Float[np.ndarray[Any, Any], "n"]:
    """How much of its group stands behind each rollout's final answer: Σ of the weights of those with an equal one.

    The answer that is chosen is that of `top_of_group(answer_support(…), groups)`: without weights the majority's,
    with the scores of a reward model the weighted vote; best-of-n is `top_of_group(scores, groups)` itself.

    Args:
        answers: what each rollout ends with, in one form for equal answers; None where it has none, which stands
            behind nothing.
        groups: rows with equal numbers answer one prompt.
        weights: of each vote; default 1. Scores that can be negative count against the answer that many agree on: use
            their sigmoid, as the released code does; the paper's text adds the scores themselves.
        mask: rows that vote.

    Returns:
        In the unit of the weights; 0 at rows that do not vote or have no answer, so keep these out with
        `top_of_group(mask=…)`.

    Raises:
        ValueError: if the shapes differ, or a weight is not finite.

    Source: self-consistency (arXiv 2203.11171); weighted by a process reward model: Implicit PRM (2412.01981;
    PRIME-RL/ImplicitPRM).

    >>> answer_support(["4", "5", "4", None], np.zeros(4, int), weights=np.array([0.3, 0.5, 0.4, 0.9]))
    array([0.7, 0.5, 0.7, 0. ])
    """
    if len(answers) != len(np.asarray(groups)):
        raise ValueError(f"answers has {len(answers)} entries for {len(np.asarray(groups))} rows")
    voices, mask, index, _ = checked("weights", np.ones(len(answers)) if weights is None else weights, groups, mask)
    voting = mask & np.array([answer is not None for answer in answers], bool)
    numbers: dict[tuple[int, Hashable], int] = {}
    keys = zip(index.tolist(), answers, strict=True)
    ballot = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
    totals = np.bincount(ballot[voting], voices[voting], minlength=len(numbers))
    return np.where(voting, totals[ballot], 0.0)


def consistency(
    correct: Bool[np.ndarray[Any, Any], "n"],
    steps: Float[np.ndarray[Any, Any], "n s"],
    mask: Bool[np.ndarray[Any, Any], "n s"],
    *,
    reduce: Literal["mean", "min", "sum"] = "mean",
    penalty: float = 1.0,
    longest: int = 30,
) -> Float[np.ndarray[Any, Any], "n"]:
    """How well the judgement of a rollout's steps fits its outcome.

        c = ±(meanₕ rₕ − λ · [H ≤ 1 or H ≥ H_λ])        + for a right rollout, − for a wrong one

    A right answer from steps that are judged wrong was luck, a wrong one from steps that are judged right was judged
    wrongly. A rollout in one piece, or in very many, was not split into steps that can be judged; one without steps
    has mean 0.

    Args:
        correct: the outcome.
        steps: a process reward model's score of each step; any real unit.
        mask: True where the step exists.
        reduce: the "mean" of the steps; "min" and "sum" are the source's ablations.
        penalty: λ, in the unit of the step scores. The source states neither λ nor H_λ.
        longest: H_λ.

    Raises:
        ValueError: if the shapes differ, a step's score is not finite, or for another reduction.

    Source: PROF (arXiv 2509.03403).

    >>> consistency(np.array([True, False]), np.array([[0.9, 0.7], [0.2, 0.4]]), np.ones((2, 2), bool)).round(6)
    array([ 0.8, -0.3])
    """
    correct, steps, mask = np.asarray(correct, bool), np.asarray(steps, np.float64), np.asarray(mask, bool)
    if steps.ndim != 2 or steps.shape != mask.shape or correct.shape != steps.shape[:1]:
        raise ValueError(
            f"correct {correct.shape}, steps {steps.shape} and mask {mask.shape} need shapes (n,) and (n, s)"
        )
    if reduce not in ("mean", "min", "sum"):
        raise ValueError(f"reduce is 'mean', 'min' or 'sum', got {reduce!r}")
    if not np.isfinite(steps[mask]).all():
        raise ValueError("steps has a score that is not finite where mask is True")
    count = mask.sum(1)
    if reduce == "min":
        value = np.where(count > 0, np.where(mask, steps, np.inf).min(1, initial=np.inf), 0.0)
    else:
        value = np.where(mask, steps, 0.0).sum(1) / (np.maximum(count, 1) if reduce == "mean" else 1)
    value = value - penalty * ((count <= 1) | (count >= longest))
    return np.asarray(np.where(correct, value, -value))


def balanced(
    correct: Bool[np.ndarray[Any, Any], "n"],
    values: Float[np.ndarray[Any, Any], "n"],
    groups: Int[np.ndarray[Any, Any], "n"],
    *,
    keep: int,
    wrong: Literal["best", "random"] = "best",
    balance: Literal["even", "proportional", "none"] = "even",
    mask: Bool[np.ndarray[Any, Any], "n"] | None = None,
    rng: np.random.Generator | None = None,
) -> Bool[np.ndarray[Any, Any], "n"]:
    """Of each group, m rollouts: right and wrong ones in equal numbers, the most consistent of either kind.

        k₊ + k₋ = m,  k₊ k₋ as large as can be:   k₊ = ⌈m/2⌉ within [m − n₋, n₊]

    What is left is learned from by outcome only, so the process reward is never what the policy climbs.

    Args:
        correct: the outcome.
        values: what to rank each kind by, the highest first; of `consistency`.
        groups: rows with equal numbers were sampled for one prompt.
        keep: m; a smaller group is kept whole.
        wrong: "best", by value; or "random", safer with a weak process reward model.
        balance: "even"; "proportional" keeps the share of right ones, up to rounding; "none" ranks both kinds as
            one. The last two are the source's ablations.
        mask: rows whose outcome and steps were scored; the others are not kept.
        rng: for `wrong="random"`.

    Raises:
        ValueError: if the shapes differ, a value is not finite, an option is out of range, or rng is missing.

    Source: PROF (arXiv 2509.03403); which k₊ an odd m means is not stated.

    >>> kind = np.array([True, True, True, False, False])
    >>> balanced(kind, np.array([0.9, 0.2, 0.8, -0.7, -0.1]), np.zeros(5, int), keep=3)
    array([ True, False,  True, False,  True])
    """
    if keep < 0:
        raise ValueError(f"keep must not be negative, got {keep}")
    if wrong not in ("best", "random") or balance not in ("even", "proportional", "none"):
        raise ValueError(
            f"wrong is 'best' or 'random' and balance 'even', 'proportional' or 'none', got {wrong!r} and {balance!r}"
        )
    correct = np.asarray(correct, bool)
    values, mask, index, count = checked("values", values, groups, mask)
    if correct.shape != values.shape:
        raise ValueError(f"correct {correct.shape} and values {values.shape} need one shape (n,)")
    if wrong == "random":
        if rng is None:
            raise ValueError("wrong='random' needs rng")
        values = np.where(correct, values, rng.random(len(values)))
    if balance == "none":
        return mask & (places(values, index, mask)[0] < keep)
    right, false = (np.bincount(index[mask & kind], minlength=count) for kind in (correct, ~correct))
    total = np.minimum(keep, right + false)
    target = (total + 1) // 2 if balance == "even" else np.floor(total * right / np.maximum(right + false, 1) + 0.5)
    best = np.clip(target, total - false, right)
    place, _ = places(values, 2 * index + correct, mask)
    return np.asarray(mask & (place < np.where(correct, best[index], (total - best)[index])), bool)


def places(
    values: Float[np.ndarray[Any, Any], "n"],
    index: Int[np.ndarray[Any, Any], "n"],
    mask: Bool[np.ndarray[Any, Any], "n"],
) -> tuple[Int[np.ndarray[Any, Any], "n"], Int[np.ndarray[Any, Any], "n"]]:
    """The place of each row in its group, from 0 for the highest value, masked rows last; and how many are not masked.

    Args:
        values: of equal ones, the earlier row comes first.
        index: the group, numbered from 0; a number without rows is no harm.
        mask: rows that take part.
    """
    n = len(values)
    order = np.lexsort((np.arange(n), -np.where(mask, values, 0.0), ~mask, index))
    sizes = np.bincount(index, minlength=1)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return place, np.bincount(index[mask], minlength=len(sizes))[index]


def checked(
    name: str, values: Any, groups: Any, mask: Any
) -> tuple[Float[np.ndarray[Any, Any], "n"], Bool[np.ndarray[Any, Any], "n"], Int[np.ndarray[Any, Any], "n"], int]:
    """Values, mask, each row's group as a number from 0, and how many groups there are.

    Raises:
        ValueError: if the shapes differ, or a value that is not masked is not finite.
    """
    values, groups = np.asarray(values, np.float64), np.asarray(groups)
    mask = np.ones(values.shape, bool) if mask is None else np.asarray(mask, bool)
    if values.ndim != 1 or not values.shape == groups.shape == mask.shape:
        raise ValueError(f"{name} {values.shape}, groups {groups.shape} and mask {mask.shape} need one shape (n,)")
    if not np.isfinite(values[mask]).all():
        row = int(np.flatnonzero(mask & ~np.isfinite(values))[0])
        raise ValueError(f"{name}[{row}] is {values[row]}: mask a row that was not scored")
    _, index = np.unique(groups, return_inverse=True)
    return np.where(mask, values, 0.0), mask, index, int(index.max(initial=-1)) + 1
