"""Retraining on curated samples: the gain of a pick against its definition, and the bounds of the theory."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon.audit.theory import curated_retraining, curation_gain

HALF, REWARD = np.array([0.5, 0.5]), np.log([1.0, 3.0])


def gain_by_definition(p, r, choices):
    found = np.zeros(len(p))
    for x in range(len(p)):
        for others in itertools.product(range(len(p)), repeat=choices - 1):
            chance = math.prod(p[i] for i in others)
            found[x] += chance * choices * math.exp(r[x]) / (math.exp(r[x]) + sum(math.exp(r[i]) for i in others))
    return found


def test_self_consuming_worked_numbers():
    two = curated_retraining(HALF, REWARD, choices=2, rounds=10)
    assert two.pmfs[1] == pytest.approx([0.375, 0.625])
    assert two.gain[1] == pytest.approx(2.25)
    assert two.bound[0] == pytest.approx(2.1667, abs=5e-5)
    assert two.pmfs[10, 1] == pytest.approx(0.9982, abs=5e-5)
    four = curated_retraining(HALF, REWARD, choices=4, rounds=1)
    assert four.pmfs[1] == pytest.approx([0.30625, 0.69375])
    assert four.gain[1] == pytest.approx(2.3875)
    assert four.bound[0] == pytest.approx(2.25)


def test_self_consuming_with_real_data_stays_near_them():
    run = curated_retraining(HALF, REWARD, choices=2, rounds=200, curated=0.5)
    assert run.pmfs[-1] == pytest.approx([0.4384, 0.5616], abs=5e-5)
    assert run.kl[-1] == pytest.approx(0.0076, abs=5e-5)
    assert run.kl_bound == pytest.approx(math.log(2))
    assert run.holds
    assert not run.collapses().any()
    alone = curated_retraining(HALF, REWARD, choices=2, rounds=200)
    assert alone.collapses(least=0.6).any()
    assert alone.collapses(least=0.6)[-1]
    assert alone.entropy[-1] < 1e-9 < alone.entropy[0]


@pytest.mark.parametrize("choices", [1, 2, 3, 5])
def test_the_gain_of_a_pick_is_its_definition(choices):
    p, r = np.array([0.2, 0.5, 0.3, 0.0]), np.array([0.0, 2.0, -3.0, 5.0])
    assert curation_gain(p, r, choices=choices) == pytest.approx(gain_by_definition(p, r, choices), rel=1e-10)


def test_self_consuming_picks_that_were_drawn_agree_with_the_gain():
    rng = np.random.default_rng(0)
    p, r, choices, draws = np.array([0.6, 0.3, 0.1]), np.array([0.0, 1.0, 2.0]), 3, 200_000
    made = rng.choice(3, size=(draws, choices), p=p)
    chances = np.exp(r)[made] / np.exp(r)[made].sum(1, keepdims=True)
    which = (rng.random((draws, 1)) > chances.cumsum(1)).sum(1)
    picked = np.bincount(made[np.arange(draws), which], minlength=3) / draws
    expected = p * curation_gain(p, r, choices=choices)
    error = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(picked - expected) < 4 * error).all()
    assert (np.abs(picked - p) > 10 * error).all()


def test_self_consuming_a_model_that_fits_its_picks_follows_the_simulator():
    """Counts in place of the model: sampled, picked from and fitted again, five times."""
    rng = np.random.default_rng(1)
    start, r, choices, size = np.array([0.4, 0.4, 0.2]), np.array([0.0, 0.5, 1.0]), 4, 100_000
    model = start
    for _ in range(5):
        made = rng.choice(3, size=(size, choices), p=model)
        noise = rng.gumbel(size=made.shape)
        picked = made[np.arange(size), (r[made] + noise).argmax(1)]
        model = np.bincount(picked, minlength=3) / size
    run = curated_retraining(start, r, choices=choices, rounds=5)
    assert model == pytest.approx(run.pmfs[5], abs=0.01)
    assert abs(run.pmfs[5] - start).max() > 0.3


def test_many_choices_are_a_tilt_and_rounds_add_up():
    p, r = np.array([0.7, 0.2, 0.1]), np.array([0.0, 0.3, 0.5])
    run = curated_retraining(p, r, choices=math.inf, rounds=7)
    expected = p * np.exp(7 * r)
    assert run.pmfs[7] == pytest.approx(expected / expected.sum())
    nearly = curated_retraining(p, r, choices=1e7, rounds=7)
    assert nearly.pmfs[7] == pytest.approx(run.pmfs[7], rel=1e-5)


distributions = st.lists(st.floats(0.001, 1), min_size=2, max_size=6).map(lambda x: np.array(x) / sum(x))


@settings(max_examples=60, deadline=None)
@given(
    distributions, st.data(), st.sampled_from([1, 2, 3, 10, math.inf]), st.sampled_from([0.0, 0.05, 0.4, 3, math.inf])
)
def test_self_consuming_bounds_hold(p, data, choices, curated):
    r = np.array(data.draw(st.lists(st.floats(-20, 20), min_size=len(p), max_size=len(p))))
    gain = curation_gain(p, r, choices=choices)
    assert (p * gain).sum() == pytest.approx(1, rel=1e-9)
    assert (gain <= choices + 1e-6).all()
    run = curated_retraining(p, r, choices=choices, rounds=4, curated=curated)
    assert np.isfinite(run.pmfs).all()
    assert run.holds
    if choices == 1 or curated == 0:
        assert run.pmfs == pytest.approx(np.tile(p, (5, 1)), abs=1e-9)


def test_what_is_no_distribution_is_refused():
    for p, r in (([0.5, 0.6], [0, 0]), ([1.0], [math.nan]), ([], []), ([0.5, 0.5], [0.0])):
        with pytest.raises(ValueError, match="must be"):
            curated_retraining(np.array(p), np.array(r), choices=2, rounds=1)
    with pytest.raises(ValueError, match="choices"):
        curation_gain(HALF, REWARD, choices=0.5)
    with pytest.raises(ValueError, match="rounds and curated"):
        curated_retraining(HALF, REWARD, choices=2, rounds=1, curated=-1)
    with pytest.raises(ValueError, match="least"):
        curated_retraining(HALF, REWARD, choices=2, rounds=1).collapses(least=0)
