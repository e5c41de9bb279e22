"""Prefixes of rollouts, and what they are worth by completing them: labels for process reward and value models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.core.arrays import to_numpy
from guerdon.core.parsing import text_of
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.core.spans import Spans

Complete = Callable[[Rollouts], Sequence[str]]  # what follows each of the completions, which are unfinished
Verify = Callable[[Rollouts], Scores]  # a reward's `score`


@dataclass(frozen=True, eq=False)
class PrefixValues:
    """Estimates of success at the boundaries of the steps of each rollout.

    Args:
        values: Float["n s+1"], the share of completions that are right: before the first step, and after each; 0 where
            it is not known. These are the potentials that `credit.progress` takes.
        valid: Bool["n s+1"], where it is known: the boundary exists and some completion could be verified.
        samples: Int["n s+1"], of so many verified completions.
    """

    values: Float[np.ndarray[Any, Any], "n s+1"]
    valid: Bool[np.ndarray[Any, Any], "n s+1"]
    samples: Int[np.ndarray[Any, Any], "n s+1"]

    @property
    def steps(self) -> Bool[np.ndarray[Any, Any], "n s"]:
        """Steps whose value is known before and after: the mask of `credit.progress`."""
        return np.asarray(self.valid[:, 1:] & self.valid[:, :-1], bool)


def prefix_values(
    rollouts: Rollouts, steps: Spans, complete: Complete, verify: Verify, *, samples: int = 8, above: float = 0.5
) -> PrefixValues:
    """Complete every prefix of every rollout so many times and count how often the answer is right.

    A budget of labels is spent on more seed rollouts per prompt (rows of `rollouts`) or on more completions of each:
    a small one is better spent on seeds, which cover more prefixes, a large one on completions, which are less noisy.
    A prefix that several rollouts of a prompt share, such as the empty one, is completed once for all of them. A
    rollout to its end is its own completion, once.

    Args:
        rollouts: the seeds; text completions, with the columns that `verify` reads.
        steps: where their steps are, in characters; of `core.spans.split`.
        complete: continues texts; of the policy whose success is asked for, which need not be that of the seeds.
        verify: scores whole rollouts. Where it abstains, the completion does not count.
        samples: completions of each prefix. The source varies it.
        above: a score above it is right.

    Raises:
        ValueError: if the spans are not in characters or not of these rollouts, or samples < 1; or if `complete` or
            `verify` gives another number of results than it was asked for.

    Source: the Monte Carlo labels of PAV (arXiv 2410.08146), n_cov seeds and n_mc completions.
    """
    if steps.unit != "character" or len(steps) != len(rollouts):
        raise ValueError(
            f"steps must be spans of characters of {len(rollouts)} rollouts, got {steps.unit}s of {len(steps)}"
        )
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    cuts: dict[tuple[str, str], list[tuple[int, int]]] = {}
    owners: list[int] = []
    ends: list[tuple[int, int]] = []
    for row, ranges in enumerate(steps.rows()):
        text = text_of(cast(Any, rollouts.completions[row]))
        for place, cut in enumerate([ranges[0][0] if ranges else 0, *(end for _, end in ranges)]):
            if place and cut >= len(text):
                ends.append((row, place))
                continue
            key = rollouts.ids[row], text[:cut]
            if key not in cuts:
                owners.append(row)
            cuts.setdefault(key, []).append((row, place))
    width = steps.mask.shape[1] + 1
    right, known = np.zeros((len(rollouts), width)), np.zeros((len(rollouts), width), np.int64)
    asked = [prefix for _, prefix in cuts for _ in range(samples)]
    begun = rollouts.select(np.repeat(np.array(owners, np.int64), samples)).with_(
        completions=asked, tokens=None, tree=None
    )
    wrote = complete(begun) if asked else []
    if len(wrote) != len(asked):
        raise ValueError(f"complete gave {len(wrote)} continuations of {len(asked)} prefixes")
    whole = begun.with_(completions=[a + b for a, b in zip(asked, wrote, strict=True)])
    seeds = rollouts.select(np.array([row for row, _ in ends], np.int64))
    for batch, shared in (
        (whole, [places for places in cuts.values() for _ in range(samples)]),
        (seeds, [[place] for place in ends]),
    ):
        solved, scored = verified(batch, verify, above)
        for places, good, there in zip(shared, solved.tolist(), scored.tolist(), strict=True):
            for at in places:
                right[at] += good
                known[at] += there
    return PrefixValues(right / np.maximum(known, 1), known > 0, known)


def cut_prefixes(
    rollouts: Rollouts, steps: Spans, after: Int[np.ndarray[Any, Any], "n p"], *, stop: str = ""
) -> Rollouts:
    """What each rollout had come to after so many of its steps, p prefixes of each, one after the other.

    Prefixes of a prompt with equal texts are a group: what goes on from them is compared, and budgets that lie
    beyond the end of a rollout are one.

    Args:
        rollouts: text completions.
        steps: where their steps are, in characters.
        after: how many steps each prefix has; more than there are: all.
        stop: put behind the cut, where what follows is not to go on thinking; the policy did not write it.

    Raises:
        ValueError: if the spans are not in characters or not of these rollouts, or a number is negative.

    Source: prefixes of random numbers of episodes, from which MRT (arXiv 2503.07572) branches, and the thoughts that
    AnytimeReasoner (2505.13438) truncates at budgets.

    >>> cut_prefixes(Rollouts(["q"], ["abc"]), Spans.of([[(0, 1), (1, 3)]], unit="character"), [[0, 1, 9]]).completions
    ['', 'a', 'abc']
    """
    after = np.asarray(after)
    if steps.unit != "character" or len(steps) != len(rollouts):
        raise ValueError(
            f"steps must be spans of characters of {len(rollouts)} rollouts, got {steps.unit}s of {len(steps)}"
        )
    if after.ndim != 2 or len(after) != len(rollouts) or (after < 0).any():
        raise ValueError(f"after must be ({len(rollouts)}, p), at least 0, got {after.shape}")
    texts: list[str] = []
    for row, (ranges, counts) in enumerate(zip(steps.rows(), after.tolist(), strict=True)):
        text = text_of(cast(Any, rollouts.completions[row]))
        ends = [ranges[0][0] if ranges else 0, *(end for _, end in ranges)]
        texts += [text[: ends[min(count, len(ranges))]] for count in counts]
    cut = rollouts.select(np.repeat(np.arange(len(rollouts)), after.shape[1]))
    known: dict[tuple[str, str], int] = {}
    groups = [known.setdefault(key, len(known)) for key in zip(cut.ids, texts, strict=True)]
    return cut.with_(
        completions=[text + stop for text in texts], groups=np.array(groups, np.int64), tokens=None, tree=None
    )


def first_drop(
    values: Float[np.ndarray[Any, Any], "n s+1"],
    mask: Bool[np.ndarray[Any, Any], "n s"],
    *,
    high: float = 0.5,
    low: float = 0.25,
) -> Int[np.ndarray[Any, Any], "n"]:
    """The first step that takes a rollout from likely to succeed to unlikely: the prefixes before and after it are the
    pair that tells a process reward model most.

    Args:
        values: success before the first step and after each; `PrefixValues.values`.
        mask: steps whose value is known before and after; `PrefixValues.steps`.
        high: at least this before the step. The source gives neither number.
        low: at most this after it.

    Returns:
        The number of the step, −1 where there is none.

    Raises:
        ValueError: if the shapes do not fit, a value is not finite, or low ≥ high.

    Source: the first-drop pairs of PAV (arXiv 2410.08146).

    >>> first_drop(np.array([[0.6, 0.75, 0.1, 0.0]]), np.ones((1, 3), bool))
    array([1])
    """
    values, mask = np.asarray(values, np.float64), np.asarray(mask, bool)
    if values.ndim != 2 or mask.shape != (len(values), values.shape[1] - 1):
        raise ValueError(f"values {values.shape} need one column more than mask {mask.shape}")
    if not low < high:
        raise ValueError(f"low must be below high, got {low} and {high}")
    before, after = values[:, :-1], values[:, 1:]
    if not (np.isfinite(before[mask]) & np.isfinite(after[mask])).all():
        raise ValueError("values has a number that is not finite beside a step that mask counts")
    hit = mask & (before >= high) & (after <= low)
    return np.where(hit.any(1), hit.argmax(1), -1) if hit.shape[1] else np.full(len(hit), -1)


def verified(
    rollouts: Rollouts, verify: Verify, above: float
) -> tuple[Bool[np.ndarray[Any, Any], "n"], Bool[np.ndarray[Any, Any], "n"]]:
    """Which rollouts are right, and of which that is known.

    Raises:
        ValueError: if there is not one score per rollout.
    """
    if not len(rollouts):
        return np.zeros(0, bool), np.zeros(0, bool)
    scores = verify(rollouts)
    if len(scores) != len(rollouts) or scores.level != "rollout":
        raise ValueError(f"verify must give one score per rollout, {len(rollouts)}, got {scores!r}")
    valid = to_numpy(scores.valid)
    return valid & (to_numpy(scores.read(0.0)) > above), valid
