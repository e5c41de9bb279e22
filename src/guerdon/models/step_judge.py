"""A generative judge of single turns: it writes its principles, and ends with points out of a maximum."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import last_tag, shown
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.core.spans import Spans
from guerdon.rewards.turns import turns_of

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


def _names(tags: tuple[str, ...], **options: Any) -> set[str]:
    for name in tags:
        if not re.fullmatch(r"[A-Za-z_][\w.-]*", name):
            raise ValueError(f"tags are names, as in ('think', 'search'), got {name!r}")
    return set()


@reward(lane="batch", level="step", range=(0, 1), requires=_names)
def judged_turns(
    rollouts: Rollouts,
    *,
    judge: Judge,
    last: Literal["left_out", "unasked", "judged"] = "left_out",
    tags: tuple[str, ...] = (),
) -> Scores:
    """How good each turn of an agent is by itself, as a judge says who has seen what came before it.

    With the outcome it makes PPR's reward of turns, for rewards that are added,

        judged = judged_turns(judge=…, last="unasked")
        (judged >> shaping.center(1.0) >> shaping.pin_last()) + broadcast(outcome, over=judged)

    and `credit.renormalize` is the same for tensors.

    Args:
        rollouts: chats; a completion that is text is one turn.
        judge: a function from questions to replies, which `points` reads. A question is a mapping with 'prompt',
            'before' (the completion's messages up to the turn) and 'turn' (its text).
        last: the last turn is the answer, which the outcome is there for: 'left_out', as if it were no step;
            'unasked', a step with 0, for the outcome to be put there; or 'judged' as any other.
        tags: if given, a turn that says anything outside of these tags gets 0 unasked.

    Returns:
        One score per judged turn, with spans in characters of the completion's text. A turn that says nothing gets
        0 unasked; a rollout whose judgement cannot be read abstains at that turn.

    Raises:
        ValueError: at once, if a tag is no name.

    Source: PPR (arXiv 2509.25598; Zhuohao-Li/ppr), r_p.
    """
    asked: list[Mapping[str, Any]] = []
    places: list[tuple[int, int]] = []
    spans: list[list[tuple[int, int]]] = []
    inside = re.compile("|".join(rf"<{name}>.*?</{name}>" for name in tags), re.DOTALL)
    for row, (prompt, completion) in enumerate(zip(rollouts.prompts, rollouts.column("completion"), strict=True)):
        turns = turns_of(completion)
        spans.append([])
        begin = 0
        for turn in turns[:-1] if last == "left_out" else turns:
            unasked = last == "unasked" and turn is turns[-1]
            if turn.text.strip() and not unasked and not (tags and inside.sub("", turn.text).strip()):
                places.append((row, len(spans[row])))
                asked.append({"prompt": prompt, "before": turn.before, "turn": turn.text})
            spans[row].append((begin, turn.end))
            begin = turn.end
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
