from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon import Context, Rollouts, Scores
from guerdon.core import Spans
from guerdon.core.parts import name_of
from guerdon.shaping import Shaper, bound, brevity, center, clip, overlong, quantize, threshold

NONE = Context()
GROUPS = [0, 0, 1, 1, 1, 2]


def of(*values, **options):
    return Scores.of(list(values), reasons={i: "no score" for i, v in enumerate(values) if v is None}, **options)


def shaped(shaper, *values, context=NONE):
    return shaper(of(*values), context).to_columns()["score"]


def batch(n, groups=None):
    return Context(Rollouts(["?"] * n, ["a b c"] * n, groups=groups))


# Worked numbers and limits


def test_clip():
    assert shaped(clip(low=-1, high=0.5), -3.0, -1.0, 0.25, 0.5, 7.0) == [-1.0, -1.0, 0.25, 0.5, 0.5]
    assert shaped(clip(low=0), -3.0, 9.0) == [0.0, 9.0]
    assert shaped(clip(), -1e300, 1e300) == [-1e300, 1e300]
    assert clip(low=0, high=1).range((-5, 0.5)) == (0, 0.5)
    assert clip(low=0, high=1).range((3, 5)) == (1, 1)


def test_bound():
    assert shaped(bound(), 0.0, math.log(3), -math.log(3)) == pytest.approx([0.5, 0.75, 0.25])
    assert shaped(bound(scale=2), 2 * math.log(3)) == pytest.approx([0.75])
    assert shaped(bound("tanh", 3), 3.0, -6.0) == pytest.approx([math.tanh(1), -math.tanh(2)])
    assert bound().range((-math.inf, math.inf)) == (0.0, 1.0)
    assert bound("tanh").range((-math.inf, math.inf)) == (-1.0, 1.0)
    assert bound(scale=2).range((0, 2 * math.log(3))) == pytest.approx((0.5, 0.75))
    assert bound("tanh", 2).range((0, 2)) == pytest.approx((0, math.tanh(1)))


@pytest.mark.parametrize("kind", ["sigmoid", "tanh"])
def test_bound_has_its_limits_and_never_overflows(kind):
    low = 0.0 if kind == "sigmoid" else -1.0
    assert shaped(bound(kind), -1e308, 1e308) == [low, 1.0]
    assert shaped(bound(kind, 1e-300), -1.0, 1.0) == [low, 1.0]
    # Towards a large scale, tanh is linear, and the sigmoid a quarter as steep around one half.
    slope = (shaped(bound(kind, 1e6), 1.0)[0] - shaped(bound(kind, 1e6), 0.0)[0]) * 1e6
    assert slope == pytest.approx(1.0 if kind == "tanh" else 0.25, rel=1e-6)


def test_center():
    assert shaped(center(0.5), 1.0, 0.0) == [0.5, -0.5]
    assert shaped(center(), 1.0, 2.0, 6.0, context=batch(3)) == [-2.0, -1.0, 3.0]
    assert shaped(center("group"), 1, 3, 1, 2, 6, 9, context=batch(6, GROUPS)) == [-1, 1, -2, -1, 3, 0]
    assert center(2).range((0, 1)) == (-2, -1)
    assert center("group").range((0, 3)) == (-3, 3)


def test_threshold():
    assert shaped(threshold(), -2.0, 0.0, 3.0) == [0.0, 0.0, 3.0]
    assert shaped(threshold(at=0.5, slope=0.1), -2.0, 0.25, 0.5) == pytest.approx([-0.2, 0.025, 0.5])
    assert threshold().range((-3, 2)) == (0, 2)
    assert threshold(at=1).range((0.25, 0.5)) == (0, 0)
    assert threshold(at=1, slope=0.5).range((-2, 4)) == (-1, 4)
    assert threshold(at=1, slope=2).range((-2, 4)) == (-4, 4)
    assert threshold(at=-1).range((0, 4)) == (0, 4)


