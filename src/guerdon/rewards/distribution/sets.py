"""Rewards of sets: of each rollout's own vectors, of its group's, or of the whole batch's."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.algebra import reward
from guerdon.core.arrays import to_numpy
from guerdon.core.errors import Abstain, GuerdonError
from guerdon.core.parsing import shown
from guerdon.core.protocols import Range
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.rewards.distribution.measures import (
    Gaussian,
    fitted,
    frechet_distance,
    gaussian,
    kernel_distance,
    likeness,
    transport_distance,
    vendi_score,
)

Measure = Literal["frechet", "kernel", "transport", "vendi"]
Share = Literal["whole", "left_out"]
Value = Callable[[Float[Tensor, "*n m d"]], Float[Tensor, "*n"]]

CHUNK = 1 << 24  # numbers in the sets that are measured at once

_MEASURES: Mapping[str, Callable[..., Tensor]] = {
    "frechet": frechet_distance,
    "kernel": kernel_distance,
    "transport": transport_distance,
}


def _range(measure: Measure, share: Share = "whole", **options: Any) -> Range:
    if share == "left_out":
        return (-math.inf, math.inf)
    return (1.0, math.inf) if measure == "vendi" else (-math.inf, 0.0)


def _checked(measure: Measure, reference: Any, column: str, **options: Any) -> tuple[str, ...]:
    if (reference is None) != (measure == "vendi"):
        needs = "compares with a reference" if reference is None else "has no reference: it is of the set alone"
        raise ValueError(f"{measure} {needs}")
    return (column,)


def _column(column: str, **options: Any) -> tuple[str, ...]:
    return (column,)


def set_value(measure: Measure, reference: Any = None, **options: Any) -> Value:
    """The reward of sets: minus a distance from a reference set, or how varied a set is.

    Args:
        measure: 'frechet', 'kernel' or 'transport', of the functions `frechet_distance`, `kernel_distance` and
            `transport_distance`; or 'vendi'.
        reference: the set to be like, (k, d); for 'frechet' also (mean, covariance); or the path of an `.npy` file of
            the one or an `.npz` file of both, `mu` and `sigma`. None for 'vendi'.
        options: of the function.

    Returns:
        A function from sets "*n m d" to rewards "*n", higher for better.

    Raises:
        GuerdonError: if a file cannot be read.
        ValueError: if the reference is unusable, or missing.

    Source: DRAGON (arXiv 2504.15217).

    >>> round(float(set_value("vendi")(torch.eye(2))), 9)
    2.0
    """
    _checked(measure, reference, "")
    if measure == "vendi":
        return functools.partial(vendi_score, **options)
    if measure not in _MEASURES:
        raise ValueError(f"measure is one of {', '.join(_MEASURES)} and vendi, got {measure!r}")
    known = _loaded(reference) if isinstance(reference, (str, Path)) else reference
    if measure != "frechet":
        known = torch.as_tensor(np.asarray(to_numpy(known), np.float64))
    elif not isinstance(known, Gaussian):
        pair = isinstance(known, tuple) and len(known) == 2
        known = gaussian(*known) if pair else fitted(np.asarray(to_numpy(known), np.float64))
    return lambda sets: -_MEASURES[measure](sets, known, **options)


@reward(lane="batch", range=_range, columns=_column, requires=_checked)
def own(
    entries: Sequence[Any],
    *,
    measure: Measure = "frechet",
    reference: Any = None,
    encoder: Callable[[Sequence[Any]], Sequence[Any]] | None = None,
    column: str = "completion",
    options: Mapping[str, Any] | None = None,
) -> Scores:
    """The reward of each rollout as a set of its own: the chunks of a song, the frames of a film.

    Of 'frechet' this is the negative FAD per song: a single rollout against a whole reference set.

    Args:
        entries: of each rollout its vectors, (m, d), or what an encoder makes them of.
        measure, reference, options: see `set_value`.
        encoder: from all entries to as many sets (m, d), which may differ in m.
        column: their name.

    Returns:
        Minus the distance, at most 0; of 'vendi' at least 1. What is no set of finite vectors, or too small a one, is
        an abstention: a distance has no lowest score to give it.

    Raises:
        Abstain: of all rows, if the encoder gives anything else.
        ValueError: at once, if a distance has no reference, or 'vendi' one.

    >>> from guerdon.rewards import distribution
    >>> part = distribution.own(reference=([0.0], [[2.0]]), column="chunks")
    >>> part(["?"] * 2, [""] * 2, chunks=[[[0.0], [2.0]], [[1.0]]])
    [-1.0, None]

    Source: instance-to-distribution rewards of DRAGON (arXiv 2504.15217).
    """
    value = set_value(measure, reference, **(options or {}))
    found, reasons = _read(entries, encoder, 2)
    values = np.zeros(len(entries))
    for size in sorted({len(x) for x in found.values()}):
        rows = [row for row, x in found.items() if len(x) == size]
        _measured(value, [(row, found[row]) for row in rows], values, reasons)
    return Scores.of(values.tolist(), reasons=reasons)


@reward(lane="batch", unit="group", range=_range, requires=_checked)
def group(
    rollouts: Rollouts,
    *,
    measure: Measure = "vendi",
    reference: Any = None,
    share: Share = "left_out",
    encoder: Callable[[Sequence[Any]], Sequence[Any]] | None = None,
    column: str = "completion",
    options: Mapping[str, Any] | None = None,
) -> Scores:
    """The reward of each group's rollouts together, and what each of them adds to it.

        whole     v(S)                  left_out     v(S) − v(S ∖ {i})

    All rollouts of a set have one `whole`: no comparison within it says which to repeat. Left out, each has what the
    set would lose without it, which for a mean of single rewards is that reward's distance from the others' mean.

    Args:
        rollouts: each with one vector, or what an encoder makes it of.
        measure, reference, options: see `set_value`.
        share: 'whole' or 'left_out'.
        encoder: from all entries to one row of numbers each.
        column: their name.

    Returns:
        One score per rollout. One without a vector abstains and is in no set; so does a set that is too small, and one
        of a single rollout if left out.

    Raises:
        Abstain, ValueError: as `own`.

    >>> from guerdon.rewards import distribution
    >>> part = distribution.group(column="seen")
    >>> [round(x, 2) for x in part(["?"] * 3, [""] * 3, seen=[[1, 0], [1, 0], [0, 1]])]
    [-0.11, -0.11, 0.89]

    Source: distribution-to-distribution rewards of DRAGON (arXiv 2504.15217), which builds pairs of sets from them;
    shares left out are ours, for policies that are compared within a group.
    """
    return _together(rollouts, np.asarray(rollouts.groups), measure, reference, share, encoder, column, options)


@reward(lane="batch", unit="batch", range=_range, requires=_checked)
def batch(
    rollouts: Rollouts,
    *,
    measure: Measure = "frechet",
    reference: Any = None,
    share: Share = "left_out",
    encoder: Callable[[Sequence[Any]], Sequence[Any]] | None = None,
    column: str = "completion",
    options: Mapping[str, Any] | None = None,
) -> Scores:
    """The reward of all rollouts of a batch together, and what each of them adds to it; see `group`.

    Args:
        rollouts, measure, reference, share, encoder, column, options: see `group`.

    Returns:
        As `group`.

    Raises:
        Abstain, ValueError: as `own`.

    >>> from guerdon.rewards import distribution
    >>> part = distribution.batch(reference=([0.0], [[2.0]]), share="whole", column="seen")
    >>> part(["a", "b"], [""] * 2, seen=[[0.0], [2.0]])
    [-1.0, -1.0]

    Source: distribution-to-distribution rewards of DRAGON (arXiv 2504.15217).
    """
    return _together(rollouts, np.zeros(len(rollouts), np.int64), measure, reference, share, encoder, column, options)


def _exemplars(references: str, exemplars: Any, column: str, **options: Any) -> tuple[str, ...]:
    if (exemplars is None) == (not references):
        raise ValueError("exemplar is near to exemplars, or to what a column of references holds: name one of them")
    return (column, references) if references else (column,)


@reward(lane="batch", range=(-1, 1), requires=_exemplars)
def exemplar(
    rollouts: Rollouts,
    *,
    exemplars: Any = None,
    references: str = "",
    how: Literal["max", "mean"] = "max",
    encoder: Callable[[Sequence[Any]], Sequence[Any]] | None = None,
    mapping: Callable[[Float[Tensor, "n d"]], Float[Tensor, "n e"]] | None = None,
    column: str = "completion",
) -> Scores:
    """How near a rollout's vector is to the nearest of some exemplars, or to all of them: a cosine.

    Args:
        rollouts: each with one vector, or what an encoder makes it of.
        exemplars: vectors, the same for all rows.
        references: the column of each row's own exemplars, one or several vectors.
        how: see `likeness`.
        encoder: from entries to one row of numbers each; it reads the references too, unless they are vectors.
        mapping: of exemplars into the space of the rollouts, such as a `TransportMap` from texts to films.
        column: of the rollouts.

    Returns:
        One score per rollout; without a vector, or without exemplars, an abstention.

    Raises:
        Abstain: of all rows, if exemplars for all cannot be used.
        ValueError: at once, unless there are either exemplars or references.

    >>> from guerdon.rewards import distribution
    >>> part = distribution.exemplar(references="liked", column="seen")
    >>> part(["?"] * 2, [""] * 2, seen=[[2.0, 0.0]] * 2, liked=[[[1.0, 0.0], [0.0, 1.0]], [0.0, 1.0]])
    [1.0, 0.0]

    Source: max_m cos(f(x), f(ref_m)), with which Adv-GRPO compares (arXiv 2511.20556); exemplars across modalities:
    DRAGON (2504.15217); the quality reward of PISCES (2602.01624) is a mapped text.
    """
    entries = list(rollouts.column(column))
    found, reasons = _read(entries, encoder, 1)
    examples: dict[int, Any] = {}
    if references:
        for row, entry in enumerate(rollouts.column(references)):
            try:
                examples[row] = np.atleast_2d(_array(entry, None))
            except ValueError as problem:
                reasons.setdefault(row, f"no exemplars: {problem}")
    else:
        try:
            shared = np.atleast_2d(_array(exemplars, None))
        except ValueError as problem:
            raise Abstain(f"exemplars not usable: {problem}") from None
        examples = dict.fromkeys(range(len(entries)), shared)
    values = np.zeros(len(entries))
    for row in [row for row in found if row in examples and row not in reasons]:
        target = torch.as_tensor(examples[row])
        try:
            with torch.no_grad():
                near = target if mapping is None else mapping(target.float())
            values[row] = float(likeness(found[row], near, how=how))
        except ValueError as problem:
            reasons[row] = str(problem)
    return Scores.of(values.tolist(), reasons=reasons)


def _together(
    rollouts: Rollouts,
    groups: Any,
    measure: Measure,
    reference: Any,
    share: Share,
    encoder: Any,
    column: str,
    options: Mapping[str, Any] | None,
) -> Scores:
    value = set_value(measure, reference, **(options or {}))
    found, reasons = _read(list(rollouts.column(column)), encoder, 1)
    if len({len(x) for x in found.values()}) > 1:
        raise Abstain("vectors of one space have one length, these have several")
    values = np.zeros(len(rollouts))
    for number in dict.fromkeys(groups.tolist()):
        rows = [int(row) for row in np.flatnonzero(groups == number) if int(row) in found]
        if not rows:
            continue
        whole = np.stack([found[row] for row in rows])
        _measured(value, [(rows, whole)], values, reasons)
        if share == "whole" or rows[0] in reasons:
            continue
        if len(rows) == 1:
            reasons[rows[0]] = "the only rollout of its set: nothing is left without it"
            continue
        rest = np.zeros(len(rollouts))
        _measured(value, [(row, np.delete(whole, i, 0)) for i, row in enumerate(rows)], rest, reasons)
        values[rows] -= rest[rows]
    return Scores.of(values.tolist(), reasons=reasons)


def _measured(value: Value, sets: list[tuple[Any, Any]], values: Any, reasons: dict[int, str]) -> None:
    """Write the values of sets of one size at their rows; where they cannot be measured, why."""
    size = max(1, CHUNK // max(1, sets[0][1].size))
    for start in range(0, len(sets), size):
        some = sets[start : start + size]
        try:
            with torch.no_grad():
                found = value(torch.as_tensor(np.stack([x for _, x in some])))
            for (rows, _), number in zip(some, found.tolist(), strict=True):
                values[rows] = number
        except ValueError as problem:
            if len(some) > 1:  # one of them: find it
                for each in some:
                    _measured(value, [each], values, reasons)
                continue
            for row in np.atleast_1d(some[0][0]).tolist():
                reasons[row] = str(problem)


def _read(entries: Sequence[Any], encoder: Any, axes: int) -> tuple[dict[int, Any], dict[int, str]]:
    """The array of each row that has one of so many axes, and why others have none."""
    if encoder is not None:
        entries = list(encoder(entries))
    found: dict[int, Any] = {}
    reasons: dict[int, str] = {}
    for row, entry in enumerate(entries):
        try:
            found[row] = _array(entry, axes)
        except ValueError as problem:
            reasons[row] = str(problem)
    return found, reasons


def _array(entry: Any, axes: int | None) -> Float[np.ndarray[Any, Any], "*n d"]:
    try:
        array = np.asarray(to_numpy(entry), np.float64)
    except (TypeError, ValueError):
        array = np.zeros(0)
    what = "a set of vectors (m, d)" if axes == 2 else "a vector"
    if array.ndim not in ((axes,) if axes else (1, 2)) or not array.size:
        raise ValueError(f"not {what}: {shown(entry)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} is not finite")
    return array


@functools.lru_cache(maxsize=4)
def _loaded(path: str | Path) -> Any:
    try:
        data = np.load(path, allow_pickle=False)
        return (data["mu"], data["sigma"]) if hasattr(data, "files") else data
    except (OSError, ValueError, KeyError) as error:
        raise GuerdonError(f"the reference {str(path)!r} cannot be read: {error}") from error
