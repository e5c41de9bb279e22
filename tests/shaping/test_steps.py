from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon import Context, Rollouts, Scores, gate, reduce
from guerdon.algebra import broadcast
from guerdon.core import Spans
from guerdon.shaping import center, clip, delta, needed, pin_last

ROWS = st.lists(st.lists(st.none() | st.floats(-3, 3), max_size=5), min_size=1, max_size=4)


def steps(rows, kind=np.array, padding=0):
    spans = Spans.of([[(i, i + 1) for i in range(len(row))] for row in rows])
    width = spans.mask.shape[1] + padding
    table = np.full((len(rows), width), np.nan)
    mask = np.zeros((len(rows), width), bool)
    for row, numbers in enumerate(rows):
        table[row, : len(numbers)] = [np.nan if x is None else x for x in numbers]
        mask[row, : len(numbers)] = True
    reasons = dict.fromkeys(range(len(rows)), "no step score")
    return Scores(kind(table), mask=mask, valid=np.isfinite(table), reasons=reasons)


def listed(shaper, rows, context=None, **options):
    return shaper(steps(rows, **options), context or Context()).to_columns()["score"]


def words(*lengths):
    return Context(Rollouts(["?"] * len(lengths), ["w " * n for n in lengths]))


# Clip and Delta

CLIP = (center(0.85), clip(high=0.0))
DELTA = (pin_last(), delta())


def chained(shapers, rows, **options):
    scores = steps(rows, **options)
    for shaper in shapers:
        scores = shaper(scores, Context())
    return scores.to_columns()["score"]


def test_clip_delta_worked_example():
    p = [0.9, 0.8, 0.95, 0.3]
    assert chained(CLIP, [p])[0] == pytest.approx([0, -0.05, 0, -0.55])
    (r,) = chained(DELTA, [p])
    assert r == pytest.approx([0.1, -0.15, 0.95, 0])
    assert np.cumsum(r[::-1])[::-1] == pytest.approx([0.9, 0.8, 0.95, 0])
    assert chained((*CLIP, *DELTA), [p])[0] == pytest.approx([0.05, -0.05, 0, 0])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_clip_delta_return_is_the_step_score(p):
    (r,) = chained(DELTA, [p])
    for k in range(len(p) - 1):
        assert sum(r[k:]) == pytest.approx(p[k], abs=1e-9)
    assert r[-1] == 0
    (clipped,) = chained((*CLIP, *DELTA), [p])
    assert sum(clipped) == pytest.approx(min(p[0] - 0.85, 0), abs=1e-9)


@pytest.mark.parametrize("m", [0, 1, 5])
def test_clip_delta_repeating_a_trivial_step_adds_nothing(m):
    p = [0.9, *[0.9] * m, 0.7, 0.5]
    raw, clipped, difference = (sum(chained(shapers, [p])[0]) for shapers in ((), CLIP, DELTA))
    assert raw == pytest.approx(2.1 + 0.9 * m)
    assert clipped == pytest.approx(sum(chained(CLIP, [[0.9, 0.7, 0.5]])[0]))
    assert difference == pytest.approx(0.9)


def test_clip_delta_total_is_the_first_step_and_the_outcome(recorded, scored):
    """α Σ r_k + Correct: the outcome on the last step, the process reward on those before it."""
    prm, outcome = recorded("prm", steps=True), recorded("outcome")
    reward = 0.02 * (prm >> pin_last() >> delta()) + broadcast(outcome, over=prm, place="last")
    (row, _) = scored(reward, prm=[[0.5, 0.25, 0.75], [0.4]], outcome=[1.0, 0.0])
    assert row == pytest.approx([0.02 * 0.25, 0.02 * 0.25, 1.0])
    total = scored(reduce(reward, "sum"), prm=[[0.5, 0.25, 0.75], [0.4]], outcome=[1.0, 0.0])
    assert total == pytest.approx([1.0 + 0.02 * 0.5, 0.0])


