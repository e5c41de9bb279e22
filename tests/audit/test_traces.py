import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon.audit.theory import (
    anti_concentration,
    bilevel_reward,
    planted_rewards,
    q_variance,
    trace_variance,
    verification_gap,
)


@pytest.mark.parametrize("seed", range(3))
def test_vb_vs_vf_variances_of_q_sum_to_the_variance_of_the_reward(seed):
    """A tree of depth 3 with two actions, random policy and rewards: the law of total variance, step by step."""
    rng = np.random.default_rng(seed)
    policy = [rng.dirichlet(np.ones(2), size=2**h) for h in range(3)]
    rewards = rng.normal(size=8)
    chances = []
    for leaf in itertools.product(range(2), repeat=3):
        state, chance = 0, 1.0
        for h, action in enumerate(leaf):
            chance *= policy[h][state, action]
            state = 2 * state + action
        chances.append(chance)
    mean = float(np.dot(chances, rewards))
    variance = float(np.dot(chances, (rewards - mean) ** 2))
    found = q_variance(policy, rewards)
    assert found.shape == (3,)
    assert float(found.sum()) == pytest.approx(variance, abs=1e-12)
    # the first step alone: Q of both actions
    q = [float(np.dot(chances[i : i + 4], rewards[i : i + 4])) / sum(chances[i : i + 4]) for i in (0, 4)]
    first = policy[0][0]
    assert found[0] == pytest.approx(first[0] * first[1] * (q[0] - q[1]) ** 2)


def test_vb_vs_vf_normal_rewards_are_anti_concentrated_as_the_normal_says():
    rewards = np.random.default_rng(0).normal(size=(4, 50_000))
    found = anti_concentration(rewards, np.array([0.0, 1.0, 4.0]))
    for x, column in zip((0.0, 1.0, 2.0), found.T, strict=True):
        assert column == pytest.approx([0.5 * math.erfc(x / 2**0.5)] * 4, abs=0.01)
    assert 0.5 * math.erfc(1 / 2**0.5) == pytest.approx(0.1587, abs=1e-4)


def test_bilevel_rewards_pay_for_being_early():
    assert bilevel_reward(np.array([0, 1, 10, -1]), 10).tolist() == [10.0, 9.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="at most the horizon, 3, got 4"):
        bilevel_reward(np.array([4]), 3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(-5, 5), min_size=2, max_size=5), min_size=1, max_size=4), st.integers(1, 4))
def test_masked_traces_are_not_there(prompts, n):
    width = max(map(len, prompts)) + 1
    rewards = np.full((len(prompts), width), np.nan)
    for row, values in zip(rewards, prompts, strict=True):
        row[: len(values)] = values
    mask = ~np.isnan(rewards)
    spread, shares = trace_variance(rewards, mask), anti_concentration(rewards, np.array([0.5]), mask)
    gap = verification_gap(rewards, n, mask)
    for i, values in enumerate(prompts):
        mean = sum(values) / len(values)
        variance = sum((x - mean) ** 2 for x in values) / (len(values) - 1)
        assert spread[i] == pytest.approx(variance, abs=1e-9)
        assert 0 <= shares[i, 0] <= 1
        best = sum(max(draws) for draws in itertools.product(values, repeat=n)) / len(values) ** n
        assert gap["verified"][i] == pytest.approx(best, abs=1e-9)
        assert gap["cloned"][i] == pytest.approx(mean, abs=1e-9)
        assert gap["gap"][i] == pytest.approx(best - mean, abs=1e-9)


def test_vb_vs_vf_a_verifier_beats_cloning_by_an_amount_that_grows_with_the_horizon():
    n, gaps = 8, []
    for horizon in (4, 16, 64):
        rewards = planted_rewards(horizon, 200, 400, seed=horizon)
        found = {name: values.mean() for name, values in verification_gap(rewards, n).items()}
        # R uniform on 0 … H
        best = horizon - sum(((j + 1) / (horizon + 1)) ** n for j in range(horizon))
        assert found["cloned"] == pytest.approx(horizon / 2, rel=0.02)
        assert found["verified"] == pytest.approx(best, rel=0.02)
        gaps.append(found["gap"])
        # σ of the order of H, and a constant share of traces a deviation above the mean
        assert trace_variance(rewards).mean() == pytest.approx(((horizon + 1) ** 2 - 1) / 12, rel=0.03)
        assert anti_concentration(rewards, np.array([1.0])).mean() > 0.15
    assert gaps[1] / gaps[0] > 3
    assert gaps[2] / gaps[1] > 3


def test_vb_vs_vf_more_traces_close_the_verifiers_gap_and_not_the_clones():
    rewards = planted_rewards(32, 100, 2000)
    short = [32 - verification_gap(rewards, n)["verified"].mean() for n in (1, 4, 16, 64)]
    # about H/(n + 1); exactly, for steps that are whole
    assert short == pytest.approx([sum((j / 33) ** n for j in range(1, 33)) for n in (1, 4, 16, 64)], rel=0.05)
    assert short[:3] == pytest.approx([32 / (n + 1) for n in (1, 4, 16)], rel=0.3)
    assert verification_gap(rewards, 64)["cloned"].mean() == pytest.approx(16, abs=0.3)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"rewards and mask must be \(prompts, traces\)"):
        trace_variance(np.zeros(3))
    mask = np.array([[True, True], [True, False]])
    with pytest.raises(ValueError, match="prompt 1 has 1 rewards, and 2 are needed"):
        trace_variance(np.zeros((2, 2)), mask)
    with pytest.raises(ValueError, match="prompt 0 has 0 rewards, and 1 are needed"):
        verification_gap(np.zeros((2, 2)), 2, ~mask)
    with pytest.raises(ValueError, match="eps must not be negative"):
        anti_concentration(np.zeros((1, 2)), np.array([-1.0]))
    with pytest.raises(ValueError, match="n must be at least 1"):
        verification_gap(np.zeros((1, 2)), 0)
    with pytest.raises(ValueError, match="a tree's states"):
        q_variance([np.ones((1, 2)) / 2, np.ones((3, 2)) / 2], np.zeros(6))
    with pytest.raises(ValueError, match="horizon must not be negative"):
        planted_rewards(-1, 1, 1)
