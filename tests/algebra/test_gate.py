"""Gates with a second reward, gates in order of priority, outcomes at steps, and trust."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import yaml

from guerdon import gate, product, reduce, reward
from guerdon.algebra import broadcast, spec, trusted
from guerdon.core import LevelMismatch, SpecError
from guerdon.rewards import math as maths, text
from guerdon.shaping import anneal, center, group_length, top_groups, trust


@reward(range=(0, 1), lane="batch", level="step")
def steps(completion):
    raise NotImplementedError


ANSWER, LENGTH = maths.answer(), text.length(unit="words")


def test_a_closed_gate_is_another_reward(leaf, score):
    condition = leaf(1, 1, 0, 0, None, name="c")
    then, other = leaf(5, None, None, 7, 8, name="t"), leaf(None, 1, 2, None, 3, name="o")
    scores = score(gate(condition, then=then, otherwise=other))
    assert scores.to_columns()["score"] == [5.0, None, 2.0, None, None]
    assert scores.reasons == {1: "t: no t", 3: "o: no o", 4: "c: no c"}
    assert set(scores.parts) == {"c", "t", "o"}
    both = score(gate(leaf(0, name="c"), then=leaf(None, name="t"), otherwise=leaf(None, name="o")))
    assert both.reasons == {0: "o: no o"}


def test_a_gate_of_steps_between_two_rewards(leaf, listed):
    condition = leaf(1, 0, name="c")
    then, other = leaf([1, 2], [3], name="t", steps=True), leaf([5, 6], [7], name="o", steps=True)
    assert listed(gate(condition, then=then, otherwise=other)) == [[1.0, 2.0], [7.0]]
    each = leaf([1, 0], [0], name="cs", steps=True)
    assert listed(gate(each, then=then, otherwise=other)) == [[1.0, 6.0], [7.0]]
    with pytest.raises(LevelMismatch, match="cannot gate"):
        gate(condition, then=then, otherwise=leaf(1, 2, name="r"))


def test_a_gate_between_tensors_keeps_gradients(leaf, score):
    x, y = leaf(3, 4, name="x", differentiable=True), leaf(5, 6, name="y", tensor=True)
    scores = score(gate(leaf(1, 0, name="c"), then=x, otherwise=y))
    assert isinstance(scores.read(0.0), torch.Tensor)
    assert scores.to_columns()["score"] == [3.0, 6.0]


def test_ranges_of_a_gate_between_rewards(leaf):
    then, other = leaf(1, range=(0, 1), name="t"), leaf(1, range=(-3, 0.5), name="o")
    assert gate(leaf(1, name="c"), then=then, otherwise=other).range == (-3, 1)


# G-RA


def test_g_ra_worked_example(leaf, listed):
    """Ten step rewards of 0.1: with outcome −1, the ungated sum is 0 and the gated −1; with outcome 0 both are 1."""
    outcome, steps = leaf(-1, 0, name="outcome"), leaf([0.1] * 10, [0.1] * 10, name="steps", steps=True)
    gated = outcome + gate(outcome, then=reduce(steps, "sum"), above=0.0, inclusive=True)
    assert listed(gated) == pytest.approx([-1, 1])
    assert listed(outcome + reduce(steps, "sum")) == pytest.approx([0, 1])


def test_g_ra_limits_of_the_threshold(leaf, listed):
    outcome, steps = leaf(-1, -0.5, 0, 1, name="outcome"), leaf(0.3, 0.1, 0.7, 0.2, name="steps")

    def g_ra(threshold):
        return outcome + gate(outcome, then=steps, above=threshold, inclusive=True)

    ungated = [-0.7, -0.4, 0.7, 1.2]
    assert listed(g_ra(-math.inf)) == pytest.approx(ungated)
    assert listed(g_ra(math.inf)) == [-1, -0.5, 0, 1]
    assert listed(g_ra(0.0)) == pytest.approx([-1, -0.5, 0.7, 1.2])
    assert listed(outcome + gate(outcome, then=steps, above=0.0)) == pytest.approx([-1, -0.5, 0, 1.2])


def test_g_ra_a_channel_counts_only_above_all_higher_ones(leaf, listed):
    """Three channels in order of priority, against the definition, at every combination of their outcomes."""
    values = [(a, b, c) for a in (-1, 0, 1) for b in (0, 0.5) for c in (0.2, 0.9)]
    first, second, third = (
        leaf(*column, name=name) for name, column in zip("abc", np.transpose(values).tolist(), strict=True)
    )
    thresholds = (0.0, 0.5)
    expected = []
    for row in values:
        total, passes = 0.0, True
        for value, threshold in zip(row, (*thresholds, math.inf), strict=True):
            total += value if passes else 0.0
            passes = passes and value >= threshold
        expected.append(total)
    inner = second + gate(second, then=third, above=thresholds[1], inclusive=True)
    assert listed(first + gate(first, then=inner, above=thresholds[0], inclusive=True)) == pytest.approx(expected)


def test_g_ra_step_channels_at_their_steps(leaf, listed):
    outcome, steps = leaf(-0.5, 1, name="outcome"), leaf([0.5, 0.1], [0.5, 0.1, 0.2], name="steps", steps=True)
    reward = broadcast(outcome, over=steps, place="last") + gate(outcome, then=steps, above=0.0, inclusive=True)
    assert listed(reward) == [pytest.approx([0, -0.5]), pytest.approx([0.5, 0.1, 1.2])]


def test_g_ra_a_policy_does_not_learn_to_farm_steps(leaf, listed):
    """Arms: farm steps and never submit; submit and sometimes pass. Exact policy gradient from a fair start."""
    outcome, steps = leaf(-1, 0.25, name="outcome"), leaf(2.0, 0.3, name="steps")
    ends = []
    for total in (outcome + steps, outcome + gate(outcome, then=steps, above=0.0, inclusive=True)):
        value = np.array(listed(total))
        logits = np.zeros(2)
        for _ in range(200):
            policy = np.exp(logits) / np.exp(logits).sum()
            logits += 0.5 * policy * (value - policy @ value)
        ends.append(policy)
    ungated, gated = ends
    assert ungated[0] > 0.95
    assert gated[1] > 0.95


# Outcomes at steps


def test_an_outcome_at_every_step_or_at_the_last(leaf, score, listed):
    outcome, steps = leaf(2, None, 3, name="o"), leaf([1, 1], [1], [None, 1], name="s", steps=True)
    assert listed(broadcast(outcome, over=steps)) == [[2, 2], [None], [3, 3]]
    assert listed(broadcast(outcome, over=steps, place="last")) == [[0, 2], [None], [0, 3]]
    assert score(broadcast(outcome, over=steps)).reasons == {1: "o: no o"}
    assert broadcast(leaf(1, range=(1, 2)), over=steps, place="last").range == (0, 2)
    assert broadcast(leaf(1, range=(1, 2)), over=steps).range == (1, 2)
    assert broadcast(outcome, over=steps).level == "step"


def test_reduce_undoes_broadcast(leaf, listed):
    outcome, steps = leaf(2, -3, name="o"), leaf([1, 1, 1], [1], name="s", steps=True)
    for place, how in [("all", "mean"), ("all", "min"), ("last", "sum"), ("last", "last")]:
        assert listed(reduce(broadcast(outcome, over=steps, place=place), how)) == [2.0, -3.0]


def test_broadcast_refuses_other_levels(leaf):
    rollout, steps = leaf(1, name="r"), leaf([1], name="s", steps=True)
    with pytest.raises(LevelMismatch, match="gives the one score of a rollout to its steps"):
        broadcast(steps, over=steps)
    with pytest.raises(LevelMismatch, match="gives the one score of a rollout to its steps"):
        broadcast(rollout, over=rollout)
    with pytest.raises(ValueError, match="place is 'all' or 'last', got 'first'"):
        broadcast(rollout, over=steps, place="first")
    with pytest.raises(TypeError, match="broadcast combines rewards"):
        broadcast(rollout, over=1.0)


# Trust


def test_sophiavl_trust_worked_example(leaf, listed, score):
    think, out = leaf(0.2, 0.4, 0.9, 0.8, name="think", range=(0, 1)), leaf(1, 1, 0, 0, name="out", range=(0, 1))
    gamma = math.exp(0.3 - 0.85)
    assert gamma == pytest.approx(0.577, abs=5e-4)
    batch = {"groups": [0, 0, 0, 0]}
    assert listed(trusted(think, by=out), **batch) == pytest.approx([gamma * x for x in (0.2, 0.4, 0.9, 0.8)])
    assert listed(out + 0.3 * trusted(think, by=out), **batch)[0] == pytest.approx(1.0346, abs=1e-4)
    good = leaf(0.8, 0.6, 0.1, 0.2, name="think", range=(0, 1))
    assert listed(out + 0.3 * trusted(good, by=out), **batch)[0] == pytest.approx(1.24)
    assert trusted(think, by=out).scope == "group"
    assert trusted(think, by=out).range == (0, 1)


def test_sophiavl_trust_decays_over_training():
    """α e^(−step/T) with α = 0.3 and T = 500: 0.110 at step 500, of 1000 steps."""
    weight = anneal(start=0.3, end=0.0, until=0.5, shape="exponential").weight
    assert [weight(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.3, 0.3 * math.exp(-1), 0.3 * math.exp(-2)])
    assert weight(0.5) == pytest.approx(0.110, abs=5e-4)


def test_trust_is_whole_without_right_or_without_wrong_rollouts(leaf, listed):
    think, out = leaf(0.2, 0.9, 0.5, None, 0.7, name="think"), leaf(1, 1, 0, 1, None, name="out")
    assert listed(trusted(think, by=out), groups=[0, 0, 1, 1, 1]) == [0.2, 0.9, 0.5, None, None]
    of_steps = leaf([1], name="s", steps=True)
    with pytest.raises(ValueError, match=r"trusted compares rollouts: reduce\(…\)"):
        trusted(of_steps, by=of_steps)
    with pytest.raises(LevelMismatch, match="cannot trust"):
        trusted(think, by=leaf([1], name="s", steps=True))
    with pytest.raises(ValueError, match="above is a threshold, got nan"):
        trusted(think, by=out, above=math.nan)


def test_ctrl_u_weights_a_reward_by_its_uncertainty(leaf, listed):
    """l e^(−U) + k U as a reward: weights 1, 0.6065, 0.1353 at U = 0, ½, 2, and the least loss at U = ln(l/k)."""
    loss, u = leaf(1, 1, 1, name="loss"), leaf(0, 0.5, 2, name="u", range=(0, 100))
    weighed = product(loss, u >> trust("exponential"))
    assert listed(weighed) == pytest.approx([1, 0.6065, 0.1353], abs=1e-4)
    grid = np.linspace(0, 4, 401).tolist()
    loss, u = leaf(*[1.0] * 401, name="loss"), leaf(*grid, name="u", range=(0, 100))
    total = np.array(listed(product(loss, u >> trust("exponential")) + 0.1 * u))
    assert grid[int(total.argmin())] == pytest.approx(2.3026, abs=0.005)
    assert total.min() == pytest.approx(0.3303, abs=1e-4)


# Specs


@pytest.mark.parametrize(
    "meant",
    [
        gate(ANSWER, then=ANSWER, above=0.0, inclusive=True),
        gate(ANSWER >> top_groups(), then=ANSWER >> group_length(unit="words"), otherwise=ANSWER),
        gate(ANSWER, then=ANSWER, otherwise=0.5 * ANSWER + 1.0),
        trusted(LENGTH, by=ANSWER, above=0.9) >> center(),
        product(ANSWER, 0.5 * trusted(LENGTH, by=ANSWER)),
    ],
    ids=["inclusive", "between rewards", "between sums", "trusted", "trusted term"],
)
def test_specs_come_back(meant):
    assert spec.load(yaml.safe_load(yaml.safe_dump(spec.dump(meant), allow_unicode=True))) == meant


def test_the_spec_of_an_outcome_at_steps_comes_back():
    for place in ("all", "last"):
        meant = broadcast(ANSWER, over=steps(), place=place) >> center(1.0)
        assert spec.load(yaml.safe_load(yaml.safe_dump(spec.dump(meant))), allow_import=True) == meant


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"broadcast": "math.answer"}, "broadcast needs 'over'"),
        ({"trusted": "math.answer"}, "trusted needs 'by'"),
        (
            {"trusted": "math.answer", "by": "math.answer", "over": 1},
            "trusted has no option 'over': did you mean 'above'",
        ),
        ({"gate": "math.answer", "then": "math.answer", "inclusive": 1}, "inclusive: expected true or false"),
        ({"gate": "math.answer", "then": "math.answer", "otherwise": "x"}, "otherwise: expected a number, got 'x'"),
        ({"gate": "math.answer", "then": "math.answer", "otherwise": {"prt": 1}}, r"reward\.otherwise: a mapping has"),
    ],
)
def test_specs_that_are_wrong_say_where(data, message):
    with pytest.raises(SpecError, match=message):
        spec.load(data)
