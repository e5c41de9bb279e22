import itertools
import json
import math

import numpy as np
import pytest

from guerdon.core import MissingExtra
from guerdon.data import Allocator, configuration_bound

N, P = 20, 0.05


def triangular(rule, seed):
    """Rounds of 1/p attempts each; those of round i may go to the items from i on. How many items succeed."""
    rng, queue = np.random.default_rng([seed, 7]), Allocator(N, rule=rule, seed=seed)
    for first in range(N):
        chances = np.where(np.arange(N) >= first, P, 0.0)
        for _ in range(round(1 / P)):
            item = queue.choose(chances)
            if item is not None:
                queue.record(item, P, success=bool(rng.random() < P))
    return int(queue.done.sum())


@pytest.mark.parametrize(("rule", "share"), [("balance", 0.6375), ("greedy", 0.50), ("random", 0.63)])
def test_stochastic_matching_on_the_triangular_instance(rule, share):
    """Of the bound of 20, which the next test computes; within three standard errors of 60 runs."""
    runs = np.array([triangular(rule, seed) for seed in range(60)]) / N
    assert runs.mean() == pytest.approx(share, abs=3 * runs.std() / math.sqrt(60) + 0.005)


def test_stochastic_matching_bound_of_the_triangular_instance_is_all_items():
    pytest.importorskip("scipy")
    chances = np.repeat(np.where(np.arange(N)[:, None] >= np.arange(N), P, 0.0), round(1 / P), axis=1)
    assert configuration_bound(chances) == pytest.approx(20.0, abs=1e-5)
    # One success of each needs load 1, which gives 1 − 1/e of it where thresholds are Exp(1).
    assert configuration_bound(chances, value="exponential") == pytest.approx(20 * (1 - math.exp(-1)), abs=1e-5)


def test_the_chance_of_an_item_tried_m_times_is_1_minus_failing_all():
    rng, m, runs = np.random.default_rng(0), 5, 4000
    won = 0
    for _ in range(runs):
        queue = Allocator(1)
        for _ in range(m):
            item = queue.choose(np.array([0.3]))
            if item is not None:
                queue.record(item, 0.3, success=bool(rng.random() < 0.3))
        won += bool(queue.done[0])
    assert won / runs == pytest.approx(1 - 0.7**m, abs=4 * math.sqrt(0.25 / runs))


def test_balance_tries_least_first_and_weighs_unequal_chances_by_their_load():
    queue = Allocator(3)
    order = []
    for _ in range(6):
        order.append(queue.choose(np.full(3, 0.2)))
        queue.record(order[-1], 0.2, success=False)
    assert order == [0, 1, 2, 0, 1, 2]
    queue = Allocator(2)
    queue.record(0, 1.0, success=False)
    assert queue.choose(np.array([0.9, 0.4])) == 1  # .9/e = .33
    assert queue.choose(np.array([0.9, 0.3])) == 0


def test_what_is_done_or_out_of_reach_gets_nothing():
    queue = Allocator(2)
    queue.record(0, 0.5, success=True)
    assert queue.choose(np.array([0.9, 0.1])) == 1
    assert queue.choose(np.array([0.9, 0.0])) is None
    for rule in ("ranking", "random", "greedy"):
        assert Allocator(2, rule=rule).choose(np.zeros(2)) is None


def test_ranking_has_one_order_from_the_start():
    chosen = []
    for seed in range(30):
        queue, order = Allocator(4, rule="ranking", seed=seed), []
        while (item := queue.choose(np.full(4, 0.5))) is not None:
            assert queue.choose(np.full(4, 0.5)) == item  # failing changes nothing
            queue.record(item, 0.5, success=True)
            order.append(item)
        assert sorted(order) == [0, 1, 2, 3]
        chosen.append(tuple(order))
    assert len(set(chosen)) > 12


@pytest.mark.parametrize("rule", ["balance", "ranking", "random"])
def test_an_allocation_goes_on_where_it_stood(rule):
    def run(queue, n):
        items = []
        for _ in range(n):
            items.append(queue.choose(np.full(5, 0.3)))
            queue.record(items[-1], 0.3, success=False)
        return items

    whole, half = Allocator(5, rule=rule, seed=4), Allocator(5, rule=rule, seed=4)
    first = run(half, 6)
    resumed = Allocator(5, rule=rule, seed=4)
    resumed.load_state_dict(json.loads(json.dumps(half.state_dict())))
    assert first + run(resumed, 9) == run(whole, 15)
    with pytest.raises(ValueError, match="the state is of 5 items, these are 2"):
        Allocator(2).load_state_dict(half.state_dict())


def listed_bound(chances, value):
    """The program over all sets of all items, written out."""
    from scipy import optimize

    items, attempts = chances.shape
    columns, gains = [], []
    for u, size in itertools.product(range(items), range(1, attempts + 1)):
        for chosen in itertools.combinations(range(attempts), size):
            load = sum(chances[u, v] for v in chosen)
            columns.append([float(u == i) for i in range(items)] + [float(v in chosen) for v in range(attempts)])
            gains.append(min(load, 1.0) if value == "truncated" else 1 - math.exp(-load))
    return -optimize.linprog(-np.array(gains), A_ub=np.array(columns).T, b_ub=np.ones(items + attempts)).fun


@pytest.mark.parametrize("value", ["truncated", "exponential"])
@pytest.mark.parametrize("seed", range(6))
def test_configuration_bound_is_that_of_the_program_written_out(seed, value):
    pytest.importorskip("scipy")
    rng = np.random.default_rng(seed)
    chances = rng.choice([0.0, 0.3, 0.6, 0.9], (3, 5))
    if seed % 2:
        chances = np.where(chances > 0, 0.4, 0.0)
    assert configuration_bound(chances, value=value) == pytest.approx(listed_bound(chances, value), abs=1e-6)


def test_configuration_bound_is_below_the_plain_fraction_of_attempts():
    """p = .6, two items, three attempts: fractions of attempts give 1.8; sets of one and two give 1.6."""
    pytest.importorskip("scipy")
    assert configuration_bound(np.full((2, 3), 0.6)) == pytest.approx(1.6, abs=1e-6)
    assert configuration_bound(np.zeros((2, 3))) == 0.0
    assert configuration_bound(np.zeros((0, 3))) == 0.0


def test_bad_input_is_named(monkeypatch):
    with pytest.raises(ValueError, match="items must be at least 1"):
        Allocator(0)
    with pytest.raises(ValueError, match="rule is one of"):
        Allocator(1, rule="fair")
    with pytest.raises(ValueError, match="probabilities must be 2 numbers"):
        Allocator(2).choose(np.array([0.5]))
    with pytest.raises(ValueError, match="probabilities must be 1 numbers"):
        Allocator(1).choose(np.array([math.nan]))
    monkeypatch.setitem(__import__("sys").modules, "scipy.optimize", None)
    with pytest.raises(MissingExtra, match=r"guerdon\[data\]"):
        configuration_bound(np.ones((1, 1)))


def test_bounds_that_cannot_be_computed_are_refused():
    pytest.importorskip("scipy")
    with pytest.raises(ValueError, match="probabilities must be"):
        configuration_bound(np.array([0.5]))
    with pytest.raises(ValueError, match="value is 'truncated'"):
        configuration_bound(np.ones((1, 1)), value="linear")
    with pytest.raises(ValueError, match="round the probabilities"):
        configuration_bound(np.linspace(0.1, 0.9, 20)[None])
