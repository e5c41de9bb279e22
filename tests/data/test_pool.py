"""A pool of prompts that leave when they are solved."""

import json

import numpy as np
import pytest

from guerdon import Context, Rollouts, Scores
from guerdon.core import Tokens
from guerdon.data import Pool, Unsolved


def rows(n):
    return [{"prompt": str(i)} for i in range(n)]


def draw(pool, n):
    return [int(row["prompt"]) for row in pool.draw(n, Context())]


def tell(pool, numbers, right):
    """What came of a step: a rollout of each prompt."""
    groups = np.arange(len(numbers))
    rollouts = Rollouts([str(i) for i in numbers], [""] * len(numbers), groups=groups)
    pool.observe(Scores.of([float(i in right) for i in numbers]), Context(rollouts))


def by_hand(outcomes, order, *, batch, chances="equal", attempts=None):
    """Whose turn it is in each step, by max p · e^(−load), the first of equal ones in `order(round)`.

    `outcomes[step][u]` is whether an attempt at u in the step succeeds; None: it says nothing.
    """
    size, around = len(outcomes[0]), 0
    solved, tries, load, past = set(), [0] * size, [0.0] * size, [[] for _ in range(size)]
    steps = []
    for outcome in outcomes:
        p = [(sum(past[u]) + 1) / (len(past[u]) + 2) if chances == "observed" else 0.3 for u in range(size)]
        now = []
        for _ in range(batch):
            left = [u for u in order(around) if not (u in now or u in solved or tries[u] == attempts)]
            if not left:
                around += 1
                solved, tries, load = set(), [0] * size, [p[u] if u in now else 0.0 for u in range(size)]
                left = [u for u in order(around) if u not in now]
            chosen = max(left, key=lambda u: p[u] * np.exp(-load[u]))
            now.append(chosen)
            load[chosen], tries[chosen] = load[chosen] + p[chosen], tries[chosen] + 1
        solved |= {u for u in now if outcome[u]}
        for u in now:
            past[u] += [] if outcome[u] is None else [outcome[u]]
        steps.append(now)
    return steps


def shuffled(size, seed):
    return lambda around: np.random.default_rng([seed, 2, around]).permutation(size).tolist()


@pytest.mark.parametrize(
    "options", [{}, {"chances": "observed"}, {"attempts": 2}, {"chances": "observed", "attempts": 3}], ids=str
)
@pytest.mark.parametrize("seed", range(3))
def test_the_pool_follows_the_rule(options, seed):
    size, batch, steps = 9, 4, 30
    outcomes = (np.random.default_rng([seed, 9]).random((steps, size)) < np.linspace(0.0, 0.8, size)).tolist()
    pool = Pool(rows(size), until=Unsolved(**options), seed=seed)
    found = []
    for outcome in outcomes:
        found.append(draw(pool, batch))
        tell(pool, found[-1], {u for u in found[-1] if outcome[u]})
    assert found == by_hand(outcomes, shuffled(size, seed), batch=batch, **options)
    assert pool.round > 2
    if options.get("chances") == "observed":
        assert found != by_hand(outcomes, shuffled(size, seed), batch=batch, attempts=options.get("attempts"))


def test_what_is_solved_waits_for_all_others():
    pool, missing, first = Pool(rows(10), seed=5), set(range(10)), []
    while pool.round == 0:
        numbers = draw(pool, 2)
        if pool.round == 0:
            assert set(numbers) <= missing
        elif missing:
            assert numbers[: len(missing)] == sorted(missing, key=numbers.index)
        tell(pool, numbers, {u for u in numbers if u % 2 or u in first})  # even ones at the second time
        missing -= {u for u in numbers if u % 2 or u in first}
        first += numbers
    assert set(first) == set(range(10))


def test_prompts_that_cannot_be_solved_fill_every_batch_unless_attempts_end():
    def last(attempts):
        pool = Pool(rows(6), until=Unsolved(attempts=attempts))
        for _ in range(20):
            numbers = draw(pool, 2)
            tell(pool, numbers, set(numbers) - {0, 1})
        return pool.round

    assert last(None) == 0
    assert last(2) > 1


def test_a_pool_smaller_than_a_batch_is_drawn_in_equal_shares():
    for order in ("balance", "ranking", "random"):
        numbers = draw(Pool(rows(3), until=Unsolved(order=order, attempts=1)), 7)
        assert sorted(map(numbers.count, range(3))) == [2, 2, 3]


def test_ranking_stays_with_a_prompt_until_it_is_solved_and_random_does_not():
    def first(order, seed):
        pool, numbers = Pool(rows(8), until=Unsolved(order=order), seed=seed), []
        for _ in range(4):
            numbers += draw(pool, 1)
            tell(pool, numbers[-1:], set())
        return numbers

    assert all(len(set(first("ranking", seed))) == 1 for seed in range(5))
    assert len({first("ranking", seed)[0] for seed in range(20)}) > 4
    assert len({tuple(first("random", seed)) for seed in range(20)}) > 15


def test_rounds_have_orders_of_their_own():
    pool, orders = Pool(rows(12), seed=3), []
    for step in range(6):
        numbers = draw(pool, 4)
        tell(pool, numbers, set(numbers))
        orders = [*orders, numbers] if step % 3 == 0 else [*orders[:-1], orders[-1] + numbers]
    assert [sorted(order) for order in orders] == [list(range(12))] * 2
    assert orders[0] != orders[1] != sorted(orders[1])


