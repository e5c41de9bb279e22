import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from guerdon.data import draw_rows, fidelity_by_filter, linear_fidelity, rank_weights

KINDS = ["none", "best", "best-random", "best-worst", "magnitude"]
REWARDS = np.array([0.3, 0.9, 0.1, 0.5])  # ranks 2, 0, 3, 1


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("none", [1 / 4, 1 / 4, 1 / 4, 1 / 4]),
        ("best", [0, 1, 0, 0]),
        ("best-random", [1 / 6, 1 / 2, 1 / 6, 1 / 6]),
        ("best-worst", [0, 1 / 2, 1 / 2, 0]),
        ("magnitude", [0.09 / 1.16, 0.81 / 1.16, 0.01 / 1.16, 0.25 / 1.16]),
        ((0.4, 0.1, 0.1, 0.1), [1 / 7, 4 / 7, 1 / 7, 1 / 7]),
    ],
    ids=[*KINDS, "numbers"],
)
def test_pf_ppo_weights_by_rank(weights, expected):
    assert rank_weights(REWARDS, np.zeros(4, int), weights=weights) == pytest.approx(expected)


def test_pf_ppo_of_one_rollout_takes_it_and_of_two_either():
    groups = np.array([5, 3, 3])
    for kind in ("none", "best-random", "best-worst"):
        assert rank_weights(np.array([0.2, 0.7, 0.1]), groups, weights=kind).tolist() == [1.0, 0.5, 0.5]
    assert rank_weights(np.array([0.2, 0.7, 0.1]), groups, weights="best").tolist() == [1.0, 1.0, 0.0]


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 3), st.booleans()), max_size=20),
    st.sampled_from([*KINDS, tuple(range(20))]),
)
def test_weights_add_up_to_1_in_every_group_that_has_a_score(rows, kind):
    rewards, groups, mask = (np.array([row[k] for row in rows], t) for k, t in enumerate((float, int, bool)))
    found = rank_weights(np.where(mask, rewards, math.nan), groups, weights=kind, mask=mask)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert not found[~mask].any()
    for group in set(groups[mask].tolist()):
        assert found[groups == group].sum() == pytest.approx(1.0)
    drawn = draw_rows(found, groups, rng=np.random.default_rng(0))
    assert groups[drawn].tolist() == sorted(set(groups[mask].tolist()))
    assert found[drawn].all()


def test_rows_are_drawn_as_often_as_their_probability_says():
    rng, n = np.random.default_rng(0), 20_000
    probabilities, groups = np.tile([0.5, 0.3, 0.2, 0.0], n), np.repeat(np.arange(n), 4)
    drawn = draw_rows(probabilities, groups, rng=rng)
    share = np.bincount(drawn % 4, minlength=4) / n
    assert share == pytest.approx([0.5, 0.3, 0.2, 0.0], abs=4 * math.sqrt(0.25 / n))
    assert share[3] == 0


def test_pf_ppo_release_keeps_the_best_and_another_at_random():
    """Two calls: the best, and one of the rest."""
    groups, rng = np.zeros(4, int), np.random.default_rng(0)
    found = set()
    for _ in range(60):
        best = draw_rows(rank_weights(REWARDS, groups, weights="best"), groups, rng=rng)
        rest = np.ones(4, bool)
        rest[best] = False
        (other,) = draw_rows(rank_weights(REWARDS, groups, weights="none", mask=rest), groups, rng=rng)
        assert best.tolist() == [1]
        found.add(int(other))
    assert found == {0, 2, 3}


def test_several_rows_are_drawn_without_replacement():
    drawn = draw_rows(np.array([0.2, 0.5, 0.3, 1.0]), np.array([1, 1, 1, 0]), count=3, rng=np.random.default_rng(0))
    assert drawn[0] == 3
    assert sorted(drawn[1:].tolist()) == [0, 1, 2]
    assert draw_rows(np.array([0.0]), np.array([0]), rng=np.random.default_rng(0)).tolist() == []


