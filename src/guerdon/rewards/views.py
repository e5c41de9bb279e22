"""What is seen from several sides, or is made of several parts: scores of each, pooled to one of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from guerdon.algebra import reward
from guerdon.core.arrays import to_numpy
from guerdon.core.errors import Abstain
from guerdon.core.parsing import shown
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores

__all__ = ["MME_3DR", "by_class", "components", "pooled"]

How = Literal["max", "mean", "min"]

# The classes of MME-3DR and their shares of its 249 objects (arXiv 2512.10949).
MME_3DR: Mapping[str, float] = {
    "spatial": 0.161,
    "mechanical": 0.215,
    "organic": 0.213,
    "rare": 0.154,
    "stylised": 0.257,
}

_POOLS = {"max": np.maximum.reduceat, "min": np.minimum.reduceat, "mean": np.add.reduceat}


def _columns(column: str, **options: Any) -> tuple[str, ...]:
    return ("prompt", column)


def _ends(low: float, high: float, **options: Any) -> Range:
    return low, high


def _checked(
    low: float, high: float, how: How, render: Any = None, scorer: Any = None, **options: Any
) -> tuple[str, ...]:
    if not low < high or how not in get_args(How):
        raise ValueError(f"pooled wants low below high and how max, mean or min, got {low}, {high} and {how!r}")
    if render is not None and scorer is None:
        raise ValueError("pooled renders objects for a scorer: give one, or a column of scores and no render")
    return ()


@reward(lane="batch", range=_ends, columns=_columns, requires=_checked)
def pooled(
    prompt: Sequence[Any],
    views: Sequence[Any],
    *,
    how: How = "max",
    scorer: Callable[..., Any] | None = None,
    render: Callable[[Any], Sequence[Any]] | None = None,
    column: str = "views",
    low: float = 0.0,
    high: float = 1.0,
) -> Scores:
    """The score of an object from the scores of its views: the best of them, their mean, or the worst.

    The best asks that the object can be seen as what was asked for from somewhere, whichever side it was rendered from
    first; the worst, that it looks right from everywhere.

    Args:
        prompt: what was asked for; handed to the scorer.
        views: of each object the scores of its views; or the views, if there is a scorer; or what they are rendered
            from.
        how: 'max', 'mean' or 'min' over the views.
        scorer: `scorer(views, prompts)`, from all views of all objects and the prompt of each to one number each.
        render: from an object to its views, such as `geometry.rendered` of a mesh. An object of which it says with a
            ValueError that there is nothing to be seen was generated wrongly: it gets the lowest score.
        column: the name of the views.
        low: the lowest score a view can have.
        high: the highest.

    Returns:
        One score per object, whatever the order of its views, and as a detail what could not be rendered. One without
        views abstains, and one with a view that was not scored, or not within the range: the others say nothing of it.

    Raises:
        Abstain: of all rows, if the scorer does not give a number for each view.
        ValueError: at once, unless low < high, or if there is no scorer of what is rendered.

    >>> from guerdon.rewards import views
    >>> views.pooled()(["?"] * 3, [""] * 3, views=[[0.2, 0.7], [0.5], []])
    [0.7, 0.5, None]

    Source: the six views of Hi-GRPO (Ivan-Tang-3D/3DGen-R1; arXiv 2512.10949), of which the best counts.
    """
    sets, problems = _seen(views, render)
    counts = np.array([len(some) for some in sets], np.int64)
    flat = [view for some in sets for view in some]
    if scorer is not None and flat:
        asked = [asked_for for asked_for, some in zip(prompt, sets, strict=True) for _ in some]
        flat = list(to_numpy(scorer(flat, asked)))
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
    bare = [int(row) for row in np.flatnonzero(counts == 0)]
    reasons = {row: f"no views: {shown(views[row])}" for row in bare if problems[row] is None}
    values[[row for row in bare if problems[row] is not None]] = low
    reasons |= {int(row): f"{wrong[row]} of {counts[row]} views have no score" for row in np.flatnonzero(wrong)}
    return Scores.of(np.clip(values, low, high).tolist(), reasons=reasons, details={"problem": problems})


def _seen(objects: Sequence[Any], render: Any) -> tuple[list[list[Any]], list[str | None]]:
    """The views of each object, and what is wrong with those that cannot be rendered."""
    if render is None:
        sets = [list(entry) if isinstance(entry, (list, tuple, np.ndarray)) else [] for entry in objects]
        return sets, [None] * len(sets)
    found: list[list[Any]] = []
    problems: list[str | None] = []
    for entry in objects:
        try:
            found.append(list(render(entry)))
            problems.append(None)
        except ValueError as problem:
            found.append([])
            problems.append(str(problem))
    return found, problems


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


def by_class(
    measure: Callable[..., Any], classes: Sequence[str], *arrays: Any, shares: Mapping[str, float] = MME_3DR
) -> dict[str, float]:
    """A measure of the objects of each class by themselves, and their mean by the classes' shares, 'all'.

    A model can be good at chairs alone, of which there are many: a mean over objects would not say so.

    Args:
        measure: of the rows of a class in each array: `np.mean` of scores, `distribution.frechet_distance` or
            `kernel_distance` of the vectors of generated objects and of references.
        classes: of each row.
        arrays: what is measured, one entry for each row.
        shares: every class and its weight; default: MME-3DR's.

    Raises:
        ValueError: for a row of another class or a class without rows, and if an array has another length.

    >>> by_class(np.mean, ["a", "b", "a"], [1.0, 0.0, 0.5], shares={"a": 1.0, "b": 3.0})
    {'a': 0.75, 'b': 0.0, 'all': 0.1875}

    Source: the tables of MME-3DR (arXiv 2512.10949).
    """
    given, columns = np.asarray(classes), [to_numpy(array) for array in arrays]
    if any(len(column) != len(given) for column in columns):
        raise ValueError(f"{len(given)} classes for {[len(column) for column in columns]} rows")
    if odd := set(given.tolist()) ^ set(shares):
        raise ValueError(f"classes must be all of {', '.join(shares)} and no others; these are not: {sorted(odd)}")
    found = {name: float(measure(*(column[given == name] for column in columns))) for name in shares}
    whole = sum(shares[name] * value for name, value in found.items()) / sum(shares.values())
    return {**found, "all": whole}


def _number(entry: Any) -> float:
    try:
        return float(entry)
    except (TypeError, ValueError):
        return math.nan
