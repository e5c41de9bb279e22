import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon.audit.theory import flow_direction, mass_flow, sampled_dynamics, softmax_flow, stages

START, REWARDS = np.array([0.6, 0.01, 0.39]), np.array([0.8, 1.0, 0.0])


def test_two_stage_worked_example():
    path = softmax_flow(START, REWARDS, steps=2000, rate=0.1)
    assert path[50].tolist() == pytest.approx([0.965, 0.0038, 0.031], abs=5e-4)
    assert path[300].tolist() == pytest.approx([0.9978, 0.0010, 0.0012], abs=5e-5)
    assert path[500, 1] == pytest.approx(0.0008, abs=5e-5)
    assert path[2000].tolist() == pytest.approx([0.0006, 0.9994, 0.0], abs=5e-5)


def test_two_stage_exploits_first_and_explores_later():
    path = softmax_flow(START, REWARDS, steps=2000)
    found = stages(path)
    assert (found["stage"][:100] == 1).all()
    # the likeliest has saturated and the best gains, from where the best is rarest until it is the likeliest itself
    lowest, overtaken = int(path[:, 1].argmin()), int((path[:, 1] > path[:, 0]).argmax())
    assert 500 < lowest < overtaken < 1500
    assert (found["stage"][:lowest] == 1).all()
    assert (found["stage"][lowest:overtaken] == 2).all()
    assert found["entropy"][99] == pytest.approx(-sum(x * math.log(x) for x in path[100]))
    assert (found["top"] + found["tail"] == 0).all()


def test_two_stage_needs_a_graded_reward():
    path = softmax_flow(START, np.array([1.0, 1.0, 0.0]), steps=3000)
    assert (path[:, 1] < path[:, 0]).all()
    assert path[-1, 1] < 0.02


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.floats(-3, 3)), min_size=1, max_size=6),
    st.sampled_from([(1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.1, 1.0)]),
    st.sampled_from(["mean", "none"]),
    st.sampled_from(["std", "none"]),
)
def test_flow_is_the_expected_update_and_moves_no_mass_in_sum(rows, signs, baseline, scale):
    weights, rewards = (np.array(x, float) for x in zip(*rows, strict=True))
    pi = weights / weights.sum()
    mean = sum(p * r for p, r in zip(pi, rewards, strict=True))
    sigma = sum(p * (r - mean) ** 2 for p, r in zip(pi, rewards, strict=True)) ** 0.5
    if scale == "std" and sigma <= 1e-5 * abs(rewards).max():
        return
    expected = np.zeros(len(pi))
    for a, (p, r) in enumerate(zip(pi, rewards, strict=True)):
        advantage = (r - (mean if baseline == "mean" else 0.0)) / (sigma if scale == "std" else 1.0)
        advantage *= signs[0] if advantage > 0 else signs[1]
        expected += p * advantage * (np.eye(len(pi))[a] - pi)  # ∇ log π_a of a softmax
    found = flow_direction(pi, rewards, baseline=baseline, scale=scale, positive=signs[0], negative=signs[1])
    assert found == pytest.approx(expected, abs=1e-9)
    assert found.sum() == pytest.approx(0.0, abs=1e-9)


def test_two_stage_formula_is_pi_times_the_normalised_distance():
    pi = START
    mean = float(pi @ REWARDS)
    sigma = float(pi @ (REWARDS - mean) ** 2) ** 0.5
    assert flow_direction(pi, REWARDS) == pytest.approx(pi * (REWARDS - mean) / sigma)
    assert not flow_direction(pi, np.full(3, 7.0)).any()


def test_two_stage_many_sampled_runs_lose_the_best_action():
    ends = sampled_dynamics(START, REWARDS, steps=3000, group=8, runs=60, rate=0.05, seed=0)
    assert 0.05 < ends[:, 1].mean() < 0.35
    assert (ends[:, 1] < 0.05).mean() > 0.5
    assert (ends[:, 1] > 0.9).any()


def test_two_stage_relative_negatives_alone_do_not_revive_a_rare_action():
    """GRPO-N in one softmax: nothing pushes the best action up, and what is taken goes to what is likely."""
    plain, negative = (softmax_flow(START, REWARDS, steps=2000, positive=x)[-1] for x in (1.0, 0.0))
    assert plain[1] > 0.99
    assert negative[0] > 0.99
    # it is slower to forget, too: the worst keeps more of its mass while both are in the first stage
    early = [softmax_flow(START, REWARDS, steps=50, positive=x)[-1] for x in (1.0, 0.0)]
    assert early[1][2] > early[0][2]
    assert early[1][1] > early[0][1]