def test_linear_fidelity_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=50)
    truths = 0.4 * rewards + rng.normal(size=50)
    slope, offset = np.polyfit(rewards, truths, 1)
    residual = ((truths - slope * rewards - offset) ** 2).sum()
    assert linear_fidelity(rewards, truths) == pytest.approx(1 - residual / ((truths - truths.mean()) ** 2).sum())
    edges = np.linspace(rewards.min(), rewards.max(), 6)
    place = np.clip(np.searchsorted(edges, rewards, side="right") - 1, 0, 4)
    x, y = (np.array([a[place == k].mean() for k in range(5)]) for a in (rewards, truths))
    slope, offset = np.polyfit(x, y, 1)
    expected = 1 - ((y - slope * x - offset) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert linear_fidelity(rewards, truths, bins=5) == pytest.approx(expected)


def test_fidelity_of_what_does_not_vary_is_not_a_number_but_nothing():
    assert linear_fidelity(np.array([]), np.array([])) is None
    assert linear_fidelity(np.array([1.0]), np.array([1.0])) is None
    assert linear_fidelity(np.array([1.0, 1.0]), np.array([0.0, 1.0])) is None
    assert linear_fidelity(np.array([0.0, 1.0]), np.array([1.0, 1.0])) is None
    assert linear_fidelity(np.array([]), np.array([]), bins=3) is None
    assert linear_fidelity(np.array([0.0, 1.0]), np.array([0.0, 1.0]), bins=1) is None
    assert linear_fidelity(np.array([-1e200, 0.0, 1e200]), np.array([0.0, 1.0, 2.0])) == pytest.approx(1.0)


@given(
    st.lists(st.tuples(st.floats(-1e200, 1e200), st.floats(-1e200, 1e200)), max_size=8),
    st.one_of(st.none(), st.integers(1, 4)),
)
def test_fidelity_is_a_share_or_nothing(samples, bins):
    found = linear_fidelity(np.array([x for x, _ in samples]), np.array([y for _, y in samples]), bins=bins)
    assert found is None or 0.0 <= found <= 1.0


def test_pf_ppo_audit_finds_that_best_worst_can_be_trusted_most():
    """The reward is right above .8 and below −.8 and says nothing between: R² .30, .12, .38 and .67."""
    rng, prompts = np.random.default_rng(0), 20_000
    rewards = rng.normal(size=8 * prompts)
    chance = np.where(rewards > 0.8, 0.97, np.where(rewards < -0.8, 0.03, 0.5))
    truths = (rng.random(8 * prompts) < chance).astype(float)
    found = fidelity_by_filter(rewards, truths, np.repeat(np.arange(prompts), 8), rng=rng)
    assert found == pytest.approx({"none": 0.30, "best": 0.12, "best-random": 0.38, "best-worst": 0.67}, abs=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank_weights(REWARDS, np.zeros(3)), r"rewards \(4,\), groups \(3,\)"),
        (lambda: rank_weights(np.array([math.nan]), np.zeros(1)), r"rewards\[0\] is nan"),
        (lambda: rank_weights(REWARDS, np.zeros(4), weights="worst"), "weights is one of"),
        (lambda: rank_weights(REWARDS, np.zeros(4), weights=(1.0, -1.0, 0.0, 0.0)), "weights must be 4 numbers"),
        (lambda: rank_weights(REWARDS, np.zeros(4), weights=(1.0,)), "weights must be 4 numbers"),
        (lambda: draw_rows(np.array([-1.0]), np.zeros(1), rng=np.random.default_rng(0)), "must not be negative"),
        (lambda: linear_fidelity(np.zeros(2), np.zeros(3)), r"truths \(3,\)"),
        (lambda: linear_fidelity(np.zeros(2), np.array([0, math.inf])), "must be finite"),
        (lambda: linear_fidelity(np.zeros(2), np.zeros(2), bins=0), "bins must be at least 1"),
    ],
    ids=["shape", "nan", "kind", "negative", "short", "draw", "truths", "inf", "bins"],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
