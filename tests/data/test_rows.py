"""Filters of rollouts: which of a group are kept, against the definitions of PROF and PF-PPO."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon.core import Context, Rollouts, Scores
from guerdon.core.errors import MissingInput
from guerdon.data import by_rank, chain, consistent, dump_filter, load_filter, within


def context(groups, step=0):
    return Context(Rollouts([f"p{g}" for g in groups], [""] * len(groups), groups=np.asarray(groups)), step=step)


def judged(outcomes, steps, *, silent=()):
    """An outcome for each rollout, and scores of its steps; some rollouts' last step abstains."""
    width = max(map(len, steps), default=0)
    mask = np.arange(width) < np.array([len(row) for row in steps])[:, None]
    values = np.array([[*row, *[0.0] * (width - len(row))] for row in steps]).reshape(len(steps), width)
    valid = mask.copy()
    for i in silent:
        valid[i, len(steps[i]) - 1] = False
    reasons = dict.fromkeys(silent, "late")
    part = Scores(values, mask=mask, valid=valid, reasons=reasons)
    whole = Scores.of(outcomes)
    return whole.with_values(whole.read(0.0), parts={"process": part})


def test_prof_keeps_as_many_right_as_wrong_those_whose_steps_are_judged_as_their_outcome():
    """Right: the highest mean of steps; wrong: the lowest. One step, or 30, costs λ = 1."""
    outcomes = [1, 1, 1, 1, 1, 1, 0, 0]
    steps = [[0.9, 0.7], [0.2, 0.2], [0.8, 0.8], [1.0], [0.5, 0.6], [0.1, 0.0], [0.9, 0.9], [-0.5, 0.1]]
    kept = consistent(count=4, process="process").rows(judged(outcomes, steps), context([0] * 8))
    assert np.flatnonzero(kept).tolist() == [0, 2, 6, 7]
    assert consistent(count=4, process="process").keep(judged(outcomes, steps), context([0] * 8)).tolist() == [True]


@pytest.mark.parametrize(("right", "wrong", "expected"), [(6, 2, (2, 2)), (7, 1, (3, 1)), (8, 0, (4, 0))])
def test_prof_worked_numbers_of_either_kind(right, wrong, expected):
    outcomes = [1.0] * right + [0.0] * wrong
    kept = consistent(count=4, process="process").rows(judged(outcomes, [[0.5, 0.5]] * 8), context([3] * 8))
    assert (int(kept[:right].sum()), int(kept[right:].sum())) == expected


def test_a_rollout_whose_steps_abstain_is_not_kept_and_groups_are_apart():
    scores = judged([1, 1, 0, 1, 0], [[0.9, 0.9], [0.5, 0.5], [0.1, 0.1], [0.2, 0.2], [0.3, 0.3]], silent=[0])
    kept = consistent(count=2, process="process").rows(scores, context([0, 0, 0, 1, 1]))
    assert kept.tolist() == [False, True, True, True, True]
    none = consistent(count=2, process="process").rows(judged([1.0], [[0.9, 0.9]], silent=[0]), context([0]))
    assert none.tolist() == [False]


def test_pf_ppo_draws_the_best_or_the_worst_of_each_prompt_in_equal_shares():
    rewards = [0.3, 0.9, 0.5, 0.1] * 2
    batch = [0] * 4 + [1] * 4
    drawn = np.stack([by_rank().rows(Scores.of(rewards), context(batch, step)) for step in range(400)])
    assert (drawn[:, :4].sum(1) == 1).all()
    assert (drawn[:, 4:].sum(1) == 1).all()
    shares = drawn.mean(0)
    assert shares[[0, 2, 4, 6]].tolist() == [0.0] * 4
    assert shares[[1, 3, 5, 7]] == pytest.approx(0.5, abs=0.1)
    again = by_rank().rows(Scores.of(rewards), context(batch, 7))
    assert (again == drawn[7]).all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([None, 0.0, 0.5, 1.0])), max_size=12), st.integers(1, 3))
def test_what_is_drawn_is_scored_and_as_many_as_there_are(rows, count):
    scores, batch = Scores.of([r for _, r in rows]), context([g for g, _ in rows])
    kept = by_rank(weights="none", count=count).rows(scores, batch)
    for group in {g for g, _ in rows}:
        there = [i for i, (g, r) in enumerate(rows) if g == group and r is not None]
        assert set(np.flatnonzero(kept)) & {i for i, (g, _) in enumerate(rows) if g == group} in [
            set(some) for some in combinations(there, min(count, len(there)))
        ]


def test_in_a_chain_a_filter_of_rollouts_sees_what_is_left_and_keeps_some_of_a_group():
    groups = [0, 0, 0, 1, 1, 1]
    both = chain((within(low=0.2, high=0.8), by_rank(weights="best")))
    scores = Scores.of([1.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    assert both.rows(scores, context(groups)).tolist() == [True, False, False, False, False, False]
    assert both.keep(scores, context(groups)).tolist() == [True, False]
    first = chain((by_rank(weights="best"), within(low=0.9)))  # of the best alone, the mean is 1
    assert first.rows(scores, context(groups)).tolist() == [True, False, False, True, False, False]


def test_as_data_and_what_it_needs():
    data = [{"part": "data.by_rank", "weights": "best-random"}, {"part": "data.consistent", "count": 4, "process": "x"}]
    loaded = load_filter(data)
    assert load_filter(dump_filter(loaded)) == loaded
    assert loaded.needs == ("x",)
    with pytest.raises(MissingInput, match="part 'process' is missing"):
        consistent(count=1, process="process").rows(Scores.of([1.0]), context([0]))
    whole = Scores.of([1.0])
    whole = whole.with_values(whole.read(0.0), parts={"x": whole})
    with pytest.raises(ValueError, match="its steps are needed"):
        consistent(count=1, process="x").rows(whole, context([0]))
    with pytest.raises(ValueError, match="count must be at least 1"):
        by_rank(count=0)
