"""Answers that other answers vote for: the majority of a group, or of the same question put differently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, text_of

__all__ = ["PairAgreement", "contrastive", "majority", "pair_agreement"]

Accept = Literal["bare", "marked", "boxed"]
Compare = Literal["value", "text"]


@reward(range=(0, 1), unit="group")
def majority(completion: Sequence[Completion], *, accept: Accept = "boxed", compare: Compare = "value") -> list[Any]:
    r"""1 for the rollouts whose answer is the one that most of their group give, else 0.

    No reference is read. What a policy says most it will say more: it cannot be wrong for long without being so for
    good, which `contrastive` makes harder.

    Args:
        completion: the replies of a group.
        accept: see `math.extract`.
        compare: whether answers are one as a 'value' (½ and 0.5) or only as the same 'text'.

    Returns:
        A score for each, and as details its answer and the label. A reply without an answer earns 0 and has no vote;
        of answers with equally many votes the first wins.

    >>> from guerdon.rewards import agreement
    >>> agreement.majority()(["?"] * 3, ["\\boxed{4}", "\\boxed{4.0}", "\\boxed{5}"])
    [1.0, 1.0, 0.0]

    Source: self-consistency (arXiv 2203.11171) as a reward: TTRL (2504.16084).
    """
    answers = _answers(completion, accept)
    same = _same(compare)
    label = _vote(answers, same)
    return [_outcome(answer, label, same) for answer in answers]


@reward(range=(0, 1), unit="pair")
def contrastive(
    completion: Sequence[Completion],
    pair: Sequence[Any],
    view: Sequence[Any],
    *,
    accept: Accept = "boxed",
    compare: Compare = "value",
) -> list[Any]:
    r"""1 for the rollouts whose answer is what most rollouts of the same question in other words give, else 0.

        label(x) = vote of the answers to x'        label(x') = vote of the answers to x

    No reference is read. A mistake that hangs on how a question is put has no vote from the other side. Always saying
    the same is still paid: the collapse is harder, not impossible.

    Args:
        completion: the replies to both.
        pair: names what belongs together: a question and its paraphrase, all rollouts of both.
        view: tells the two apart, by any two values such as 'original' and 'rephrased'.
        accept: see `math.extract`.
        compare: see `majority`.

    Returns:
        A score for each, and as details its answer, the label and whether the vote of its own side is that label. A
        reply without an answer earns 0 and has no vote.

    Raises:
        Abstain: if there is no answer on the other side, or a pair has not two sides.

    >>> from guerdon.rewards import agreement
    >>> said, view = ["4", "4", "5", "5", "5", "4"], ["x"] * 3 + ["x'"] * 3
    >>> boxed = [f"\\boxed{{{answer}}}" for answer in said]
    >>> agreement.contrastive()(["?"] * 6, boxed, pair=["a"] * 6, view=view)
    [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]

    Source: Co-Reward (tmlr-group/Co-Reward), which compares texts.
    """
    sides = list(dict.fromkeys(str(each) for each in view))
    if len(sides) != 2:
        raise Abstain(f"a pair has two views, this one has {len(sides)}: {', '.join(sides)}")
    answers = _answers(completion, accept)
    same = _same(compare)
    votes = {side: _vote([a for a, own in zip(answers, view, strict=True) if str(own) == side], same) for side in sides}
    other = dict(zip(sides, reversed(sides), strict=True))
    found = []
    for answer, own in zip(answers, view, strict=True):
        label, mine = votes[other[str(own)]], votes[str(own)]
        outcome = _outcome(answer, label, same)
        if isinstance(outcome, tuple):
            outcome[1]["agreed"] = label is not None and mine is not None and same(mine, label)
        found.append(outcome)
    return found


class PairAgreement(NamedTuple):
    """How often two scores order a pair as a person did.

    Args:
        share: of the pairs that are no tie; None if all are.
        ties: pairs with equal scores, which are left out.
        pairs: those that are no tie.
    """

    share: float | None
    ties: int
    pairs: int


def pair_agreement(
    first: Float[np.ndarray[Any, Any], "m"],
    second: Float[np.ndarray[Any, Any], "m"],
    choice: Int[np.ndarray[Any, Any], "m"],
) -> PairAgreement:
    """The share of pairs whose higher score is the one that was chosen; ties are dropped and counted.

    Args:
        first: scores of the first of each pair.
        second: of the second.
        choice: 0 where the first was chosen, 1 where the second.

    Raises:
        ValueError: if the shapes differ, a score is not finite, or a choice is neither 0 nor 1.

    >>> pair_agreement(np.array([0.9, 0.2, 0.5]), np.array([0.1, 0.8, 0.5]), np.array([0, 0, 1]))
    PairAgreement(share=0.5, ties=1, pairs=2)

    Source: the agreement study of BLEUBERI (arXiv 2505.11080).
    """
    first, second, choice = np.asarray(first, np.float64), np.asarray(second, np.float64), np.asarray(choice)
    if first.ndim != 1 or not first.shape == second.shape == choice.shape:
        raise ValueError(f"first {first.shape}, second {second.shape} and choice {choice.shape} need one shape (m,)")
    if not (np.isfinite(first).all() and np.isfinite(second).all() and np.isin(choice, (0, 1)).all()):
        raise ValueError("scores must be finite and a choice 0 or 1: leave out what was not scored")
    differ = first != second
    count = int(differ.sum())
    right = int(((second > first) == (choice == 1))[differ].sum())
    return PairAgreement(right / count if count else None, len(first) - count, count)


def _answers(completions: Sequence[Completion], accept: Accept) -> list[str | None]:
    from guerdon.rewards.math.extract import extract
    from guerdon.rewards.math.notation import unescaped

    found = (extract(unescaped(text_of(completion)), accept=accept) for completion in completions)
    return [answer.strip() or None if answer is not None else None for answer in found]


def _same(compare: str) -> Callable[[str, str], bool]:
    if compare == "text":
        return str.__eq__
    from guerdon.rewards.math.equivalence import equivalent

    return equivalent


def _vote(answers: Sequence[str | None], same: Callable[[str, str], bool]) -> str | None:
    """The answer with the most votes, the first of equals; None if nobody answers."""
    votes: dict[str, int] = {}
    known: dict[str, str] = {}
    for answer in answers:
        if answer is None:
            continue
        if answer not in known:
            known[answer] = next((one for one in votes if same(answer, one)), answer)
        votes[known[answer]] = votes.get(known[answer], 0) + 1
    return max(votes, key=votes.__getitem__) if votes else None


def _outcome(answer: str | None, label: str | None, same: Callable[[str, str], bool]) -> Any:
    details = {"answer": answer, "label": label}
    if answer is None:
        return 0.0, details
    if label is None:
        return Abstain("no answer on the other side to vote for a label")
    return float(same(answer, label)), details