def test_threshold_may_be_full():
    disc = threshold(at=0.5, full=0.75)
    assert shaped(disc, 0.49, 0.5, 0.6, 0.75, 0.76, 3.0) == [0.0, 0.5, 0.6, 0.75, 1.0, 1.0]
    assert disc.range((0, 1)) == (0, 1)
    assert disc.range((0, 0.6)) == (0, 0.6)
    assert disc.range((2, 3)) == (1, 1)
    for wrong in (0.4, math.inf, math.nan):
        with pytest.raises(ValueError, match="full"):
            threshold(at=0.5, full=wrong)


def test_quantize_by_thresholds():
    zones = quantize(at=(0.1, 0.5, 2.0, 3.0))
    assert shaped(zones, -1.0, 0.1, 0.49, 0.5, 2.9, 3.0) == [0.0, 0.25, 0.25, 0.5, 0.75, 1.0]
    assert zones.range((0, 2)) == (0, 0.75)
    for wrong in ((1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan,)):
        with pytest.raises(ValueError, match="thresholds"):
            quantize(at=wrong)


def test_quantize():
    assert shaped(quantize(bins=4), 0.0, 0.12, 0.13, 0.6, 1.0) == [0.0, 0.0, 0.25, 0.5, 1.0]
    assert shaped(quantize(bins=2), 0.25, 0.75) == [0.0, 1.0], "a tie goes to the even level"
    assert quantize(bins=3).range((0.1, 0.9)) == pytest.approx((0, 1))


# RLPR's shapings, by the functions of its release


@pytest.mark.parametrize(
    ("chain", "formula"),
    [
        ((threshold(),), lambda x: x if x >= 0 else 0.0),
        ((threshold(at=0.3),), lambda x: 0.0 if x < 0.3 else x),
        ((threshold(at=0.05, slope=0.01),), lambda x: 0.01 * x if x < 0.05 else x),
        ((center(0.5), bound(scale=1 / 12)), lambda x: 1 / (1 + math.exp(-6 * (2 * x - 1)))),
        ((center(0.5), bound(scale=1 / 12)), lambda x: math.tanh(6 * x - 3) * 0.5 + 0.5),
        (
            (center(0.5), bound(scale=1 / 12), threshold(at=0.3)),
            lambda x: y if (y := 1 / (1 + math.exp(-6 * (2 * x - 1)))) >= 0.3 else 0.0,
        ),
        (
            (center(0.3), bound(scale=1 / 6), threshold(at=0.5)),
            lambda x: 0.0 if x < 0.3 else 1 / (1 + math.exp(-6 * (x - 0.3))),
        ),
        (
            (center(1), bound(scale=1 / 6), center(-0.5), threshold(at=0.5 + 1 / (1 + math.exp(6 * 0.7)))),
            lambda x: 0.0 if x < 0.3 else 1 / (1 + math.exp(-6 * (x - 1))) + 0.5,
        ),
        ((threshold(), quantize(bins=5)), lambda x: round(max(x, 0) / (1 / 5)) * (1 / 5)),
    ],
    ids=["threshold_0", "threshold_t", "leaky_t", "sigmoid_k", "tanh", "compound", "concave", "convex", "bins"],
)
def test_rlpr_shapings(chain, formula):
    values = [-0.83, -0.2, 0.01, 0.04, 0.06, 0.29, 0.31, 0.47, 0.52, 0.77, 0.99]
    scores = of(*values)
    for shaper in chain:
        scores = shaper(scores, NONE)
    assert scores.to_columns()["score"] == pytest.approx([formula(x) for x in values], abs=1e-12)


def test_rlpr_reward_is_debiased_thresholded_and_mixed_with_format(recorded, scored):
    """r = B − A, nothing below 0; 0.9 r + 0.1 format: reasoning that does not help is worth its format only."""
    reward = 0.9 * (recorded("b") - recorded("a") >> threshold()) + 0.1 * recorded("format")
    got = scored(reward, b=[0.55, 0.4, 0.2], a=[0.4, 0.4, 0.5], format=[1.0, 1.0, 0.0])
    assert got == pytest.approx([0.9 * 0.15 + 0.1, 0.1, 0.0])