@pytest.mark.parametrize("chances", ["equal", "observed"])
@pytest.mark.parametrize("p", [0.2, "unequal"], ids=str)
def test_no_fewer_prompts_are_solved_than_by_drawing_in_turn_or_by_chance(chances, p):
    """Of 20 prompts by 60 attempts, four at a time: means of 100 runs.

    By chance, each attempt at any prompt, 1 − (1 − p/20)^60 of each is expected; in turn, 1 − (1 − p)^3.
    """
    p = np.linspace(0.02, 0.5, 20) if p == "unequal" else np.full(20, p)
    counts = []
    for seed in range(100):
        rng, pool, done = np.random.default_rng([seed, 1]), Pool(rows(20), until=Unsolved(chances=chances)), set()
        for _ in range(15):
            numbers = draw(pool, 4)
            right = {u for u in numbers if rng.random() < p[u]}
            tell(pool, numbers, right)
            done |= right
        counts.append(len(done))
    assert np.mean(counts) > (1 - (1 - p) ** 3).sum() + 0.5 > (1 - (1 - p / 20) ** 60).sum()


# When a prompt is solved.


def solved(values, groups=(0, 0, 0, 0, 1, 1, 1, 1), tokens=None, **options):
    rollouts = Rollouts([str(g) for g in groups], [""] * len(values), groups=np.array(groups), tokens=tokens)
    reasons = {i: "no reference" for i, value in enumerate(values) if value is None}
    found, scored = Unsolved(**options).solved(Scores.of(values, reasons=reasons), Context(rollouts))
    return found.tolist(), scored.tolist()


def test_a_prompt_is_solved_by_one_right_rollout_or_by_a_share_of_those_scored():
    values = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, None]
    assert solved(values) == ([True, True], [True, True])
    assert solved(values, share=0.3) == ([False, True], [True, True])
    assert solved(values, share=2 / 3) == ([False, True], [True, True])
    assert solved(values, share=0.7) == ([False, False], [True, True])
    assert solved([0.5] * 4 + [0.6] + [0.0] * 3) == ([False, True], [True, True])
    assert solved([0.5] * 4 + [0.6] + [0.0] * 3, above=0.6) == ([False, False], [True, True])
    assert solved([None] * 4 + [0.0] * 4) == ([False, False], [False, True])


def test_what_others_wrote_solves_nothing():
    origin = np.zeros((8, 2), np.int64)
    origin[3] = origin[7] = 1
    there = np.ones((8, 2), bool)
    tokens = Tokens(np.zeros((8, 2), np.int64), there, there, origin=origin)
    values = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    assert solved(values, tokens=tokens) == ([False, True], [True, True])
    assert solved(values, tokens=tokens, share=1.0) == ([False, True], [True, True])


def test_an_attempt_without_a_score_is_no_evidence_and_is_still_a_turn():
    pool = Pool(rows(2), until=Unsolved(chances="observed"))
    numbers = draw(pool, 1)
    rollouts = Rollouts([str(numbers[0])], [""])
    pool.observe(Scores.of([None], reasons={0: "no reference"}), Context(rollouts))
    assert pool.tried.tolist() == [0, 0]
    assert draw(pool, 1) != numbers


# State.


@pytest.mark.parametrize("order", ["balance", "ranking", "random"])
def test_a_pool_goes_on_where_it_stood(order):
    def run(pool, first, last):
        found = []
        for step in range(first, last):
            found.append(draw(pool, 3))
            tell(pool, found[-1], {u for u in found[-1] if (u + step) % 3 == 0})
        return found

    def pool():
        chances = "observed" if order == "balance" else "equal"
        return Pool(rows(7), until=Unsolved(order=order, chances=chances, attempts=3), seed=2)

    whole, half, resumed = pool(), pool(), pool()
    first = run(half, 0, 7)
    resumed.load_state_dict(json.loads(json.dumps(half.state_dict())))
    assert first + run(resumed, 7, 20) == run(whole, 0, 20)
    assert whole.round > 2


def test_attempts_whose_outcome_is_lost_are_not_waited_for():
    pool = Pool(rows(5))
    lost = draw(pool, 2)
    resumed = Pool(rows(5))
    resumed.load_state_dict(pool.state_dict())
    numbers = draw(resumed, 3)
    assert not set(lost) & set(numbers)
    tell(resumed, numbers, set(numbers))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="share lies between 0 and 1"):
        Unsolved(share=1.5)
    with pytest.raises(ValueError, match="attempts must be at least 1, got 0"):
        Unsolved(attempts=0)
    with pytest.raises(ValueError, match="not by 'random'"):
        Unsolved(order="random", chances="observed")
    with pytest.raises(ValueError, match="nothing to draw"):
        Pool([])
    pool = Pool(rows(3))
    draw(pool, 2)
    with pytest.raises(ValueError, match="1 groups are of 2 prompts that were drawn"):
        tell(pool, [0], set())
    with pytest.raises(ValueError, match="state is of 3 items, these are 2"):
        Pool(rows(2)).load_state_dict(pool.state_dict())