def entropy_of_right_arms(chances, right):
    share = chances[..., :right] / chances[..., :right].sum(-1, keepdims=True)
    return -(share * np.log(np.maximum(share, 1e-300))).sum(-1)


def test_nsr_changes_the_ratios_of_the_other_arms_by_no_more_than_the_wrong_ones_chance():
    """One wrong arm v: d log(πᵤ/π_w) = η π_v (πᵤ − π_w), since each gains in proportion to its chance."""
    pi, outcome = np.array([0.3, 0.15, 0.05, 0.5]), np.array([1.0, 1.0, 1.0, -1.0])
    path = softmax_flow(pi, outcome, steps=200, rate=0.1, baseline="none", scale="none", positive=0.0)
    assert path[-1, 3] < 0.05
    moved = np.diff(np.log(path[:, 0] / path[:, 1]))
    assert moved == pytest.approx(0.1 * path[:-1, 3] * (path[:-1, 0] - path[:-1, 1]), rel=1e-9)
    assert (np.abs(moved) <= 0.1 * path[:-1, 3]).all()


def test_nsr_spares_what_is_sure_and_keeps_more_entropy_than_reinforce():
    """Three right arms of twenty, groups of eight: the ordering of the methods' entropies over right arms."""
    pi, outcome = np.full(20, 0.05), np.array([1.0] * 3 + [-1.0] * 17)
    chosen = {"steps": 400, "group": 8, "runs": 60, "rate": 0.3, "baseline": "none", "scale": "none"}
    ends = {
        "nsr": sampled_dynamics(pi, outcome, positive=0.0, **chosen),
        "w": sampled_dynamics(pi, outcome, positive=0.1, **chosen),
        "psr": sampled_dynamics(pi, outcome, negative=0.0, **chosen),
        "reinforce": sampled_dynamics(pi, outcome, **chosen),
    }
    entropy = {name: entropy_of_right_arms(x, 3).mean() for name, x in ends.items()}
    passed = {name: x[:, :3].sum(1).mean() for name, x in ends.items()}
    assert entropy["nsr"] == pytest.approx(math.log(3))  # right arms are never drawn from: they stay alike
    assert entropy["nsr"] > entropy["w"] > 2 * max(entropy["psr"], entropy["reinforce"])
    assert passed == pytest.approx({"nsr": 0.97, "w": 0.985, "psr": 0.985, "reinforce": 0.995}, abs=0.015)
    # damped by 1 − π where the wrong arm is nearly certain
    sure = flow_direction(np.array([0.999, 0.001]), np.array([-1.0, 1.0]), baseline="none", scale="none", positive=0.0)
    assert sure[0] == pytest.approx(-0.999 * 0.001)


def test_two_stage_log_of_drawn_tokens():
    chances = np.array([0.9, 0.8, 0.1, 0.2])
    advantages = np.array([1.0, 1.0, -1.0, -1.0])
    top = np.array([True, True, False, False])
    first = mass_flow(chances, advantages, top)
    assert first["stage"] == 1
    assert first["top"] == pytest.approx((0.9 * 0.1 + 0.8 * 0.2) / 2)
    assert first["tail"] == pytest.approx(-(0.1 * 0.9 + 0.2 * 0.8) / 2)
    assert mass_flow(chances, -advantages, top)["stage"] == 2
    assert mass_flow(chances[:2], advantages[:2], top[:2])["tail"] == 0.0
    empty = mass_flow(np.zeros(0), np.zeros(0), np.zeros(0, bool))
    assert empty == {"top": 0.0, "tail": 0.0, "stage": 1}


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="what has no chance never gets one"):
        softmax_flow(np.array([1.0, 0.0]), np.zeros(2), steps=1)
    with pytest.raises(ValueError, match=r"rewards must be \(2,\)"):
        flow_direction(np.array([0.5, 0.5]), np.zeros(3))
    with pytest.raises(ValueError, match="at least two policies"):
        stages(np.ones((1, 2)))
    with pytest.raises(ValueError, match="group and runs"):
        sampled_dynamics(np.array([0.5, 0.5]), np.zeros(2), steps=1, group=0)
    with pytest.raises(ValueError, match="one shape"):
        mass_flow(np.zeros(2), np.zeros(3), np.zeros(2, bool))
