"""What is seen from several sides, or is made of several parts: scores of each, pooled to one of the whole."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from guerdon.algebra import reward
from guerdon.core.arrays import to_numpy
from guerdon.core.errors import Abstain
from guerdon.core.parsing import shown
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores

__all__ = ["components", "pooled"]

How = Literal["max", "mean", "min"]

_POOLS = {"max": np.maximum.reduceat, "min": np.minimum.reduceat, "mean": np.add.reduceat}


def _columns(column: str, **options: Any) -> tuple[str, ...]:
    return ("prompt", column)


def _ends(low: float, high: float, **options: Any) -> Range:
    return low, high


def _checked(low: float, high: float, how: How, **options: Any) -> tuple[str, ...]:
    if not low < high or how not in get_args(How):
        raise ValueError(f"pooled wants low below high and how max, mean or min, got {low}, {high} and {how!r}")
    return ()


@reward(lane="batch", range=_ends, columns=_columns, requires=_checked)
def pooled(
    prompt: Sequence[Any],
    views: Sequence[Any],
    *,
    how: How = "max",
    scorer: Callable[..., Any] | None = None,
    column: str = "views",
    low: float = 0.0,
    high: float = 1.0,
) -> Scores:
    """The score of an object from the scores of its views: the best of them, their mean, or the worst.

    The best asks that the object can be seen as what was asked for from somewhere, whichever side it was rendered from
    first; the worst, that it looks right from everywhere.

    Args:
        prompt: what was asked for; handed to the scorer.
        views: of each object the scores of its views; or the views, if there is a scorer.
        how: 'max', 'mean' or 'min' over the views.
        scorer: from all views of all objects, and the prompt of each, to one number each, in one call.
        column: the name of the views.
        low: the lowest score a view can have.
        high: the highest.

    Returns:
        One score per object, whatever the order of its views. One without views abstains, and one with a view that was
        not scored, or not within the range: the others say nothing of it.

    Raises:
        Abstain: of all rows, if the scorer does not give a number for each view.
        ValueError: at once, unless low < high.

    >>> from guerdon.rewards import views
    >>> views.pooled()(["?"] * 3, [""] * 3, views=[[0.2, 0.7], [0.5], []])
    [0.7, 0.5, None]

    Source: the six views of Hi-GRPO (Ivan-Tang-3D/3DGen-R1; arXiv 2512.10949), of which the best counts.
    """
    sets = [list(entry) if isinstance(entry, (list, tuple, np.ndarray)) else [] for entry in views]
    counts = np.array([len(some) for some in sets], np.int64)
    flat = [view for some in sets for view in some]
    if scorer is not None and flat:
        asked = [asked_for for asked_for, some in zip(prompt, sets, strict=True) for _ in some]
        given = scorer(flat, asked) if len(inspect.signature(scorer).parameters) > 1 else scorer(flat)
        flat = list(to_numpy(given))
        if len(flat) != counts.sum():
            raise Abstain(f"the scorer gave {len(flat)} numbers for {counts.sum()} views")
    numbers = np.array([_number(entry) for entry in flat], np.float64)
    right = np.isfinite(numbers) & (numbers >= low) & (numbers <= high)
    values = np.zeros(len(sets))
    there = np.flatnonzero(counts)
    if len(there):
        starts = (np.cumsum(counts) - counts)[there]
        found = _POOLS[how](np.where(right, numbers, 0.0), starts)
        values[there] = found / counts[there] if how == "mean" else found
    wrong = np.bincount(np.repeat(np.arange(len(sets)), counts)[~right], minlength=len(sets))
    reasons = {int(row): f"no views: {shown(views[int(row)])}" for row in np.flatnonzero(counts == 0)}
    reasons |= {int(row): f"{wrong[row]} of {counts[row]} views have no score" for row in np.flatnonzero(wrong)}
    return Scores.of(np.clip(values, low, high).tolist(), reasons=reasons)


@reward(range=(0, 2), columns=lambda column, **options: (column,))
def components(entries: Any, *, column: str = "components") -> float:
    """The mean over the parts that were asked for of: is it there, and how whole is it.

        R = 1/n Σ (existence + completeness)

    Args:
        entries: of each part a pair, whether it exists (0 or 1) and how complete it is, in [0, 1]; what a judge said.
        column: their name.

    Returns:
        In [0, 2]. What is not there is not complete either: its completeness does not count.

    Raises:
        Abstain: if nothing was asked for, or what the judge said is not in range.

    >>> from guerdon.rewards import views
    >>> views.components()(["?"], [""], components=[[(1, 1.0), (1, 0.5), (0, 0.0)]])
    [1.1666666666666667]

    Source: the part reward of Hi-GRPO (arXiv 2512.10949).
    """
    try:
        table = np.array([[float(x) for x in entry] for entry in entries], np.float64)
    except (TypeError, ValueError):
        table = np.zeros(0)
    if table.ndim != 2 or table.shape[1] != 2 or not len(table):
        raise Abstain(f"no pairs of existence and completeness: {shown(entries)}")
    exists, complete = table.T
    if not (np.isin(exists, (0, 1)).all() and ((complete >= 0) & (complete <= 1)).all()):
        raise Abstain(f"existence is 0 or 1 and completeness in [0, 1]: {shown(entries)}")
    return float((exists * (1 + complete)).mean())


def _number(entry: Any) -> float:
    try:
        return float(entry)
    except (TypeError, ValueError):
        return math.nan
