"""A generative judge of single turns: it writes its principles, and ends with points out of a maximum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, last_tag, shown, text_of
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.core.spans import Spans

Judge = Callable[[Sequence[Mapping[str, Any]]], Sequence[str]]


def points(reply: str) -> float:
    """The share of points S/M that a judge's `<final_score>S,M</final_score>` gives.

    Raises:
        Abstain: if there is no such score, or not 0 ≤ S ≤ M with M > 0.

    Source: PPR (arXiv 2509.25598; Zhuohao-Li/ppr), which takes an unreadable judgement for 0.

    >>> points("principles: … <final_score>3, 4</final_score>")
    0.75
    """
    written = last_tag(reply, "final_score")
    try:
        score, most = (float(part) for part in (written or "").split(","))
    except ValueError:
        score = most = math.nan
    if not (0 <= score <= most and 0 < most < math.inf):
        raise Abstain(f"the judge gave no points out of a maximum: {shown(reply)}")
    return score / most


@reward(lane="batch", level="step", range=(0, 1))
def judged_turns(rollouts: Rollouts, *, judge: Judge, last: bool = False) -> Scores:
    """How good each turn of an agent is by itself, as a judge says who has seen what came before it.

    Args:
        rollouts: chats; a completion that is text is one turn.
        judge: a function from questions to replies, which `points` reads. A question is a mapping with 'prompt',
            'before' (the completion's messages up to the turn) and 'turn' (its text).
        last: also judge the last turn, the answer, which the outcome is there for.

    Returns:
        One score per judged turn, with spans in characters of the completion's text. A turn that says nothing gets
        0 unasked; a rollout whose judgement cannot be read abstains at that turn.

    Source: PPR (arXiv 2509.25598), r_p; with the outcome by `credit.renormalize`.
    """
    asked: list[Mapping[str, Any]] = []
    places: list[tuple[int, int]] = []
    spans: list[list[tuple[int, int]]] = []
    for row, (prompt, completion) in enumerate(zip(rollouts.prompts, rollouts.column("completion"), strict=True)):
        turns = _turns(completion)
        spans.append([])
        begin = 0
        for at, before, text in turns if last else turns[:-1]:
            if text.strip():
                places.append((row, len(spans[row])))
                asked.append({"prompt": prompt, "before": before, "turn": text})
            spans[row].append((begin, at))
            begin = at
    replies = list(judge(asked)) if asked else []
    if len(replies) != len(asked):
        raise Abstain(f"the judge gave {len(replies)} replies to {len(asked)} questions")
    steps = Spans.of(spans, unit="character")
    values, valid = np.zeros(steps.mask.shape), np.array(steps.mask)
    reasons: dict[int, str] = {}
    for (row, step), reply in zip(places, replies, strict=True):
        try:
            values[row, step] = points(reply)
        except Abstain as error:
            valid[row, step] = False
            reasons.setdefault(row, f"turn {step}: {error}")
    return Scores(values, valid=valid, spans=steps, reasons=reasons)


def _turns(completion: Completion) -> list[tuple[int, Sequence[Mapping[str, Any]], str]]:
    """Where each turn of the assistant ends in the text of all, the messages before it, and its own text."""
    if isinstance(completion, str):
        return [(len(completion), (), completion)]
    return [
        (len(text_of(completion[: i + 1])), completion[:i], text_of(completion[i : i + 1]))
        for i, message in enumerate(completion)
        if message.get("role", "assistant") == "assistant"
    ]