@given(ROWS, st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_delta_is_its_definition_whatever_the_padding(rows, padding):
    expected = []
    for row in rows:
        ahead = [*row[1:], 0.0][: len(row)]
        expected.append([None if p is None or q is None else p - q for p, q in zip(row, ahead, strict=True)])
    for kind in (np.array, torch.tensor):
        assert listed(delta(), rows, kind=kind, padding=padding) == expected


def test_steps_may_stand_between_padding():
    scores = Scores(np.array([[9.0, 1.0, 9.0, 3.0]]), mask=np.array([[False, True, False, True]]))
    assert delta()(scores, Context()).to_columns()["score"] == [[-2.0, 3.0]]
    assert pin_last(7.0)(scores, Context()).to_columns()["score"] == [[1.0, 7.0]]


def test_a_last_step_that_abstains_still_does():
    assert listed(pin_last(), [[1.0, None], [2.0], []]) == [[1.0, None], [0.0], []]


def test_gradients_of_differences():
    x = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    shaped = delta()(Scores(x), Context()).read(0.0)
    (shaped * torch.tensor([[1.0, 10.0, 100.0]])).sum().backward()
    assert x.grad.tolist() == [[1.0, 9.0, 90.0]]


# PPR's ReNorm


def renorm(turns, outcome, mu=1.0):
    return broadcast(outcome, over=turns) + (turns >> center(mu) >> pin_last(0.0))


def test_ppr_renorm_worked_example(recorded, scored):
    reward = renorm(recorded("turns", steps=True), recorded("outcome"))
    got = scored(reward, turns=[[0.2, 0.8, 0.0], [0.2, 0.8, 0.0], [0.5]], outcome=[0.0, 1.0, 1.0])
    assert got[0] == pytest.approx([-0.8, -0.2, 0.0])
    assert got[1] == pytest.approx([0.2, 0.8, 1.0])
    assert got[2] == [1.0], "a single turn is the outcome"


def test_ppr_renorm_does_not_pay_a_lost_episode_for_more_steps(recorded, scored):
    turns, outcome = recorded("turns", steps=True), recorded("outcome")
    short, long = [0.6, 0.0], [0.6, 0.6, 0.6, 0.0]
    for mu, sign in ((0.0, 1), (1.0, -1)):
        few, many = scored(reduce(renorm(turns, outcome, mu), "sum"), turns=[short, long], outcome=[0.0, 0.0])
        assert np.sign(many - few) == sign


def test_ppr_turns_that_were_not_judged_abstain(recorded, scored):
    reward = renorm(recorded("turns", steps=True), recorded("outcome"))
    assert scored(reward, turns=[[None, 0.5, 0.0]], outcome=[1.0]) == [[None, 0.5, 1.0]]
    assert scored(reward, turns=[[0.5, 0.0]], outcome=[None]) == [[None, None]]


# DECS


def decs(correct, answered, **options):
    return gate(correct, then=answered >> needed(limit=100, unit="words", **options))


def test_decs_worked_example(recorded, scored):
    """L = 60 of 100: necessary 1.1, redundant 1.04, wrong 0."""
    reward = decs(recorded("correct"), recorded("answered", steps=True))
    got = scored(reward, correct=[1.0, 1.0, 0.0], answered=[[0, 1, 0, 1], [0, 0], [1, 0]], lengths=[60, 60, 60])
    assert got[0] == pytest.approx([1.1, 1.1, 1.04, 1.04])
    assert got[1] == pytest.approx([1.1, 1.1]), "nothing is redundant where no step suffices"
    assert got[2] == [0.0, 0.0]


def test_decs_only_the_redundant_rollout_falls_behind_at_its_position(recorded, scored):
    """An all-correct group: at position 2, redundant in one rollout only, that one is below the mean, others above."""
    reward = decs(recorded("correct"), recorded("answered", steps=True))
    got = np.array(scored(reward, correct=[1.0] * 3, answered=[[0, 1, 0], [0, 0, 1], [0, 0, 1]], lengths=[50, 99, 10]))
    advantage = got - got.mean(0)
    assert advantage[0, 2] < 0 < min(advantage[1:, 2])
    np.testing.assert_allclose(advantage[:, :2], 0, atol=1e-12)


def test_decs_a_redundant_step_is_always_paid_less():
    for length in (1, 50, 100, 500):
        (row,) = listed(needed(limit=100, unit="words"), [[1, 0]], words(length))
        assert 1.0 <= row[1] < row[0] == 1.1


def test_decs_what_follows_an_unknown_step_is_unknown_until_one_suffices():
    got = listed(needed(limit=100, unit="words"), [[0, None, 0, 1, 0], [1, None, 0]], words(50, 50))
    assert got == [[1.1, None, None, None, pytest.approx(1.05)], [1.1, None, pytest.approx(1.05)]]


def test_decs_kappa_follows_the_share_of_needed_steps():
    """κ += 0.2 (R − R before), from κ = 0 and R = ½; then ⌊κ · kept/(1 − κ)⌋ easy prompts."""
    shaper = needed(unit="words")
    assert shaper.easy_prompts(100, 100) == 0
    shaper.observe(
        steps([[0, 1, 0, 0], [1, 1], [0, 0]]), words(1, 1, 1)
    )  # (2/4 + 1/2)/2 = 0.5; the last never suffices
    assert shaper.state_dict() == {"kappa": 0.0, "share": 0.5}
    shaper.observe(steps([[0, 0, 0, 1]], padding=2), words(1))
    assert shaper.state_dict() == pytest.approx({"kappa": 0.1, "share": 1.0})
    assert [shaper.easy_prompts(kept, available) for kept, available in [(90, 99), (89, 99), (90, 4)]] == [10, 9, 4]
    shaper.observe(steps([[0, 0]]), words(1))
    assert shaper.state_dict() == pytest.approx({"kappa": 0.1, "share": 1.0})
    for _ in range(2):
        shaper.observe(steps([[1, 0, 0, 0]]), words(1))
    assert shaper.state_dict()["kappa"] == pytest.approx(-0.05)
    assert shaper.easy_prompts(90, 99) == 0
    other = needed(unit="words")
    other.load_state_dict(json.loads(json.dumps(shaper.state_dict())))
    assert other.state_dict() == shaper.state_dict()
    other.load_state_dict({"kappa": 1.0, "share": 1.0})
    assert other.easy_prompts(5, 7) == 7
    with pytest.raises(ValueError, match=r"keeps kappa and share, got \['kapa'\]"):
        other.load_state_dict({"kapa": 1.0})


def test_ranges():
    assert delta().range((0, 1)) == (-1, 1)
    assert delta().range((2, 3)) == (-1, 3)
    assert pin_last(5).range((0, 1)) == (0, 5)
    assert needed().range((0, 1)) == (1, 1.1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pin_last(math.inf), "at must be finite"),
        (lambda: needed(bonus=-0.1), "bonus and rate must not be negative and limit positive, got -0.1, 0.2 and 16384"),
        (lambda: needed(limit=0), "limit positive"),
        (lambda: needed(unit="letters"), "unit is 'tokens'"),
    ],
)
def test_options_that_make_no_sense_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
