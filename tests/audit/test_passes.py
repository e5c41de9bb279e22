import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon.audit.theory import (
    accuracy_histogram,
    bootstrap,
    coverage,
    crossover,
    efficiency_gap,
    pass_at_k,
    pass_curve,
)


def test_rlvr_limit_worked_examples():
    assert pass_at_k(np.array([3]), 10, 1).tolist() == pytest.approx([0.3])
    assert pass_at_k(np.array([3]), 10, 5).tolist() == pytest.approx([0.916667], abs=1e-6)
    assert pass_at_k(np.array([1]), 4, 2).tolist() == pytest.approx([0.5])


def test_rlvr_limit_base_overtakes_the_tuned_policy():
    base, tuned, ks = np.array([30] * 4), np.array([100, 100, 0, 0]), [1, 4, 16, 64, 256]
    curves = [pass_curve(correct, 256, ks).mean(0) for correct in (base, tuned)]
    assert curves[0][:3].tolist() == pytest.approx([0.117, 0.395, 0.872], abs=5e-4)
    assert curves[1][:3].tolist() == pytest.approx([0.195, 0.432, 0.500], abs=5e-4)
    assert crossover(*curves, ks) == 16
    assert crossover([0.1, 0.4], [0.2, 0.4], [1, 4]) == 4
    assert crossover(curves[1][:2], curves[0][:2] * 0, ks[:2]) == 1
    assert crossover(curves[0][:2], curves[1][:2], ks[:2]) is None
    assert coverage(base, tuned) == {"both": 2, "base": 2, "tuned": 0, "neither": 0}
    gap = efficiency_gap(pass_at_k(base, 256, 256), pass_at_k(tuned, 256, 1))
    assert gap == pytest.approx(1.0 - 200 / 1024)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_try(total, data):
    correct, k = data.draw(st.integers(0, total)), data.draw(st.integers(1, total))
    subsets = list(itertools.combinations(range(total), k))
    expected = sum(any(i < correct for i in subset) for subset in subsets) / len(subsets)
    assert pass_at_k(np.array([correct]), total, k)[0] == pytest.approx(expected)


def test_rlvr_limit_estimator_is_unbiased():
    """Its mean over all outcomes of n tries is the chance of k tries, 1 − (1 − p)ᵏ."""
    n, p = 12, 0.23
    for k in (1, 3, 12):
        found = pass_at_k(np.arange(n + 1), n, k)
        chances = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
        assert float(found @ chances) == pytest.approx(1 - (1 - p) ** k)


def test_pass_at_k_is_exact_for_a_thousand_tries():
    n, c, k = 1024, 3, 512
    exact = 1.0
    for i in range(n - c + 1, n + 1):
        exact *= 1 - k / i
    assert pass_at_k(np.array([c]), n, k)[0] == pytest.approx(1 - exact, rel=1e-10)
    assert pass_at_k(np.array([0, n]), n, k).tolist() == [0.0, 1.0]


def test_each_problem_has_its_own_tries():
    found = pass_at_k(np.array([1, 1]), np.array([2, 4]), 2)
    assert found.tolist() == pytest.approx([1.0, 0.5])
    assert pass_at_k(np.array([], dtype=int), 4, 2).shape == (0,)


@pytest.mark.parametrize("k", [0, 5])
def test_what_was_not_tried_cannot_be_estimated(k):
    with pytest.raises(ValueError, match="k must be from 1 to the tries of every problem, 4"):
        pass_at_k(np.array([1]), 4, k)


def test_bad_counts_are_refused():
    with pytest.raises(ValueError, match="between 0 and total"):
        pass_at_k(np.array([5]), 4, 1)
    with pytest.raises(ValueError, match="equally long"):
        crossover(np.zeros(2), np.zeros(3), [1, 2])
    with pytest.raises(ValueError, match="one shape"):
        coverage(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="no problems"):
        efficiency_gap(np.zeros(0), np.zeros(2))
    with pytest.raises(ValueError, match="without tries"):
        accuracy_histogram(np.array([0]), 0)
    with pytest.raises(ValueError, match="level"):
        bootstrap(np.zeros(3), level=1.0)


def test_rlvr_limit_histogram_of_accuracies():
    counts, edges = accuracy_histogram(np.array([0, 1, 5, 9, 10]), 10, bins=5)
    assert counts.tolist() == [2, 0, 1, 0, 2]
    assert edges.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_rlvr_limit_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    rng, inside = np.random.default_rng(1), 0
    for i in range(200):
        low, high = bootstrap((rng.random(60) < 0.3).astype(float), draws=400, level=0.9, seed=i)
        inside += low <= 0.3 <= high
    assert 0.83 < inside / 200 < 0.96


def test_bootstrap_of_a_curve_is_that_of_each_k_and_repeats_itself():
    values = np.random.default_rng(0).random((30, 3))
    low, high = bootstrap(values, seed=4)
    assert low.shape == high.shape == (3,)
    single = bootstrap(values[:, 1], seed=4)
    assert (low[1], high[1]) == pytest.approx(single)
    # the normal approximation is close for thirty
    error = 1.96 * values[:, 1].std() / 30**0.5
    assert single == pytest.approx((values[:, 1].mean() - error, values[:, 1].mean() + error), abs=0.02)
