import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon.audit.theory import best_of_n, best_of_n_kl_bound, divergence, frontier, regret, tilt


@st.composite
def references(draw, least=1):
    """A pmf, some of it 0, and rewards with ties."""
    size = draw(st.integers(least, 7))
    weights = draw(st.lists(st.integers(0, 5), min_size=size, max_size=size).filter(any))
    rewards = draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size))
    return np.array(weights) / sum(weights), np.array(rewards, float)


def kl(q, p):
    return sum(a * math.log(a / b) for a, b in zip(q, p, strict=True) if a > 0)


@settings(max_examples=80, deadline=None)
@given(references(), st.floats(0, 20))
def test_tilt_is_its_definition_and_its_kl_is_lambda_times_reward_less_log_z(reference, strength):
    p, r = reference
    weights = [a * math.exp(strength * b) for a, b in zip(p, r, strict=True)]
    z = sum(weights)
    found = tilt(p, r, strength=strength)
    assert found.pmf.tolist() == pytest.approx([w / z for w in weights], abs=1e-12)
    assert found.reward == pytest.approx(sum(w / z * b for w, b in zip(weights, r, strict=True)), abs=1e-9)
    assert found.kl == pytest.approx(max(0.0, strength * found.reward - math.log(z)), abs=1e-8)
    assert found.kl == pytest.approx(kl(found.pmf, p), abs=1e-8)


@settings(max_examples=80, deadline=None)
@given(references(), st.floats(0.001, 0.999))
def test_tilt_finds_the_kl_and_the_reward_that_are_asked_for(reference, share):
    p, r = reference
    start, top = float(p @ r), max(b for a, b in zip(p, r, strict=True) if a > 0)
    most = -math.log(sum(a for a, b in zip(p, r, strict=True) if b == top))
    if top - start > 1e-9:
        assert tilt(p, r, kl=share * most).kl == pytest.approx(share * most, abs=1e-9)
        wanted = start + share * (top - start)
        assert tilt(p, r, reward=wanted).reward == pytest.approx(wanted, abs=1e-9)
    assert tilt(p, r, kl=0.0).pmf.tolist() == pytest.approx(p.tolist())
    with pytest.raises(ValueError, match="below"):
        tilt(p, r, kl=most + 0.1)


def test_bon_asymptotics_worked_example():
    # tokens of chance 0.3, δ = 0.1 nats per token
    p, r = np.array([0.7, 0.3]), np.array([0.0, 1.0])
    best = tilt(p, r, kl=0.1).reward
    assert best == pytest.approx(0.5146, abs=5e-5)
    rewards, divergences = [], []
    for n in (10, 40, 160, 320):
        # sequences by their number of ones: a best-of-N only looks at the mean reward
        counts = np.arange(n + 1)
        pmf = np.array([math.comb(n, k) * 0.3**k * 0.7 ** (n - k) for k in counts.tolist()])
        q = best_of_n(pmf, counts / n, math.exp(0.1 * n))
        assert q.sum() == pytest.approx(1.0)
        rewards.append(float(q @ counts) / n)
        divergences.append(divergence(q, pmf) / n)
    # the first is 0.41256 by hand: Σ k/10 (F(k)ᵉ − F(k − 1)ᵉ)
    assert rewards == pytest.approx([0.41256, 0.4709, 0.4996, 0.5060], abs=5e-5)
    assert divergences == pytest.approx([0.0350, 0.0745, 0.0934, 0.0967], abs=5e-5)


@pytest.mark.parametrize(("n", "bound"), [(2, 0.193), (4, 0.636), (16, 1.835)])
def test_bon_asymptotics_kl_is_within_its_bound(n, bound):
    assert best_of_n_kl_bound(n) == pytest.approx(bound, abs=1e-3)
    p = np.full(2000, 1 / 2000)
    fine = divergence(best_of_n(p, np.arange(2000.0), n), p)
    # tight as atoms get small
    assert best_of_n_kl_bound(n) - 0.01 < fine <= best_of_n_kl_bound(n)


@settings(max_examples=80, deadline=None)
@given(references(), st.integers(1, 5))
def test_best_of_n_is_the_best_of_all_tuples(reference, n):
    p, r = reference
    p, r = p[:4], r[:4]
    if not p.any():
        return
    p = p / p.sum()
    expected = np.zeros(len(p))
    for draws in itertools.product(range(len(p)), repeat=n):
        first_best = max(draws, key=lambda i: r[i])  # the first of the best
        expected[first_best] += math.prod(p[i] for i in draws)
    q = best_of_n(p, r, n)
    assert q.tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    assert divergence(q, p) <= best_of_n_kl_bound(n) + 1e-9


