from __future__ import annotations

import math

import pytest

from guerdon import Context, Scores, product
from guerdon.shaping import anneal, trust


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", [3.0, 3.0, 2.0, 1.0, 1.0]),
        ("cosine", [3.0, 3.0, 2.0, 1.0, 1.0]),
        ("step", [3.0, 3.0, 3.0, 1.0, 1.0]),
        ("exponential", [3.0, 3.0, *(1 + 2 * math.exp(-x) for x in (0.5, 1, 2))]),
    ],
)
def test_anneal(shape, expected):
    shaper = anneal(start=3, end=1, begin=0.2, until=0.6, shape=shape)
    got = [shaper(Scores.of([2.0]), Context(progress=p)).read(0.0)[0] for p in (0.0, 0.2, 0.4, 0.6, 1.0)]
    assert got == pytest.approx([2 * w for w in expected])


def test_the_cosine_is_flat_at_its_ends():
    shaper = anneal(shape="cosine")
    assert shaper.weight(0.25) == pytest.approx((1 - math.cos(math.pi / 4)) / 2)
    assert shaper.weight(0.01) < 0.001


def test_outside_training_a_schedule_is_shown_as_it_ends():
    assert anneal(start=1, end=0.25)(Scores.of([4.0]), Context()).read(0.0).tolist() == [1.0]


def test_ranges_of_schedules():
    assert anneal(start=-1, end=2).range((-3, 5)) == (-6, 10)
    assert anneal().range((-math.inf, 5)) == (-math.inf, 5)


def test_trust():
    for kind, curve in [("inverse-variance", lambda u: 1 / (1 + u * u)), ("exponential", lambda u: math.exp(-u))]:
        shaper = trust(kind, 2.0)
        got = shaper(Scores.of([0.0, 1.0, 6.0]), Context()).read(0.0)
        assert got == pytest.approx([curve(u / 2) for u in (0, 1, 6)])
        assert shaper.range((0, 2)) == pytest.approx((curve(1), 1))
        assert shaper.range((0, math.inf)) == (0, 1)


def test_trust_is_the_bayesian_average_with_a_prior_at_zero():
    """A measurement r with standard deviation u, and a prior N(0, s²): the posterior mean is r · s²/(s² + u²)."""
    r, u, s = 3.0, 0.7, 1.5
    (weight,) = trust(scale=s)(Scores.of([u]), Context()).read(0.0)
    precisions = 1 / u**2, 1 / s**2
    assert weight * r == pytest.approx(precisions[0] * r / sum(precisions))


def test_uncertainty_weighs_a_reward_or_is_taken_from_it(recorded, scored):
    reward, spread = recorded("rm"), recorded("spread", range=(0, 10))
    columns = {"rm": [2.0, 2.0, None], "spread": [0.0, 1.0, 0.5]}
    assert scored(product(reward, spread >> trust()), **columns) == [2.0, 1.0, None]
    assert scored(reward - 0.5 * spread, **columns) == [2.0, 1.5, None]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: anneal(shape="wave"), "shape is 'linear', 'cosine', 'step' or 'exponential', got 'wave'"),
        (lambda: anneal(start=math.inf), "start and end must be finite"),
        (lambda: anneal(begin=0.5, until=0.5), "begin must come before until"),
        (lambda: anneal(until=1.5), "both within"),
        (lambda: trust("linear"), "kind is 'inverse-variance' or 'exponential', got 'linear'"),
        (lambda: trust(scale=0), "scale must be positive"),
        (lambda: trust().range((-1, 1)), "never negative; this one reaches -1"),
        (lambda: trust()(Scores.of([-0.5]), Context()), "never negative"),
    ],
)
def test_options_that_make_no_sense_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
