import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.credit import progress
from guerdon.data import balanced, consistency, top_of_group


def chosen(mask):
    return np.flatnonzero(mask).tolist()


@pytest.mark.parametrize(("right", "wrong", "kept"), [(6, 2, (2, 2)), (7, 1, (3, 1)), (8, 0, (4, 0)), (1, 7, (1, 3))])
def test_prof_keeps_as_many_right_as_wrong_where_it_can(right, wrong, kept):
    correct = np.array([True] * right + [False] * wrong)
    rows = balanced(correct, np.zeros(8), np.zeros(8, int), keep=4)
    assert (int(rows[correct].sum()), int(rows[~correct].sum())) == kept


def test_prof_worked_example():
    """Of right ones with means .9, .2, .8 the two highest; of wrong ones with .7, .1 the lowest."""
    correct = np.array([True, True, True, False, False])
    steps = np.array([[0.9, 0.9], [0.2, 0.2], [0.8, 0.8], [0.7, 0.7], [0.1, 0.1]])
    values = consistency(correct, steps, np.ones((5, 2), bool))
    assert chosen(balanced(correct, values, np.zeros(5, int), keep=3)) == [0, 2, 4]


def test_prof_penalises_a_rollout_in_one_step_or_in_too_many():
    """r_pro = (mean − 1 · [H = 1 or H ≥ 30]) · r_o."""
    steps = np.full((4, 31), 0.6)
    mask = np.arange(31) < np.array([[1], [2], [30], [0]])
    assert consistency(np.ones(4, bool), steps, mask) == pytest.approx([-0.4, 0.6, -0.4, -1.0])
    assert consistency(np.zeros(4, bool), steps, mask) == pytest.approx([0.4, -0.6, 0.4, 1.0])
    assert consistency(np.ones(4, bool), steps, mask, penalty=0.5, longest=31)[:3] == pytest.approx([0.1, 0.6, 0.6])


@pytest.mark.parametrize(("reduce", "expected"), [("mean", 0.5), ("min", 0.2), ("sum", 1.5)])
def test_prof_ablations_of_the_mean(reduce, expected):
    steps, mask = np.array([[0.2, 0.8, 0.5, math.nan]]), np.array([[True, True, True, False]])
    assert consistency(np.array([True]), steps, mask, reduce=reduce) == pytest.approx([expected])


def test_prof_ablations_of_the_balance():
    correct = np.array([True] * 6 + [False] * 2)
    values = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, -0.1, -0.9])
    groups = np.zeros(8, int)
    assert chosen(balanced(correct, values, groups, keep=4, balance="proportional")) == [0, 1, 2, 6]
    assert chosen(balanced(correct, values, groups, keep=4, balance="none")) == [0, 1, 2, 3]


def test_prof_random_wrong_ones_are_any_and_the_right_ones_still_the_best():
    correct = np.array([True, True, True, False, False, False])
    values = np.array([0.1, 0.9, 0.5, -0.1, -0.5, -0.9])
    found = [
        chosen(balanced(correct, values, np.zeros(6, int), keep=2, wrong="random", rng=np.random.default_rng(seed)))
        for seed in range(60)
    ]
    assert {rows[0] for rows in found} == {1}
    counts = np.bincount([rows[1] for rows in found], minlength=6)[3:]
    assert counts.min() > 8  # 20 each are expected


def test_prof_leaves_less_flawed_reasoning_among_what_is_right():
    """26 % of right rollouts are flawed; a process reward of AUC .8 tells them apart; 4 of 8 are kept."""
    rng, prompts = np.random.default_rng(0), 4000
    correct = rng.random(8 * prompts) < 0.6
    flawed = rng.random(8 * prompts) < 0.26
    judged = rng.normal(np.where(flawed, 0.0, 1.19), 1.0)  # Φ(1.19/√2) = .80
    values, groups = np.where(correct, judged, -judged), np.repeat(np.arange(prompts), 8)
    kept = balanced(correct, values, groups, keep=4) & correct
    assert flawed[correct].mean() == pytest.approx(0.26, abs=0.01)
    assert flawed[kept].mean() == pytest.approx(0.12, abs=0.01)


