"""Subgoals as a reward of steps: a judge says which of them a step achieves, and each is paid once."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch

from guerdon.algebra import reward
from guerdon.core.arrays import to_numpy
from guerdon.core.errors import Abstain
from guerdon.core.parsing import shown
from guerdon.core.protocols import Range
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.core.spans import Spans
from guerdon.credit import subgoal_bonus
from guerdon.models.list_judge import Judge, achieved, listed
from guerdon.models.steps import How, cut_of, transitions

Pay = Literal["once", "always", "potential"]


def _reads(subgoals: str | tuple[str, ...], weights: tuple[float, ...], cut: How, **options: Any) -> set[str]:
    if isinstance(subgoals, str):
        if not subgoals or weights:
            raise ValueError(
                "weights are of subgoals that are named here: a column's are weighted alike, and it has a name"
            )
    elif not subgoals or len(set(subgoals)) != len(subgoals) or not all(text.strip() for text in subgoals):
        raise ValueError(f"subgoals are distinct texts, at least one, or the name of a column; got {subgoals}")
    elif weights and not (len(weights) == len(subgoals) and all(0 < weight < math.inf for weight in weights)):
        raise ValueError(f"weights: one positive number for each of {len(subgoals)} subgoals, got {weights}")
    column = {subgoals} if isinstance(subgoals, str) else set()
    return {"prompt", "completion"} | column | cut_of(cut).requires


def _range(subgoals: str | tuple[str, ...], weights: tuple[float, ...], pay: Pay, **options: Any) -> Range:
    most = math.inf if isinstance(subgoals, str) else math.fsum(weights) if weights else float(len(subgoals))
    return (0.0, 1.0 if pay == "potential" else most)


@reward(lane="batch", level="step", range=_range, requires=_reads)
def subgoal_rewards(
    rollouts: Rollouts,
    *,
    judge: Judge,
    subgoals: str | tuple[str, ...] = "subgoals",
    weights: tuple[float, ...] = (),
    pay: Pay = "once",
    cut: How = "turns",
) -> Scores:
    r"""What each step earns for the subgoals that it achieves, as a judge of single steps says.

        once       Σ_g w_g 1[g achieved at this step, and at none before it]
        potential  Σ_g w_g 1[g achieved so far] / Σ_g w_g, before the first step (an empty one) and after each

    `credit.returns` hands a step what follows from it; a potential goes through `credit.progress` first, and the best
    policy then stays the best.

    Args:
        rollouts: chats or texts, with the column of subgoals if one is named.
        judge: a function from questions to replies, which `marks` reads. A question is one of `transitions` with
            'subgoals' beside what it has.
        subgoals: their texts; or the name of a column that has them for each row: a list, or the list that a model
            wrote when it was shown the task, which `listed` reads.
        weights: one for each text, in the unit of the reward; by default 1 each.
        pay: 'once'; 'always', also when a subgoal is achieved again: a loop that drops a key to pick it up again then
            collects for ever; or as a 'potential'.
        cut: how a completion is cut into steps, as `probe.Cut` has it; 'turns' are an agent's.

    Returns:
        One score per step, with spans in characters of the completion's text; details: 'achieved', the subgoals that
        the judge marked at each step. A step whose marks cannot be read abstains, and unless each pays always, so do
        those behind it; a row without a list of subgoals abstains.

    Raises:
        ValueError: at once, for subgoals or weights that cannot be.

    Source: CALM (arXiv 2409.12798), where a subgoal pays every time; once, and the potential: ours.
    """
    episodes, spans = transitions(rollouts, cut)
    lists, reasons = _lists(rollouts, subgoals)
    said = achieved(episodes, lists, judge=judge)
    for (row, step), why in said.reasons.items():
        reasons.setdefault(row, f"step {step}: {why}")
    each = torch.tensor(weights or [1.0] * said.reached.shape[2], dtype=torch.float64)
    paid = to_numpy(
        subgoal_bonus(torch.as_tensor(said.reached), torch.as_tensor(said.mask), weights=each, once=pay != "always")
    )
    known = said.mask if pay == "always" else np.logical_and.accumulate(said.mask, axis=1)
    details = {
        "achieved": [
            [
                [goal for goal, there in zip(lists[row], marks, strict=False) if there]
                for marks in said.reached[row, :count]
            ]
            for row, count in enumerate(spans.counts)
        ]
    }
    if pay == "potential":
        whole = np.array([math.fsum(weights) if weights else max(1, len(wanted)) for wanted in lists])
        paid = np.insert(paid.cumsum(1) / whole[:, None], 0, 0.0, axis=1)
        known = np.insert(known, 0, [bool(wanted) for wanted in lists], axis=1)
        begin, end, mask = (np.insert(to_numpy(x), 0, 0, axis=1) for x in (spans.begin, spans.end, spans.mask))
        mask[:, 0] = True
        spans = Spans(begin, end, mask, spans.unit)
    return Scores(paid, valid=spans.mask & known, spans=spans, reasons=reasons, details=details)


def _lists(rollouts: Rollouts, subgoals: str | tuple[str, ...]) -> tuple[list[list[str]], dict[int, str]]:
    """The subgoals of each row, none where they cannot be read; and why not."""
    if not isinstance(subgoals, str):
        return [list(subgoals)] * len(rollouts), {}
    lists: list[list[str]] = []
    reasons: dict[int, str] = {}
    for row, entry in enumerate(rollouts.column(subgoals)):
        try:
            lists.append(_list(entry))
        except Abstain:
            lists.append([])
            reasons[row] = f"{subgoals} is not a list of texts: {shown(entry)}"
    return lists, reasons


def _list(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return listed(entry)
    entry = entry.tolist() if isinstance(entry, np.ndarray) else entry
    usable = isinstance(entry, list | tuple) and all(isinstance(text, str) and text.strip() for text in entry)
    if not usable or not entry:
        raise Abstain("there is no list")
    return list(dict.fromkeys(entry))
