"""A judge of pairs as a reward: the rollouts of a group play a tournament."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from guerdon.algebra import reward
from guerdon.core.comparisons import Comparisons
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, last_tag, shown
from guerdon.core.scores import Scores
from guerdon.credit import rank

Verdict = str | float | Sequence[float] | None
Judge = Callable[[Sequence[Mapping[str, Any]]], Sequence[Verdict | Mapping[str, Verdict]]]
Schedule = Literal["win_rate", "round_robin", "bradley_terry", "anchor", "elimination", "double_elimination", "swiss"]

_BETTER = re.compile(r"\b([12])\W+is better", re.IGNORECASE)
_TIE = re.compile(r"\b(?:tie|equal|equally good)\b", re.IGNORECASE)


def preferred(verdict: Verdict) -> float:
    """What a judge of a pair said, as a margin: positive where the first is better, 0 for a tie.

    Args:
        verdict: a margin; the scores of the first and the second; or a text that ends in `<answer>…</answer>` with
            '1 is better', '2 is better' or 'tie' in it.

    Raises:
        Abstain: if it is none of these, says two things at once, or is not finite.

    Source: the verdicts of Pref-GRPO (arXiv 2508.20751; CodeGoat24/Pref-GRPO), and the two scores of ArenaRL
    (2601.06487).

    >>> preferred("The light… <answer>Image 2 is better</answer>"), preferred((7.0, 5.5)), preferred(0.0)
    (-1.0, 1.5, 0.0)
    """
    margin = math.nan
    if isinstance(verdict, str):
        written = last_tag(verdict, "answer") or ""
        said = {float(3 - 2 * int(place)) for place in _BETTER.findall(written)} | (
            {0.0} if _TIE.search(written) else set()
        )
        margin = said.pop() if len(said) == 1 else math.nan
    elif isinstance(verdict, Sequence) and len(verdict) == 2:
        margin = float(verdict[0]) - float(verdict[1])
    elif isinstance(verdict, int | float):
        margin = float(verdict)
    if not math.isfinite(margin):
        raise Abstain(f"the judge preferred neither and called no tie: {shown(verdict)}")
    return margin


def _valid(schedule: str, orders: str, aspects: Mapping[str, float] | None, tries: int, **options: Any) -> set[str]:
    if tries < 1:
        raise ValueError(f"tries must be at least 1, got {tries}")
    if aspects is not None and not (aspects and all(0 < w < math.inf for w in aspects.values())):
        raise ValueError(f"aspects need positive weights, got {dict(aspects)}")
    return set()


@reward(lane="batch", unit="group", range=(0, 1), requires=_valid)
def tournament(
    prompt: Sequence[Completion],
    completion: Sequence[Completion],
    group: Int[np.ndarray[Any, Any], "n"],
    *,
    judge: Judge,
    schedule: Schedule = "elimination",
    orders: Literal["both", "one"] = "both",
    aspects: Mapping[str, float] | None = None,
    tries: int = 1,
) -> Scores:
    """How a rollout fares against the others of its group, where a judge compares two at a time.

    Scores of single rollouts are close together where all are good, and standardising them makes much of their
    noise; who beats whom is what a judge can tell. All groups play in step, so that the judge is asked in batches.

    Args:
        prompt: what was asked.
        completion: the replies: text, or chat messages with the calls of tools and what came back.
        group: who plays whom.
        judge: a function from questions to verdicts, which `preferred` reads. A question is a mapping with 'prompt',
            'first' and 'second', the two completions as they are.
        schedule: which pairs meet, and how that ends in scores: one of `credit.rank`.
        orders: 'both' asks about each pair in both orders, so that a judge who favours the first place favours
            nobody; 'one' costs half as much.
        aspects: where verdicts are mappings of aspects to verdicts, the weight of each: there is one tournament for
            each aspect, and the score is their weighted mean. A pair that meets in several is asked about once.
        tries: how often at most a pair is asked about whose verdict cannot be read.

    Returns:
        One score per rollout, details: 'games', how many verdicts there are about it. A rollout that no verdict is
        about abstains, and so does one that is alone in its group.

    Raises:
        ValueError: at once, if `tries` is less than 1 or a weight is not positive.

    Source: ArenaRL (arXiv 2601.06487; Alibaba-NLP/qqr), seeded elimination in both orders; Pref-GRPO (2508.20751;
    CodeGoat24/Pref-GRPO) is schedule='win_rate', orders='one', and its judge of several dimensions `aspects`.
    """
    n, weights = len(completion), {"": 1.0} if aspects is None else aspects
    _, index = np.unique(np.asarray(group), return_inverse=True)

    def ask(pairs: Sequence[tuple[int, int]]) -> list[Any]:
        questions = [{"prompt": prompt[a], "first": completion[a], "second": completion[b]} for a, b in pairs]
        verdicts = list(judge(questions)) if questions else []
        if len(verdicts) != len(questions):
            raise Abstain(f"the judge gave {len(verdicts)} verdicts on {len(questions)} pairs")
        return verdicts

    def compare(first: rank.Items, second: rank.Items) -> Comparisons:
        """An item is a rollout in the tournament of one aspect: aspect · n + row."""
        places = list(zip((first // max(n, 1)).tolist(), (first % n).tolist(), (second % n).tolist(), strict=True))
        margins: dict[tuple[int, int, int], float | str] = dict.fromkeys(places, "")
        for _ in range(tries):
            open_ = [place for place, margin in margins.items() if isinstance(margin, str)]
            pairs = list(dict.fromkeys((a, b) for _, a, b in open_))
            verdicts = dict(zip(pairs, ask(pairs), strict=True))
            for place in open_:
                margins[place] = _read(verdicts[place[1:]], list(weights)[place[0]])
        found = [margins[place] for place in places]
        reasons = {k: margin for k, margin in enumerate(found) if isinstance(margin, str)}
        values = [0.0 if isinstance(margin, str) else margin for margin in found]
        return Comparisons(
            np.array(values, float), np.array([k not in reasons for k in range(len(found))], bool), reasons
        )

    play_one: Callable[[int], rank.Schedule] = getattr(rank, schedule)
    plays = (lambda size: rank.both_orders(play_one(size))) if orders == "both" else play_one
    numbers = np.concatenate([index + aspect * (index.max(initial=0) + 1) for aspect in range(len(weights))])
    scores = rank.play(rank.by_group(numbers, plays), compare)
    share = np.array(list(weights.values())) / sum(weights.values())
    reasons = {row % n: why for row, why in reversed(scores.reasons.items())}
    return Scores(
        share @ scores.read(0.0).reshape(len(weights), n),
        valid=scores.valid.reshape(len(weights), n).all(0),
        reasons=reasons,
        details={"games": np.reshape(scores.details.get("games", []), (len(weights), n)).sum(0).tolist()},
    )


def _read(verdict: Any, aspect: str) -> float | str:
    """The margin of a verdict, or why there is none."""
    try:
        if not aspect:
            return preferred(verdict)
        if not isinstance(verdict, Mapping) or aspect not in verdict:
            raise Abstain(f"the judge said nothing of {aspect!r}: {shown(verdict)}")
        return preferred(verdict[aspect])
    except Abstain as error:
        return str(error)
