"""A judge that goes through a list: which points of a rubric a reply meets, which subgoals a transition reaches."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, Passage, passage, read_json, shown, text_of
from guerdon.core.scores import Scores

Reply = str | Sequence[Any]
Judge = Callable[[Sequence[Mapping[str, Any]]], Sequence[Reply]]

_LIST = re.compile(r"\[[^\[\]]*\]")
_MARK = re.compile(r"\W*(?:\d+\s*[.:)]\s*)?\W*(yes|no|true|false|[01])\W*", re.IGNORECASE)
_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+(.*\S)\s*$", re.MULTILINE)


def marks(reply: Reply, count: int) -> list[bool]:
    """What a judge says of each entry of a list: yes or no.

    Args:
        reply: truth values; or a text whose last `[…]` holds 1 and 0, yes and no or true and false, or that has one
            of these on each line, numbered or not.
        count: how many entries there are. A reply with another number is about another list.

    Raises:
        Abstain: if it cannot be read, or has another number of marks.

    Source: the judge of UniGenBench (CodeGoat24/UniGenBench), a list of 0 and 1; yes and no: CALM (arXiv 2409.12798).

    >>> marks("The key is there, the door is shut: [1, 0]", 2), marks("1. yes\\n2. no", 2)
    ([True, False], [True, False])
    """
    said: list[Any] = list(reply) if not isinstance(reply, str) else []
    if isinstance(reply, str):
        lists = _LIST.findall(reply)
        said = lists[-1][1:-1].split(",") if lists else [line for line in reply.splitlines() if line.strip()]
    found = [_MARK.fullmatch(str(mark).strip()) for mark in said]
    if len(found) != count or not all(found):
        raise Abstain(f"the judge gave no {count} marks: {shown(reply)}")
    return [mark[1].lower() in ("yes", "true", "1") for mark in found if mark]


def listed(reply: str) -> list[str]:
    """The entries of a list that a model wrote, such as the subgoals of a task: a JSON list, or one on each line.

    Raises:
        Abstain: if there is no list in it.

    Source: the decomposition into subgoals of CALM (arXiv 2409.12798).

    >>> listed("To leave the room:\\n1. pick up the key\\n2. unlock the door")
    ['pick up the key', 'unlock the door']
    """
    entries: list[Any] = _ITEM.findall(reply)
    if lists := _LIST.findall(reply):
        try:
            entries = read_json(lists[-1])
        except ValueError:
            entries = entries or []
    found = list(dict.fromkeys(entry.strip() for entry in entries if isinstance(entry, str) and entry.strip()))
    if not found:
        raise Abstain(f"there is no list: {shown(reply)}")
    return found


@reward(lane="batch", range=(0, 1))
def checklist(
    prompt: Sequence[Completion],
    completion: Sequence[Completion],
    points: Sequence[Any],
    *,
    judge: Judge,
    credit: Literal["share", "all"] = "share",
    within: Passage = "reply",
) -> Scores:
    """How many points of its row's list a reply meets, as a judge says.

    As a hard condition rather than a part of the sum, write `gate(checklist(credit="all", …), then=…)`: what is
    rejected then earns nothing by being good otherwise.

    Args:
        prompt: what was asked.
        completion: the reply: text or chat messages.
        points: the texts of the points: a list, or its JSON text.
        judge: a function from questions to replies, which `marks` reads. A question is a mapping with 'prompt',
            'reply' and 'points'.
        credit: 'share' of the points that are met; 'all' wants every one.
        within: see `text.exact`. The reasoning is not what is judged.

    Returns:
        One score per rollout; details: 'met', the mark of each point. A reply that says nothing meets none, unasked;
        a row without points, or whose judgement cannot be read, abstains.

    Source: the test points of UniGenBench (arXiv 2508.20751; CodeGoat24/UniGenBench); with credit='all' the hard
    rubric checks on final answers of DRO (2506.13351).
    """
    lists = [_points(entry) for entry in points]
    replies = [(passage(text_of(spoken), within) or "").strip() for spoken in completion]
    rows = [row for row, reply in enumerate(replies) if lists[row] and reply]
    asked = [{"prompt": prompt[row], "reply": replies[row], "points": lists[row]} for row in rows]
    met: list[list[bool] | None] = [[False] * len(wanted) if wanted else None for wanted in lists]
    reasons = {row: f"points is not a list of texts: {shown(points[row])}" for row in range(len(met)) if not lists[row]}
    for row, said in zip(rows, _replies(judge, asked), strict=True):
        try:
            met[row] = marks(said, len(lists[row]))
        except Abstain as error:
            met[row], reasons[row] = None, str(error)
    scores = [None if m is None else float(all(m)) if credit == "all" else sum(m) / len(m) for m in met]
    return Scores.of(scores, reasons=reasons, details={"met": met})


def tally(names: Sequence[Sequence[str]], met: Sequence[Sequence[bool] | None]) -> dict[str, tuple[int, int]]:
    """How often each kind of point is met, of how many: a benchmark's table.

    Args:
        names: of each row's points: 'Primary - Sub', or 'Primary' alone.
        met: the detail of `checklist`; rows with None are skipped.

    Returns:
        Met and all, for each primary and each full name.

    Raises:
        ValueError: if a row has another number of names than of marks.

    Source: UniGenBench (CodeGoat24/UniGenBench, eval/src/eval_common.py), 10 primary and 27 sub points.

    >>> tally([["Style", "Layout - Two objects"], ["Layout - Depth"]], [[True, False], [True]])
    {'Style': (1, 1), 'Layout': (1, 2), 'Layout - Two objects': (0, 1), 'Layout - Depth': (1, 1)}
    """
    table: dict[str, tuple[int, int]] = {}
    for row, (kinds, said) in enumerate(zip(names, met, strict=True)):
        if said is not None and len(said) != len(kinds):
            raise ValueError(f"row {row} has {len(kinds)} names and {len(said)} marks")
        for kind, mark in zip(kinds, said or (), strict=False):
            for name in dict.fromkeys((kind.split(" - ")[0], kind)):
                good, total = table.get(name, (0, 0))
                table[name] = good + bool(mark), total + 1
    return table


@dataclass(frozen=True, eq=False)
class Achieved:
    """What a judge says of the transitions of some episodes.

    Args:
        reached: Bool["n s m"], whether each of `m` subgoals was reached on each transition; False where not known.
        mask: Bool["n s"], True where there is a transition whose judgement could be read.
        reasons: for (episode, transition) that could not be judged, why.
    """

    reached: Bool[np.ndarray[Any, Any], "n s m"]
    mask: Bool[np.ndarray[Any, Any], "n s"]
    reasons: Mapping[tuple[int, int], str]


def achieved(
    episodes: Sequence[Sequence[Mapping[str, Any]]],
    subgoals: Sequence[str] | Sequence[Sequence[str]],
    *,
    judge: Judge,
) -> Achieved:
    """Which subgoals each transition of some episodes reaches, as a judge says who is shown nothing else.

    `credit.subgoal_bonus` and `credit.subgoal_potential` take it, and `agreement` says how good the judge is.

    Args:
        episodes: of each, its transitions, as mappings with what the judge is to see: 'before' and 'after', with the
            'action' or without, of the whole map or of what is near; `transitions` has those of rollouts.
        subgoals: given, or `listed` by a model that was shown the task; or a list of them for each episode, of which
            one with an empty list is not judged.
        judge: a function from questions to replies, which `marks` reads. A question is the transition with 'subgoals'
            beside what it has.

    Raises:
        ValueError: if there is no subgoal, no list for each episode, or the judge gives another number of replies.

    Source: CALM (arXiv 2409.12798): no examples, no fine-tuning.

    >>> judge = lambda asked: [[goal in question["after"] for goal in question["subgoals"]] for question in asked]
    >>> achieved([[{"after": "a key"}, {"after": "a hall"}]], ["key", "door"], judge=judge).reached
    array([[[ True, False],
            [False, False]]])
    """
    if not subgoals:
        raise ValueError("subgoals are empty: there is nothing to judge by")
    shared = [goal for goal in subgoals if isinstance(goal, str)]
    lists = [shared] * len(episodes) if shared else [list(goals) for goals in subgoals]
    if len(lists) != len(episodes) or len(shared) not in (0, len(subgoals)):
        raise ValueError(f"subgoals are texts, or {len(episodes)} lists of them, one for each episode; got {subgoals}")
    places = [(row, step) for row, episode in enumerate(episodes) if lists[row] for step in range(len(episode))]
    asked = [{**episodes[row][step], "subgoals": list(lists[row])} for row, step in places]
    replies = list(judge(asked)) if asked else []
    if len(replies) != len(asked):
        raise ValueError(f"the judge gave {len(replies)} replies to {len(asked)} questions")
    shape = len(episodes), max(map(len, episodes), default=0)
    most = max(map(len, lists), default=len(shared))
    reached, mask = np.zeros((*shape, most), bool), np.zeros(shape, bool)
    reasons: dict[tuple[int, int], str] = {}
    for place, reply in zip(places, replies, strict=True):
        try:
            said = marks(reply, len(lists[place[0]]))
        except Abstain as error:
            reasons[place] = str(error)
        else:
            reached[(*place, slice(len(said)))], mask[place] = said, True
    return Achieved(reached, mask, reasons)


class Agreement(NamedTuple):
    """How far a judge agrees with labels, for each of `m` questions; 0 where nothing is there to divide by.

    Args:
        accuracy: (tp + tn) / all. Where positives are rare, a judge who never says yes has nearly 1.
        precision: tp / (tp + fp).
        recall: tp / (tp + fn).
        f1: 2 tp / (2 tp + fp + fn): the one to look at first.
        judged: how many judgements there are.
    """

    accuracy: Float[np.ndarray[Any, Any], "m"]
    precision: Float[np.ndarray[Any, Any], "m"]
    recall: Float[np.ndarray[Any, Any], "m"]
    f1: Float[np.ndarray[Any, Any], "m"]
    judged: Int[np.ndarray[Any, Any], "m"]


def agreement(
    said: Bool[np.ndarray[Any, Any], "*shape m"],
    truth: Bool[np.ndarray[Any, Any], "*shape m"],
    mask: Bool[np.ndarray[Any, Any], "*shape"] | None = None,
) -> Agreement:
    """Accuracy, precision, recall and F1 of a judge, for each subgoal, or for the one question there is.

    Args:
        said: what the judge says: of `achieved`, or scores of turns above a threshold.
        truth: the labels.
        mask: True where there is a judgement and a label; by default everywhere.

    Raises:
        ValueError: if the shapes do not fit.

    Source: the evaluation of CALM (arXiv 2409.12798); NVProcessBench of PPR (2509.25598) is its accuracy.

    >>> said, truth = np.zeros((100, 1), bool), np.arange(100)[:, None] < 5
    >>> found = agreement(said, truth)
    >>> float(found.accuracy[0]), float(found.f1[0])
    (0.95, 0.0)
    """
    if said.shape != truth.shape or not said.ndim or (mask is not None and mask.shape != said.shape[:-1]):
        shapes = said.shape, truth.shape, None if mask is None else mask.shape
        raise ValueError(f"said and truth need one shape (…, m) and mask that without m, got {shapes}")
    there = np.ones(said.shape[:-1], bool) if mask is None else mask
    yes, right = said[there].astype(bool), truth[there].astype(bool)
    both, either_, equal = (yes & right).sum(0), yes.sum(0) + right.sum(0), (yes == right).sum(0)
    count = np.full(said.shape[-1], len(yes))

    def share(part: Any, whole: Any) -> Float[np.ndarray[Any, Any], "m"]:
        return np.asarray(part / np.maximum(whole, 1), float)

    return Agreement(
        share(equal, count), share(both, yes.sum(0)), share(both, right.sum(0)), share(2 * both, either_), count
    )


def _points(entry: Any) -> list[str]:
    """The points of a row; none if they cannot be read."""
    if isinstance(entry, str):
        try:
            entry = read_json(entry)
        except ValueError:
            return []
    if isinstance(entry, np.ndarray):
        entry = entry.tolist()
    usable = isinstance(entry, list | tuple) and all(isinstance(point, str) and point.strip() for point in entry)
    return list(entry) if usable else []


def _replies(judge: Judge, asked: Sequence[Mapping[str, Any]]) -> list[Reply]:
    replies = list(judge(asked)) if asked else []
    if len(replies) != len(asked):
        raise Abstain(f"the judge gave {len(replies)} replies to {len(asked)} questions")
    return replies