def slow_balanced(correct, values, groups, keep, mask):
    kept = set()
    for group in set(groups.tolist()):
        rows = [i for i in range(len(values)) if groups[i] == group and mask[i]]
        plus, minus = ([i for i in rows if bool(correct[i]) is kind] for kind in (True, False))
        m = min(keep, len(rows))
        splits = [(k * (m - k), k) for k in range(m + 1) if k <= len(plus) and m - k <= len(minus)]
        k = max(splits)[1]  # of equal products the larger k₊
        for side, number in ((plus, k), (minus, m - k)):
            kept |= set(sorted(side, key=lambda i: (-values[i], i))[:number])
    return sorted(kept)


ROWS = st.lists(
    st.tuples(st.integers(-2, 2), st.booleans(), st.floats(-3, 3).map(lambda x: round(x, 1)), st.booleans()),
    max_size=24,
)


@given(ROWS, st.integers(0, 6))
def test_balanced_is_what_its_definition_says(rows, keep):
    groups, correct, values, mask = (
        np.array([row[k] for row in rows], t) for k, t in enumerate((int, bool, float, bool))
    )
    given_ = np.where(mask, values, math.nan)
    found = balanced(correct, given_, groups, keep=keep, mask=mask)
    assert chosen(found) == slow_balanced(correct, values, groups, keep, mask)


@given(ROWS, st.integers(0, 4))
def test_top_of_group_is_what_its_definition_says(rows, keep):
    groups, _, values, mask = (np.array([row[k] for row in rows], t) for k, t in enumerate((int, bool, float, bool)))
    found = top_of_group(np.where(mask, values, math.inf), groups, keep=keep, mask=mask)
    expected = [
        i
        for i in range(len(rows))
        if mask[i]
        and sum(
            mask[j] and groups[j] == groups[i] and (values[j] > values[i] or (values[j] == values[i] and j < i))
            for j in range(len(rows))
        )
        < keep
    ]
    assert chosen(found) == expected


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_padding_never_changes_a_consistency(n, s, more, seed):
    rng = np.random.default_rng(seed)
    steps, mask, correct = rng.normal(size=(n, s)), rng.random((n, s)) < 0.7, rng.random(n) < 0.5
    padded = np.concatenate([np.where(mask, steps, math.nan), np.full((n, more), math.nan)], 1)
    there = np.concatenate([mask, np.zeros((n, more), bool)], 1)
    for reduce in ("mean", "min", "sum"):
        plain = consistency(correct, steps, mask, reduce=reduce)
        assert np.isfinite(plain).all()
        assert consistency(correct, padded, there, reduce=reduce) == pytest.approx(plain)


def test_mrt_star_form_keeps_right_traces_of_the_most_progress():
    """J = .10 .25 .40 .35 .75 has total progress .65, and is kept; more progress to a wrong answer is not."""
    potentials = torch.tensor([[0.10, 0.25, 0.40, 0.35, 0.75], [0.3, 0.4, 0.5, 0.6, 0.7], [0.0, 0.2, 0.4, 0.6, 0.9]])
    gained = progress(potentials, torch.ones(3, 4, dtype=torch.bool)).sum(1).numpy()
    assert gained == pytest.approx([0.65, 0.4, 0.9])
    correct = np.array([True, True, False])
    assert chosen(top_of_group(gained, np.zeros(3, int), mask=correct)) == [0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: top_of_group(np.zeros(2), np.zeros(3)), r"values \(2,\), groups \(3,\)"),
        (lambda: top_of_group(np.array([0, math.nan]), np.zeros(2)), r"values\[1\] is nan"),
        (lambda: top_of_group(np.zeros(2), np.zeros(2), keep=-1), "keep must not be negative"),
        (lambda: balanced(np.ones(3, bool), np.zeros(2), np.zeros(2), keep=1), r"correct \(3,\) and values \(2,\)"),
        (lambda: balanced(np.ones(2, bool), np.zeros(2), np.zeros(2), keep=1, wrong="random"), "needs rng"),
        (lambda: balanced(np.ones(2, bool), np.zeros(2), np.zeros(2), keep=1, balance="half"), "balance 'even'"),
        (lambda: consistency(np.ones(2, bool), np.zeros((2, 3)), np.ones((2, 2), bool)), r"mask \(2, 2\)"),
        (lambda: consistency(np.ones(1, bool), np.array([[math.inf]]), np.ones((1, 1), bool)), "steps has a score"),
    ],
    ids=["shape", "nan", "keep", "correct", "rng", "balance", "steps", "inf"],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