def test_abstentions_do_not_count_in_the_mean():
    context = batch(6, GROUPS)
    assert shaped(center("group"), 1, None, 1, 3, None, None, context=context) == [0.0, None, -1.0, 1.0, None, None]
    assert shaped(center(), 1, None, 1, 3, None, 3, context=context) == [-1.0, None, -1.0, 1.0, None, 1.0]


def test_rows_that_are_not_asked_for_do_not_count_in_the_mean():
    scores = of(1.0, 3.0, 100.0, mask=np.array([True, True, False]))
    assert center()(scores, batch(3)).to_columns()["score"] == [-1.0, 1.0, None]


@pytest.mark.parametrize("at", ["batch", "group"])
def test_the_mean_of_rewards_of_steps_is_over_the_steps_there_are(at):
    spans = Spans.of([[(0, 1), (1, 2)], [(0, 1)]])
    for kind in (np.array, torch.tensor):
        steps = Scores(kind([[1.0, 2.0], [6.0, 99.0]]), spans=spans)
        context = batch(2, [0, 0] if at == "group" else [0, 1])
        assert center(at)(steps, context).to_columns()["score"] == [[-2.0, -1.0], [3.0]]
        assert center(at)(steps, context).spans is spans


def test_scopes():
    assert center("group").scope == "group"
    assert center().scope == "batch"
    assert center(0.0).scope == "row"
    assert clip().scope == bound().scope == "row"