def test_bon_asymptotics_pythagoras():
    rng = np.random.default_rng(0)
    p, omega = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6))
    r = rng.normal(size=6)
    if omega @ r < p @ r:
        r = -r
    phi = tilt(p, r, reward=float(omega @ r)).pmf
    assert kl(omega, p) == pytest.approx(kl(phi, p) + kl(omega, phi), abs=1e-12)
    assert regret(omega, p, r) == pytest.approx(kl(omega, phi), abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(references(), st.data())
def test_regret_is_never_negative_and_zero_on_the_frontier(reference, data):
    p, r = reference
    weights = data.draw(st.lists(st.integers(0, 3), min_size=len(p), max_size=len(p)).filter(any))
    policy = np.array(weights) / sum(weights)
    found = regret(policy, p, r)
    assert found >= 0
    assert math.isinf(found) == any(a > 0 and b == 0 for a, b in zip(policy, p, strict=True))
    assert regret(tilt(p, r, strength=1.5).pmf, p, r) == pytest.approx(0.0, abs=1e-8)
    top = np.where((r == r[p > 0].max()) & (p > 0), p, 0.0)
    assert regret(top / top.sum(), p, r) == pytest.approx(0.0, abs=1e-8)


def test_regret_of_a_policy_worse_than_the_reference_is_all_it_spent():
    p, r = np.array([0.5, 0.5]), np.array([0.0, 1.0])
    assert regret(np.array([0.9, 0.1]), p, r) == pytest.approx(kl([0.9, 0.1], p))


def test_bon_asymptotics_sequences_tilt_token_by_token():
    """φ on strings is the product of the tilted tokens: KL of n tokens is n times that of one."""
    p, r = np.array([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 3.0])
    strings = list(itertools.product(range(3), repeat=3))
    joint = np.array([math.prod(p[i] for i in x) for x in strings])
    mean = np.array([sum(r[i] for i in x) / 3 for x in strings])
    token = tilt(p, r, kl=0.2)
    whole = tilt(joint, mean, kl=0.6)
    assert whole.reward == pytest.approx(token.reward)
    assert whole.strength == pytest.approx(3 * token.strength)
    assert whole.pmf.tolist() == pytest.approx([math.prod(token.pmf[i] for i in x) for x in strings])


def test_bon_asymptotics_kl_is_the_rate_at_which_a_mean_exceeds_a_reward():
    """P[mean of n tokens ≥ m] ≈ e^{−n I}, I the KL of the tilt to m."""
    rate, n, m = tilt(np.array([0.7, 0.3]), np.array([0.0, 1.0]), reward=0.5).kl, 1000, 500
    tail = sum(math.comb(n, k) * 3**k * 7 ** (n - k) for k in range(m, n + 1))
    assert (n * math.log(10) - math.log(tail)) / n == pytest.approx(rate, abs=0.005)
    assert rate == pytest.approx(0.5 * math.log(0.5 / 0.3) + 0.5 * math.log(0.5 / 0.7))


def test_frontier_rises_by_the_variance():
    p, r = np.array([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 3.0])
    strengths = np.linspace(0, 2, 201)
    spent, gained = frontier(p, r, strengths)
    assert (np.diff(spent) > 0).all()
    middle = tilt(p, r, strength=1.0)
    variance = float(middle.pmf @ (r - middle.reward) ** 2)
    assert (gained[101] - gained[99]) / (strengths[101] - strengths[99]) == pytest.approx(variance, rel=1e-3)


def test_what_is_no_distribution_is_refused():
    r = np.array([0.0, 1.0])
    with pytest.raises(ValueError, match="must be a pmf"):
        tilt(np.array([0.5, 0.6]), r, kl=0.1)
    with pytest.raises(ValueError, match="exactly one of strength, kl and reward"):
        tilt(np.array([0.5, 0.5]), r)
    with pytest.raises(ValueError, match="exactly one"):
        tilt(np.array([0.5, 0.5]), r, kl=0.1, reward=0.6)
    with pytest.raises(ValueError, match="r must be finite"):
        tilt(np.array([0.5, 0.5]), np.array([0.0, np.nan]), kl=0.1)
    with pytest.raises(ValueError, match="n must be at least 1"):
        best_of_n(np.array([0.5, 0.5]), r, 0.5)
    with pytest.raises(ValueError, match="strength must be at least 0"):
        tilt(np.array([0.5, 0.5]), r, strength=-1.0)
    assert divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == math.inf
