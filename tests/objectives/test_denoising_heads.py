"""Losses over pairs of trajectories, and of a generator of few steps."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from guerdon.objectives.denoising import directed, follow, renoised, reward_difference, step_preference
from guerdon.objectives.gflownet import reward_balance


def everywhere(*shape):
    return torch.ones(*shape, dtype=torch.bool)


@st.composite
def batches(draw):
    n, t = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    logp, ref, old = 0.2 * torch.randn(3, n, t, generator=generator, dtype=torch.float64)
    return {
        "logp": logp.requires_grad_(),
        "ref_logp": ref,
        "old_logp": old,
        "rewards": torch.randint(3, (n,), generator=generator).double(),
        "groups": torch.randint(2, (n,), generator=generator),
        "mask": torch.rand(n, t, generator=generator) < 0.8,
        "valid": torch.rand(n, generator=generator) < 0.8,
    }


def pairs_of(b):
    n = len(b["groups"])
    for i in range(n):
        for j in range(n):
            if b["groups"][i] == b["groups"][j] and b["valid"][i] and b["valid"][j]:
                yield i, j


@settings(max_examples=150, deadline=None)
@given(batches(), st.floats(0.05, 2), st.one_of(st.none(), st.floats(0.05, 0.5)))
def test_step_preference_is_its_definition(b, beta, clip):
    terms = []
    for w, loser in pairs_of(b):
        if not b["rewards"][w] > b["rewards"][loser]:
            continue
        for k in range(b["mask"].shape[1]):
            if b["mask"][w, k] and b["mask"][loser, k]:
                sides = []
                for row in (w, loser):
                    ratio = math.exp(float((b["logp"] - b["ref_logp"]).detach()[row, k]))
                    ratio = ratio if clip is None else min(max(ratio, 1 - clip), 1 + clip)
                    sides.append(beta * math.log(ratio))
                terms.append(math.log1p(math.exp(-(sides[0] - sides[1]))))
    chosen = {name: b[name] for name in ("rewards", "groups", "mask", "valid")}
    loss, sums = step_preference(
        torch.where(b["mask"], b["logp"], torch.nan), b["ref_logp"], beta=beta, clip=clip, **chosen
    )
    assert float(loss.detach()) == pytest.approx(sum(terms) / max(len(terms), 1), abs=1e-12)
    assert float(sums["terms"]) == len(terms)


def pair(first, second, **options):
    logp = torch.tensor([[first], [second]], dtype=torch.float64, requires_grad=True)
    one, groups = everywhere(2, 1), torch.zeros(2, dtype=torch.long)
    loss, sums = step_preference(
        logp, torch.zeros_like(logp), options.pop("rewards", torch.tensor([1.0, 0.0])), groups, one, **options
    )
    return loss, logp, sums


def test_step_preference_begins_at_log_two_and_ends_where_both_ratios_are_held():
    assert float(pair(0.0, 0.0)[0].detach()) == pytest.approx(0.69315, abs=1e-5)
    loss, logp, sums = pair(0.5, -0.5)
    assert float(loss.detach()) == pytest.approx(0.68316, abs=1e-5)
    assert float(sums["held"]) == 1
    (gradient,) = torch.autograd.grad(loss, logp)
    assert gradient.tolist() == [[0.0], [0.0]]
    free, logp, _ = pair(0.5, -0.5, clip=None)
    (gradient,) = torch.autograd.grad(free, logp)
    assert float(gradient[0]) < 0 < float(gradient[1])


def test_step_preference_does_not_care_which_of_two_comes_first():
    one = pair(0.03, -0.02)[0]
    other = pair(-0.02, 0.03, rewards=torch.tensor([0.0, 1.0]))[0]
    assert float(one.detach()) == pytest.approx(float(other.detach()))
    tied, logp, sums = pair(0.03, -0.02, rewards=torch.ones(2))
    assert float(sums["terms"]) == 0
    (gradient,) = torch.autograd.grad(tied, logp)
    assert gradient.tolist() == [[0.0], [0.0]]


def test_reward_difference_is_zero_at_the_optimum_of_regularised_rl_alone():
    reference, rewards, beta = torch.tensor([0.2, 0.3, 0.5]).double(), torch.tensor([1.0, 0.0, 0.5]).double(), 0.5
    best = reference * (rewards / beta).exp()
    best = best / best.sum()
    torch.testing.assert_close(best, torch.tensor([0.4711, 0.0956, 0.4333]).double(), atol=1e-4, rtol=0)
    groups, there = torch.zeros(3, dtype=torch.long), everywhere(3, 1)

    def loss(p, r=rewards):
        return float(reward_difference(p.log()[:, None], reference.log()[:, None], r, groups, there, beta=beta)[0])

    assert loss(best) < 1e-12
    assert loss(best, rewards + 7) < 1e-12
    assert loss(torch.tensor([0.4, 0.2, 0.4]).double()) > 0.01


@settings(max_examples=150, deadline=None)
@given(batches(), st.floats(0.2, 2), st.one_of(st.none(), st.floats(0.01, 0.3)))
def test_reward_difference_is_its_definition(b, beta, clip):
    d = torch.where(b["mask"], b["logp"] - b["ref_logp"], 0.0)
    held = d
    if clip is not None:
        old = torch.where(b["mask"], b["old_logp"] - b["ref_logp"], 0.0)
        held = torch.stack([torch.stack([x.clamp(o - clip, o + clip) for x, o in zip(*r)]) for r in zip(d, old)])  # noqa: B905
    terms = []
    for i, j in pairs_of(b):
        if i < j:
            wanted = (b["rewards"][i] - b["rewards"][j]) / beta
            terms.append(max((x[i].sum() - x[j].sum() - wanted) ** 2 for x in (d, held)))
    chosen = {name: b[name] for name in ("rewards", "groups", "mask", "valid", "old_logp")}
    loss, sums = reward_difference(
        torch.where(b["mask"], b["logp"], torch.nan), b["ref_logp"], beta=beta, clip=clip, **chosen
    )
    assert float(sums["terms"]) == len(terms)
    expected = sum(terms) / len(terms) if terms else torch.zeros(())
    assert float(loss.detach()) == pytest.approx(float(expected), abs=1e-12)
    if terms:
        (found,) = torch.autograd.grad(loss, b["logp"])
        (wanted,) = torch.autograd.grad(expected, b["logp"])
        torch.testing.assert_close(found, wanted)


def test_a_pair_that_would_leave_the_proximal_range_has_no_gradient():
    logp = torch.tensor([[0.5], [-0.5]], dtype=torch.float64, requires_grad=True)
    old, groups = torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.long)
    for reward, moves in ((2.0, False), (-1.0, True)):
        loss, sums = reward_difference(
            logp, old, torch.tensor([reward, 0.0]), groups, everywhere(2, 1), old_logp=old, clip=0.1
        )
        (gradient,) = torch.autograd.grad(loss, logp)
        assert bool(gradient.abs().max() > 0) == moves
        assert float(sums["held"]) == (0 if moves else 1)


def test_without_bounds_reward_difference_is_the_variance_form_of_trajectory_balance():
    generator = torch.Generator().manual_seed(0)
    logp, ref = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    rewards, groups = torch.randn(5, generator=generator, dtype=torch.float64), torch.zeros(5, dtype=torch.long)
    ours, _ = reward_difference(logp, ref, rewards, groups, everywhere(5, 3), beta=0.7)
    variance, _ = reward_balance(
        logp, rewards, everywhere(5, 3), groups=groups, rows=everywhere(5), ref_logp=ref, temperature=0.7
    )
    # The mean over pairs of squared differences is 2/(n − 1) times the sum of squares, the form above their mean.
    assert float(ours) == pytest.approx(2 * 5 / 4 * float(variance))


def test_parts_of_a_batch_add_up():
    generator = torch.Generator().manual_seed(0)
    logp, ref = torch.randn(2, 6, 2, generator=generator)
    rewards, groups = torch.arange(6.0), torch.tensor([0, 0, 0, 1, 1, 1])
    for loss_of in (step_preference, reward_difference):
        whole, sums = loss_of(logp, ref, rewards, groups, everywhere(6, 2))
        parts = sum(
            loss_of(logp[p], ref[p], rewards[p], groups[p], everywhere(3, 2), denominator=float(sums["terms"]))[0]
            for p in (slice(0, 3), slice(3, 6))
        )
        torch.testing.assert_close(whole, parts)
        nothing, _ = loss_of(logp[:0], ref[:0], rewards[:0], groups[:0], everywhere(0, 2))
        assert float(nothing) == 0


def test_options_and_shapes_that_do_not_fit_are_named():
    x, r, g = torch.zeros(2, 1), torch.zeros(2), torch.zeros(2, dtype=torch.long)
    for wrong in ({"beta": 0.0}, {"clip": 1.0}):
        with pytest.raises(ValueError, match=r"beta must be positive and clip in \(0, 1\)"):
            step_preference(x, x, r, g, everywhere(2, 1), **wrong)
    with pytest.raises(ValueError, match="pass old_logp"):
        reward_difference(x, x, r, g, everywhere(2, 1), clip=0.1)
    with pytest.raises(ValueError, match="one shape"):
        reward_difference(x, x[:1], r, g, everywhere(2, 1))
    with pytest.raises(ValueError, match="rewards must be"):
        step_preference(x, x, r[:1], g, everywhere(2, 1))
    with pytest.raises(ValueError, match="later one"):
        renoised(x, 0.5, 0.5, x)
    with pytest.raises(ValueError, match="shape"):
        directed(x, x[:1])


def test_renoised_states_lie_on_the_path_of_their_own_noise():
    """The velocity is the derivative of the re-noised sample, and a clean one gives the usual target."""
    x, noise = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()
    for s, to in ((0.0, 0.4), (0.3, 0.7), (0.3, 1.0)):
        here, v = renoised(x, s, to, noise)
        before, _ = renoised(x, s, to - 1e-6, noise)
        torch.testing.assert_close((here - before) / 1e-6, v, rtol=1e-4, atol=1e-5)
    here, v = renoised(x, 0.0, 0.4, noise)
    torch.testing.assert_close(here, 0.6 * x + 0.4 * noise)
    torch.testing.assert_close(v, noise - x)


def test_re_noising_keeps_the_flow_s_marginals():
    """x_s of x₀ ~ N(1, ¼) brought to s' has its signal and noise there: (1 − s') and s'."""
    n, s, to = 200_000, 0.3, 0.6
    clean, first, second = torch.randn(3, n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clean = 1 + 0.5 * clean
    found, v = renoised((1 - s) * clean + s * first, s, to, second)
    assert float(found.mean()) == pytest.approx(1 - to, abs=0.005)
    assert float(found.var()) == pytest.approx((1 - to) ** 2 / 4 + to**2, abs=0.005)
    # Regressed on the sample, the target is the velocity E[e − x₀ | x]: slope (s' − (1 − s')/4) / V.
    slope = float(((found - found.mean()) * v).mean() / found.var())
    assert slope == pytest.approx((to - (1 - to) / 4) / ((1 - to) ** 2 / 4 + to**2), abs=0.01)


def test_directed_moves_along_the_direction_whatever_its_size():
    x0 = torch.zeros(2, 3, requires_grad=True)
    direction = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]])
    for scale in (1.0, 1000.0):
        (gradient,) = torch.autograd.grad(directed(x0, scale * direction), x0)
        torch.testing.assert_close(gradient[0], -2 * direction[0] / (2 / 3) / 6)
        assert gradient[1].tolist() == [0, 0, 0]
    (plain,) = torch.autograd.grad(directed(x0, 3 * direction, normalize=False), x0)
    torch.testing.assert_close(plain[0], -2 * 3 * direction[0] / 6)


def test_a_reference_follows_ever_more_slowly():
    model, reference = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for step, decay in ((0, 0.001), (99, 0.1), (10_000, 0.3)):
        nn.init.constant_(model.weight, 1.0)
        nn.init.constant_(reference.weight, 0.0)
        follow(reference, model, step)
        assert float(reference.weight.detach()) == pytest.approx(1 - decay, abs=1e-6)