def test_many_groups_need_no_table_of_all_pairs():
    """Scoring a file: 60 000 rows in 20 000 groups would take 9.6 GB as a matrix of rows × groups."""
    n = 60_000
    groups = np.arange(n) // 3
    values = np.tile([0.0, 1.0, 5.0], n // 3)
    result = center("group")(Scores(values), Context(Rollouts(["?"] * n, [""] * n, groups=groups)))
    assert result.read(0.0).reshape(-1, 3).tolist() == [[-2.0, -1.0, 3.0]] * (n // 3)


# Laws of all shapers

SHAPERS = st.one_of(
    st.tuples(st.floats(-5, 5), st.floats(0, 5)).map(lambda ends: clip(low=ends[0], high=ends[0] + ends[1])),
    st.builds(bound, st.sampled_from(["sigmoid", "tanh"]), st.floats(1e-3, 1e3)),
    st.builds(center, st.floats(-5, 5) | st.sampled_from(["group", "batch"])),
    st.builds(brevity, st.floats(0, 1), st.floats(-10, 10), st.floats(1e-3, 10), st.just("words")),
    st.integers(1, 6).flatmap(lambda m: st.builds(overlong, st.just(m), st.integers(1, m), st.just("words"))),
)
VALUES = st.lists(st.none() | st.floats(0, 1e6), min_size=1, max_size=8)


def context_of(n, lengths):
    groups = [i // 2 for i in range(n)]
    return Context(Rollouts(["?"] * n, ["w " * length for length in lengths], groups=groups))


@given(SHAPERS, VALUES, st.lists(st.integers(0, 12), min_size=8, max_size=8))
@settings(max_examples=200, deadline=None)
def test_laws(shaper, values, lengths):
    n = len(values)
    context = context_of(n, lengths[:n])
    scores = of(*values, details={"v": values})
    result = shaper(scores, context)
    # What abstained abstains, for the reason it had; the rest is a finite number in the declared range.
    assert result.reasons == scores.reasons
    assert result.valid.tolist() == [v is not None for v in values]
    assert result.details == {"v": values}
    there = [v for v in values if v is not None]
    if there:
        low, high = shaper.range((min(there), max(there)))
        numbers = [v for v in result.to_columns()["score"] if v is not None]
        slack = 1e-9 * (1 + max(there))
        assert low - slack <= min(numbers)
        assert max(numbers) <= high + slack
    # Pure: the same again, and the input as it was.
    assert shaper(scores, context).to_columns() == result.to_columns()
    assert scores.to_columns()["score"] == values
    # The same on tensors, of either precision.
    for dtype in (torch.float64, torch.float32):
        held = torch.tensor([v or 0.0 for v in values], dtype=dtype, requires_grad=True)
        tensor = Scores(held, valid=torch.tensor([v is not None for v in values]), reasons=scores.reasons)
        close = (
            {"rtol": 1e-9, "atol": 1e-9}
            if dtype == torch.float64
            else {"rtol": 1e-4, "atol": 1e-4 * (1 + max(there or [0]))}
        )
        on_tensor = shaper(tensor, context).read(0.0)
        np.testing.assert_allclose(on_tensor.detach().numpy(), result.read(0.0), **close)
        on_tensor.sum().backward()
        assert torch.isfinite(held.grad).all()
        assert (held.grad[torch.tensor([v is None for v in values])] == 0).all()
    assert pickle.loads(pickle.dumps(shaper)) == shaper


@pytest.mark.parametrize(
    ("shaper", "derivative"),
    [
        (clip(low=0.0, high=1.0), [0.0, 1.0, 0.0]),
        (
            bound("sigmoid", 2.0),
            [s * (1 - s) / 2 for s in (1 / (1 + math.exp(0.5)), 1 / (1 + math.exp(-0.25)), 1 / (1 + math.exp(-1)))],
        ),
        (bound("tanh"), [1 - math.tanh(x) ** 2 for x in (-1, 0.5, 2)]),
        (center(3.0), [1.0, 1.0, 1.0]),
        (overlong(limit=4, buffer=4, unit="words"), [1.0, 1.0, 1.0]),
    ],
)
def test_gradients(shaper, derivative):
    x = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    shaper(Scores(x), batch(3)).read(0.0).sum().backward()
    assert x.grad.tolist() == pytest.approx(derivative)


def test_gradients_of_a_centred_group_sum_to_nothing():
    x = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    (center("group")(Scores(x), batch(3, [0, 0, 0])).read(0.0) * torch.tensor([1.0, 0.0, 0.0])).sum().backward()
    assert x.grad.tolist() == pytest.approx([2 / 3, -1 / 3, -1 / 3])


# Options and state


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: clip(low=1, high=0), "low must not exceed high, got 1 and 0"),
        (lambda: clip(low=math.nan), "low must not exceed high"),
        (lambda: bound("relu"), "kind is 'sigmoid', 'tanh', 'arctan', 'polynomial' or 'log-sigmoid', got 'relu'"),
        (lambda: bound(scale=0), "scale must be positive and finite, got 0"),
        (lambda: bound(scale=math.inf), "scale must be positive and finite"),
        (lambda: bound(scale=math.nan), "scale must be positive and finite"),
        (lambda: threshold(at=math.inf), "at must be finite and slope not negative, got inf"),
        (lambda: threshold(slope=-1), "slope not negative"),
        (lambda: quantize(bins=0), "bins must be at least 1, got 0"),
        (lambda: center("grup"), "at is a number, 'group' or 'batch', got 'grup'"),
        (lambda: center(math.nan), "at is a number"),
        (lambda: center("group")(of(1.0), Context()), "reads the rollouts"),
    ],
)
def test_options_that_make_no_sense_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_shaper_without_state_takes_none():
    assert clip().state_dict() == {}
    clip().load_state_dict({})
    with pytest.raises(ValueError, match=r"shaping\.clip has no state, got \['mean'\]"):
        clip().load_state_dict({"mean": 1})
    assert clip().observe(of(1.0), NONE) is None


def test_names_and_the_base_is_no_part():
    assert clip().name == "shaping.clip"
    assert name_of(Shaper) == "shaping.Shaper"
    assert not hasattr(Shaper, "__part__")
    with pytest.raises(NotImplementedError):
        Shaper()(of(1.0), NONE)
