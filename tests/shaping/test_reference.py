from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon import Context, Rollouts, Scores
from guerdon.core import Spans
from guerdon.shaping import anneal, bound, clip, normalize, relative, target_length

REFERENCES = st.lists(st.lists(st.floats(-20, 20), min_size=1, max_size=4), min_size=1, max_size=5)


def context(references, n=None):
    n = len(references) if n is None else n
    return Context(Rollouts(["?"] * n, [""] * n, {"reference_scores": references}))


def sigma(x):
    return 1 / (1 + math.exp(-x))


def shaped(shaper, values, references):
    return shaper(Scores.of(values), context(references)).to_columns()["score"]


# PAR and the shapers it compares


def test_par_worked_example():
    assert shaped(relative(), [2.0], [[0.0, 1.0, 3.0]]) == pytest.approx([0.627], abs=5e-4)
    assert shaped(relative(), [2.0], [1.0]) == pytest.approx([0.731], abs=5e-4)
    assert shaped(relative(), [1.25], [1.25]) == [0.5]


def test_par_is_the_mean_probability_of_beating_a_reference():
    values, references = [1.0, -2.0], [[0.5, 4.0], [-2.5, -1.0, 0.0]]
    expected = [
        sum(sigma(2 * (r - reference)) for reference in row) / len(row)
        for r, row in zip(values, references, strict=True)
    ]
    assert shaped(relative(scale=0.5), values, references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "curve"),
    [
        ("sigmoid", sigma),
        ("tanh", math.tanh),
        ("arctan", math.atan),
        ("log-sigmoid", lambda x: math.log(sigma(x))),
        ("linear", lambda x: x),
    ],
)
def test_par_family_relative_and_absolute(kind, curve):
    assert shaped(relative(kind=kind), [1.5], [[0.0, 2.0]]) == pytest.approx([(curve(1.5) + curve(-0.5)) / 2])
    if kind != "linear":
        assert bound(kind)(Scores.of([1.5, -0.5]), Context()).read(0.0) == pytest.approx([curve(1.5), curve(-0.5)])


def test_par_polynomial_is_the_fifth_degree_fit_to_the_sigmoid():
    grid = np.linspace(-5, 5, 100)
    fit = np.polynomial.Polynomial.fit(grid, 1 / (1 + np.exp(-grid)), 5)
    inside = np.linspace(-4.9, 4.9, 41)
    polynomial = bound("polynomial")
    got = polynomial(Scores(inside), Context()).read(0.0)
    np.testing.assert_allclose(got, np.clip(fit(inside), 0, 1), atol=1e-12)
    assert polynomial(Scores.of([-9.0, -5.0, 5.0, 9.0]), Context()).read(0.0).tolist() == [0, 0, 1, 1]
    assert shaped(relative(kind="polynomial"), [1.0], [[0.0, 7.0]]) == pytest.approx([fit(1.0) / 2])


def test_par_slow_start():
    """SgFc: the mean over references of σ(r − 3 − r_m)."""
    expected = (sigma(2 - 3 - 0) + sigma(2 - 3 - 1)) / 2
    assert shaped(relative(shift=3.0), [2.0], [[0.0, 1.0]]) == pytest.approx([expected])


@given(REFERENCES, st.floats(-20, 20), st.sampled_from(["sigmoid", "tanh", "log-sigmoid", "linear"]))
@settings(max_examples=50, deadline=None)
def test_par_is_unchanged_by_a_constant_added_to_rewards_and_references(references, constant, kind):
    values = [0.5 * i for i in range(len(references))]
    moved = [[r + constant for r in row] for row in references]
    before = shaped(relative(kind=kind), values, references)
    assert shaped(relative(kind=kind), [v + constant for v in values], moved) == pytest.approx(before, abs=1e-9)


def test_par_pays_little_more_for_what_is_hacked():
    x = torch.tensor([0.0, 30.0], dtype=torch.float64, requires_grad=True)
    relative()(Scores(x), context([[0.0], [0.0]])).read(0.0).sum().backward()
    assert x.grad[0] == pytest.approx(0.25)
    assert 0 <= x.grad[1] < 1e-12


def test_par_pipeline_ceiling_then_length_then_reference(recorded, scored):
    """min(r, c), then r − coef · (len − limit)⁺, then σ(r − r_m): the order matters."""
    charge = target_length(curve="excess", target=4, width=1, weight=0.5, wrong="same",
                           floor=-math.inf, wrong_floor=-math.inf, unit="words")  # fmt: skip
    reward = recorded("rm") >> clip(high=2.0) >> charge >> relative("refs")
    got = scored(reward, rm=[5.0, 1.0, -1.0], refs=[[0.0], [0.0], [1.0]], lengths=[7, 3, 5])
    assert got == pytest.approx([sigma(2 - 1.5), sigma(1.0), sigma(-1.5 - 1.0)])


def test_par_running_statistics_are_those_of_the_concatenation():
    batches = [[1.0, 5.0, 2.0], [-3.0, 0.5], [10.0]]
    shapers = [normalize(kind, over="running") for kind in ("z-score", "range", "band")]
    for i, batch in enumerate(batches):
        here = Context(Rollouts(["?"] * len(batch), [""] * len(batch)))
        everything = np.concatenate(batches[: i + 1])
        mean, std, low, high = everything.mean(), everything.std(), everything.min(), everything.max()
        own = np.array(batch)
        expected = [(own - mean) / std, (own - low) / (high - low), np.clip(own, mean - std, mean + std)]
        for shaper, numbers in zip(shapers, expected, strict=True):
            np.testing.assert_allclose(shaper(Scores.of(batch), here).read(0.0), numbers, rtol=1e-12)
            shaper.observe(Scores.of(batch), here)


