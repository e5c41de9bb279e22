"""Comparisons to scores: schedules that ask for pairs, round by round, and end in one score per item.

A schedule is a generator. It yields the pairs to compare, (first, second) as two arrays of item numbers, is sent the
`Comparisons`, and returns `Scores`; whoever drives it decides how pairs are judged. `play` drives one, `by_group` makes
one of many. Scores are in [0, 1], higher is better. A comparison without a verdict counts for nobody, and an item that
no verdict is about abstains: it is not a tie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from guerdon.core.arrays import to_numpy
from guerdon.core.comparisons import Comparisons
from guerdon.core.scores import Scores

Items = Int[np.ndarray[Any, Any], "m"]
Pairs = tuple[Items, Items]
Schedule = Generator[Pairs, Comparisons, Scores]
Points = Float[np.ndarray[Any, Any], "n"]

ALONE = "alone in its group: there is nothing to compare it with"


def play(schedule: Schedule, compare: Callable[[Items, Items], Comparisons]) -> Scores:
    """Drive a schedule to its end.

    Args:
        schedule: of this module.
        compare: the verdicts on pairs of items.

    Raises:
        ValueError: if there is not one verdict for each pair asked for.

    >>> best_first = lambda first, second: Comparisons(np.sign(second - first).astype(float), np.ones(len(first), bool))
    >>> play(win_rate(3), best_first).read(0.0)
    array([1. , 0.5, 0. ])
    """
    try:
        pairs = next(schedule)
        while True:
            verdicts = compare(*pairs)
            if len(verdicts) != len(pairs[0]):
                raise ValueError(f"{len(pairs[0])} pairs were to be compared, there are {len(verdicts)} verdicts")
            pairs = schedule.send(verdicts)
    except StopIteration as end:
        result: Scores = end.value
        return result


def by_group(groups: Int[np.ndarray[Any, Any], "n"], schedule: Callable[[int], Schedule]) -> Schedule:
    """One schedule for each group, in step: what all groups ask for at a time is asked for at once.

    Args:
        groups: rows with equal numbers are compared.
        schedule: a group's schedule, given its size: `win_rate`, or a `functools.partial` of another.

    Source: groups of rollouts as in GRPO (arXiv 2402.03300).
    """
    rows = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    games = {k: schedule(len(members)) for k, members in enumerate(rows)}
    asked: dict[int, Pairs] = {}
    ended: dict[int, Scores] = {}

    def advance(k: int, verdicts: Comparisons | None) -> None:
        try:
            asked[k] = next(games[k]) if verdicts is None else games[k].send(verdicts)
        except StopIteration as end:
            asked.pop(k, None)
            ended[k] = end.value

    for k in games:
        advance(k, None)
    while asked:
        first, second = (np.concatenate([rows[k][pair[side]] for k, pair in asked.items()]) for side in (0, 1))
        verdicts = yield first, second
        start = 0
        for k, pair in list(asked.items()):
            advance(k, _part(verdicts, start, start + len(pair[0])))
            start += len(pair[0])
    if not rows:
        return Scores.of([])
    together = Scores.concat([ended[k] for k in games])
    return together.select(np.argsort(np.concatenate(rows)))


def both_orders(schedule: Schedule) -> Schedule:
    """The same schedule, each pair judged in both orders: margin = (m(a, b) − m(b, a)) / 2.

    A judge that favours the first place then favours nobody. A pair that has no verdict in one order has none.

    Source: ArenaRL (arXiv 2601.06487) sums the scores of both orders.
    """
    try:
        pairs = next(schedule)
        while True:
            first, second = pairs
            verdicts = yield np.concatenate([first, second]), np.concatenate([second, first])
            one, other = _part(verdicts, 0, len(first)), _part(verdicts, len(first), 2 * len(first))
            valid = to_numpy(one.valid) & to_numpy(other.valid)
            margin = np.where(valid, (to_numpy(one.read(0.0)) - to_numpy(other.read(0.0))) / 2, 0.0)
            why = {**other.reasons, **one.reasons}
            pairs = schedule.send(Comparisons(margin, valid, why))
    except StopIteration as end:
        result: Scores = end.value
        return result


def win_rate(n: int) -> Schedule:
    """All pairs: wins, a tie being half of one, over comparisons.

    The sum over the items is n / 2 if every pair has a verdict.

    Args:
        n: items.

    Source: Pref-GRPO (arXiv 2508.20751). There a comparison that cannot be parsed is half a win for both; here it
    does not count.
    """
    table = _Table(n)
    if n > 1:
        yield from table.ask(*np.triu_indices(n, 1))
    return table.scores(table.wins / np.maximum(table.games, 1))


def round_robin(n: int) -> Schedule:
    """All pairs: ranked by wins (a tie is half of one), equal wins having the better of their ranks.

        (worst − rank) / (worst − 1)        ranks from 1; ½ for all if all are equal

    Where comparisons have no verdict, ranked by wins per verdict.

    Args:
        n: items.

    Source: ArenaRL (arXiv 2601.06487; Alibaba-NLP/qqr).
    """
    table = _Table(n)
    if n > 1:
        yield from table.ask(*np.triu_indices(n, 1))
    return table.scores(_from_ranks(table.wins / np.maximum(table.games, 1), table.games > 0))


def bradley_terry(n: int, *, prior: float = 0.5, rounds: int = 1000) -> Schedule:
    r"""All pairs: the strengths under which the verdicts are most likely, as chances against an average item.

        P(i beats j) = sᵢ / (sᵢ + sⱼ)        score sᵢ / (sᵢ + 1)

    Where comparisons have no verdict, it matters whom an item beat: a win rate does not say. A tie is half a win for
    both.

    Args:
        n: items.
        prior: wins, and as many defeats, that each item is given against one of strength 1; > 0, so that an item
            without a defeat has a finite strength.
        rounds: of the fixed-point iteration, at most.

    Raises:
        ValueError: if the prior is not positive.

    Source: Bradley & Terry (1952); iterated as in Hunter, "MM algorithms for generalized Bradley–Terry models" (2004).
    """
    if not prior > 0:
        raise ValueError(f"prior must be positive, got {prior}")
    table, strength = _Table(n), np.ones(n)
    if n > 1:
        first, second = np.triu_indices(n, 1)
        verdicts = yield from table.ask(first, second)
        met = np.zeros((n, n))
        met[first, second] = met[second, first] = to_numpy(verdicts.valid)
        for _ in range(rounds):
            games = (met / (strength[:, None] + strength)).sum(1) + 2 * prior / (strength + 1)
            before, strength = strength, (table.wins + prior) / games
            if np.abs(np.log(strength / before)).max() < 1e-12:
                break
    return table.scores(strength / (strength + 1))


def anchor(n: int, *, at: int = 0) -> Schedule:
    """Each item against one of them: ranked by margin, the anchor's own being 0; n − 1 comparisons.

    Scores as in `round_robin`.

    Args:
        n: items.
        at: the anchor.

    Source: ArenaRL (arXiv 2601.06487); the bootstrap reference of GRPO-like pairwise training.
    """
    table = _Table(n)
    yield from table.against(at)
    return table.scores(_from_ranks(table.points, table.games > 0))


def elimination(n: int, *, seeded: bool = True, at: int = 0) -> Schedule:
    """Single elimination: 1 − rank / (n − 1), ranked by the round an item left in, then by its mean margin.

    2 (n − 1) comparisons when seeded, n − 1 when not. On a tie, or without a verdict, the better seed goes on; the
    other, if there was no verdict, abstains.

    Args:
        n: items.
        seeded: first compare all with an anchor, and place them in the bracket by margin, so that the best meet
            late; otherwise in the order given.
        at: the anchor.

    Raises:
        ValueError: if there is no such anchor.

    Source: ArenaRL (arXiv 2601.06487; Alibaba-NLP/qqr). Its judge scores both sides; ours gives margins, the mean of
    which stands for the mean score.
    """
    table = _Table(n)
    seeds = yield from table.seeds(seeded, at)
    slots = [int(seeds[i]) if i < n else -1 for i in _bracket(n)]
    left = np.zeros(n, np.int64)  # the round in which each item left; the winner never does
    number = 0
    while len(slots) > 1:
        number += 1
        sides = list(zip(slots[::2], slots[1::2], strict=True))
        playing = [pair for pair in sides if min(pair) >= 0]
        lost = yield from table.knock_out(playing, seeds)
        left[list(lost)] = number
        slots = [max(pair) if min(pair) < 0 else next(i for i in pair if i not in lost) for pair in sides]
    left[left == 0] = number + 1
    return table.scores(_from_places(left, table.points))


def double_elimination(n: int, *, seeded: bool = True, at: int = 0) -> Schedule:
    """Double elimination: an item leaves with its second defeat. Scores as in `elimination`.

    In each round the undefeated play one another, best seed against worst, and so do those defeated once; who is left
    over in the middle waits. The last of each play for the first place, twice if the undefeated loses.

    Args:
        n: items.
        seeded: as in `elimination`.
        at: the anchor.

    Raises:
        ValueError: if there is no such anchor.

    Source: a topology compared in ArenaRL (arXiv 2601.06487), which does not say how its brackets meet.
    """
    table = _Table(n)
    seeds = yield from table.seeds(seeded, at)
    defeats, left, number = np.zeros(n, np.int64), np.zeros(n, np.int64), 0
    while (defeats < 2).sum() > 1:
        number += 1
        pools = [[int(i) for i in seeds if defeats[i] == k] for k in (0, 1)]
        if max(map(len, pools)) == 1:
            pools = [pools[0] + pools[1]]
        playing = [(pool[i], pool[-1 - i]) for pool in pools for i in range(len(pool) // 2)]
        lost = yield from table.knock_out(playing, seeds)
        defeats[list(lost)] += 1
        left[(defeats == 2) & (left == 0)] = number
    left[left == 0] = number + 1
    return table.scores(_from_places(left, table.points))


def swiss(n: int, *, rounds: int | None = None) -> Schedule:
    """Swiss system: each round pairs items of equal success that have not met; 1 − rank / (n − 1).

    Ranked by wins per game (a tie is half a win, sitting out a whole one), then by Buchholz, the sum of the opponents'
    successes; equal items share the mean of their ranks.

    Args:
        n: items.
        rounds: at least 1; by default ⌈log₂ n⌉.

    Raises:
        ValueError: if `rounds` is less than 1.

    Source: ArenaRL (arXiv 2601.06487). Its released code credits points by the place in a shuffled list; here they
    are the item's own.
    """
    if rounds is not None and rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    table = _Table(n)
    byes = np.zeros(n)
    met: set[tuple[int, int]] = set()
    for _ in range(0 if n < 2 else math.ceil(math.log2(n)) if rounds is None else rounds):
        success = (table.wins + byes) / np.maximum(table.games + byes, 1)
        order = sorted(range(n), key=lambda i: -success[i])
        if n % 2:
            order.remove(sitting := min(reversed(order), key=lambda i: byes[i]))
            byes[sitting] += 1
        pairs = _new_pairs(order, met)
        met |= {_pair(*pair) for pair in pairs}
        yield from table.ask(*np.array(pairs).T)
    success = (table.wins + byes) / np.maximum(table.games + byes, 1)
    buchholz = np.array([sum(success[b if a == i else a] for a, b in met if i in (a, b)) for i in range(n)])
    return table.scores(_from_places(success, buchholz.round(9)))


class _Table:
    """What is known of each item so far."""

    def __init__(self, n: int) -> None:
        if n < 0:
            raise ValueError(f"n must not be negative, got {n}")
        self.n = n
        self.wins, self.games = np.zeros(n), np.zeros(n)
        self.margins, self.counted = np.zeros(n), np.zeros(n)
        self.why: dict[int, str] = {}
        self.unplaced: set[int] = set()  # items whose place was left to a game without a verdict

    def ask(self, first: Items, second: Items) -> Generator[Pairs, Comparisons, Comparisons]:
        """Have pairs compared, and count the verdicts."""
        verdicts = yield first, second
        margin, valid = to_numpy(verdicts.read(0.0)), to_numpy(verdicts.valid)
        for side, sign in ((first, 1.0), (second, -1.0)):
            np.add.at(self.games, side, valid)
            np.add.at(self.counted, side, valid)
            np.add.at(self.margins, side, sign * margin)
            np.add.at(self.wins, side, np.where(valid, (np.sign(sign * margin) + 1) / 2, 0.0))
            for k in np.flatnonzero(~valid):
                self.why.setdefault(int(side[k]), verdicts.reasons[int(k)])
        return verdicts

    def against(self, at: int) -> Generator[Pairs, Comparisons, None]:
        """Compare all with one, which stands at 0 itself: the size of its margins says how good the others are."""
        if self.n < 2:
            return
        if not 0 <= at < self.n:
            raise ValueError(f"the anchor is one of {self.n} items, got {at}")
        others = np.delete(np.arange(self.n), at)
        yield from self.ask(others, np.full(self.n - 1, at))
        self.margins[at], self.counted[at] = 0.0, 1.0

    def seeds(self, seeded: bool, at: int) -> Generator[Pairs, Comparisons, Items]:
        """The items, best first; those without a verdict last."""
        if not seeded:
            return np.arange(self.n)
        yield from self.against(at)
        return np.argsort(-self.points, kind="stable")

    def knock_out(self, pairs: list[tuple[int, int]], seeds: Items) -> Generator[Pairs, Comparisons, set[int]]:
        """Play one round; gives the losers, on a tie and without a verdict the worse seeds."""
        if not pairs:
            return set()
        place = np.argsort(seeds)
        ordered = np.array([sorted(pair, key=lambda i: int(place[i])) for pair in pairs])
        verdicts = yield from self.ask(ordered[:, 0], ordered[:, 1])
        lost = np.where(to_numpy(verdicts.read(0.0)) < 0, ordered[:, 0], ordered[:, 1])
        self.unplaced |= {int(i) for i in lost[~to_numpy(verdicts.valid)]}
        return {int(i) for i in lost}

    @property
    def points(self) -> Points:
        """The mean margin of each item; −∞ without one."""
        return np.where(self.counted > 0, self.margins / np.maximum(self.counted, 1), -np.inf)

    def scores(self, values: Points) -> Scores:
        """The scores of the items there is a verdict about, and abstentions."""
        mute = sorted({int(i) for i in np.flatnonzero(self.games == 0)} | self.unplaced)
        reasons = {i: f"no verdict: {self.why[i]}" if i in self.why else ALONE for i in mute}
        given = [None if i in reasons else float(values[i]) for i in range(self.n)]
        return Scores.of(given, reasons=reasons, details={"games": [int(k) for k in self.games]})


def _part(verdicts: Comparisons, start: int, stop: int) -> Comparisons:
    """Some consecutive ones of many verdicts."""
    reasons = {k - start: why for k, why in verdicts.reasons.items() if start <= k < stop}
    return Comparisons(verdicts.margin[start:stop], verdicts.valid[start:stop], reasons)


def _from_ranks(values: Points, known: np.ndarray[Any, Any]) -> Points:
    """(worst − rank) / (worst − 1), equal values having the better of their ranks; the unknown are last."""
    rank = 1 + (values[None, :] > values[:, None]).sum(1)
    worst = int(rank[known].max(initial=1))
    return (worst - rank) / (worst - 1) if worst > 1 else np.full(len(values), 0.5)


def _from_places(*keys: Points) -> Points:
    """1 − rank / (n − 1), ranked by the first key, then the next; equal items share the mean of their ranks."""
    n = len(keys[0])
    better, equal = np.zeros((n, n), bool), np.ones((n, n), bool)
    for key in keys:
        better |= equal & (key[None, :] > key[:, None])
        equal &= key[None, :] == key[:, None]
    rank = better.sum(1) + (equal.sum(1) - 1) / 2
    return np.asarray(1 - rank / max(n - 1, 1))


def _bracket(n: int) -> list[int]:
    """Seeds in the order of the bracket, at least n of them: the best two can only meet in the final."""
    slots = [0]
    while len(slots) < n:
        last = 2 * len(slots) - 1
        slots = [seed for slot in slots for seed in (slot, last - slot)]
    return slots


def _new_pairs(order: list[int], met: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbours of the order that have not met; who is left over changes partners with a pair before."""
    left, pairs = list(order), []
    while left:
        one = left.pop(0)
        other = next((i for i in left if _pair(one, i) not in met), left[0])
        left.remove(other)
        pairs.append((one, other))
    for k, (a, b) in enumerate(pairs):
        if _pair(a, b) in met:
            for j, (c, d) in enumerate(pairs):
                swap = next((s for s in (((a, c), (b, d)), ((a, d), (b, c))) if not {_pair(*p) for p in s} & met), None)
                if j != k and swap:
                    pairs[k], pairs[j] = swap
                    break
    return pairs


def _pair(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)