def test_par_keeps_the_gold_reward_where_the_raw_reward_is_hacked():
    """Three answers: honest, better, and one that fools the reward model (proxy 12, gold −2); RLHF's policy gradient.

    With the raw reward, the policy ends at the hack; shaped by PAR, the KL holds it at the good answer.
    """
    proxy, gold, base = [0.0, 2.0, 12.0], np.array([0.0, 1.0, -2.0]), np.array([0.6, 0.39, 0.01])
    ends = []
    for reward in (np.array(proxy), np.array(shaped(relative(), proxy, [[0.0]] * 3))):
        logits = np.log(base)
        for _ in range(4000):
            policy = np.exp(logits) / np.exp(logits).sum()
            penalized = reward - 0.3 * (np.log(policy) - np.log(base))
            logits = logits + 0.3 * policy * (penalized - policy @ penalized)
        ends.append(policy @ gold)
    assert ends[0] < -1.9 < base @ gold < ends[1]


# LSC


def test_lsc_worked_example():
    shaper = relative(kind="log-sigmoid", quantile=0.85)
    assert shaped(shaper, [3.0, 0.0], [[0.0, 1.0, 2.0, 3.0]] * 2) == pytest.approx([-0.537, -2.726], abs=1e-3)


def test_lsc_reference_is_a_quantile():
    sample, q = [0.0, 4.0, 1.0, 2.5, 7.0], 0.7
    gaussian = np.mean(sample) + NormalDist().inv_cdf(q) * np.std(sample)
    for fit, reference in (("gaussian", gaussian), ("empirical", np.quantile(sample, q))):
        shaper = relative(kind="linear", quantile=q, fit=fit)
        assert shaped(shaper, [3.0, 3.0], [sample, [1.0]]) == pytest.approx([3 - reference, 2.0])
    gappy = [None, 0.0, math.nan, 4.0, 1.0]
    expected = 3 - np.quantile([0.0, 4.0, 1.0], 0.7)
    assert shaped(relative(kind="linear", quantile=q, fit="empirical"), [3.0], [gappy]) == pytest.approx([expected])


def test_lsc_conjunction_prefers_the_balanced_answer(recorded, scored):
    """Margins (5, −3) and (1, 1) have equal sums; as a logical and the second is better."""
    good = [recorded(name) >> relative(f"{name}_refs", kind="log-sigmoid", quantile=0.85) for name in ("a", "b")]
    columns = {"a": [5.0, 1.0], "b": [-3.0, 1.0], "a_refs": [[0.0], [0.0]], "b_refs": [[0.0], [0.0]]}
    assert scored(good[0] + good[1], **columns) == pytest.approx([-3.055, -0.627], abs=1e-3)
    assert scored(recorded("a") + recorded("b"), a=columns["a"], b=columns["b"]) == [2.0, 2.0]


def test_lsc_never_overflows_and_keeps_the_order():
    values = [-1e6, -3.0, 0.0, 3.0, 1e6]
    got = shaped(relative(kind="log-sigmoid"), values, [[0.0]] * 5)
    assert got == sorted(got)
    assert got[0] == -1e6
    assert got[-1] == 0.0


# What holds for all


def test_a_row_without_a_reference_abstains_and_says_why():
    scores = Scores.of([1.0, None, 2.0, 3.0, 4.0], reasons={1: "no score"})
    result = relative()(scores, context([[], [0.0], [None, math.nan], "x", 4.0]))
    assert result.to_columns()["score"] == [None, None, None, None, 0.5]
    assert result.reasons[1] == "no score"
    assert result.reasons[0] == result.reasons[3] == "column 'reference_scores' holds no finite reference score"
    quantiles = relative(quantile=0.5, fit="empirical")
    assert quantiles(scores, context([[], [0.0], [None], "x", 4.0])).to_columns()["score"][-1] == 0.5


@given(REFERENCES, st.data())
@settings(max_examples=40, deadline=None)
def test_how_many_references_other_rows_have_changes_nothing(references, data):
    values = [float(i) for i in range(len(references))]
    for shaper in (relative(), relative(quantile=0.3), relative(quantile=0.3, fit="empirical")):
        alone = [shaped(shaper, [v], [row])[0] for v, row in zip(values, references, strict=True)]
        padded = shaped(shaper, [*values, 0.0], [*references, [0.0] * data.draw(st.integers(1, 9))])
        assert padded[:-1] == pytest.approx(alone, abs=1e-12)


def test_references_of_rewards_of_steps_are_the_rollouts():
    steps = Scores(np.array([[1.0, 2.0], [3.0, 99.0]]), spans=Spans.of([[(0, 1), (1, 2)], [(0, 1)]]))
    got = relative(kind="linear")(steps, context([[1.0, 0.0], [3.0]])).to_columns()["score"]
    assert got == [[0.5, 1.5], [0.0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "cube"}, "kind is 'sigmoid', .* or 'linear', got 'cube'"),
        ({"scale": 0}, "scale must be positive"),
        ({"scale": math.inf}, "scale must be positive"),
        ({"shift": math.nan}, "shift finite"),
        ({"quantile": 1.0}, "quantile lies between 0 and 1, got 1.0"),
        ({"fit": "median"}, "fit is 'gaussian' or 'empirical', got 'median'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        relative(**options)


def test_a_schedule_between_raw_and_shaped(recorded, scored):
    """Two opposite schedules blend from one reward into another."""
    rm = recorded("rm")
    reward = (rm >> anneal(start=1.0, end=0.0)) + (rm >> bound("tanh") >> anneal())
    assert scored(reward, rm=[2.0], progress=0.25) == pytest.approx([0.75 * 2 + 0.25 * math.tanh(2)])
