"""Errors of denoisers: what is to be predicted, implicit rewards, regression, inverted latents, guidance."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

from guerdon.objectives import pair_loss
from guerdon.objectives.denoising_errors import (
    Errors,
    errors,
    guided_velocity,
    implicit_scores,
    invert,
    noised,
    shared,
    weighted_regression,
)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def alphas(steps=1000):
    """ᾱ of Stable Diffusion's schedule."""
    return (1 - torch.linspace(0.00085**0.5, 0.012**0.5, steps, dtype=torch.float64) ** 2).cumprod(0)


def gaussian_noise(mean, variance, table):
    """E[e | x] of N(mean, variance) at training step t, from the joint normal of x and e."""

    def policy(x, t):
        level = table[t].reshape(-1, *(1,) * (x.ndim - 1))
        return (1 - level).sqrt() * (x - level.sqrt() * mean) / (level * variance + 1 - level)

    return policy


# What is to be predicted


@pytest.mark.parametrize("predict", ["velocity", "noise", "v", "clean"])
def test_sample_and_target_give_back_clean_and_noise(predict):
    clean, noise, level = torch.randn(3, 2, 2), torch.randn(3, 2, 2), torch.tensor([0.2, 0.5, 0.9])
    x, target = noised(clean, noise, level, predict=predict)
    at = level[:, None, None]
    if predict == "velocity":
        assert torch.allclose(x - at * target, clean, atol=1e-6)
        assert torch.allclose(x + (1 - at) * target, noise, atol=1e-6)
        return
    a, b = at.sqrt(), (1 - at).sqrt()
    assert torch.allclose(x, a * clean + b * noise, atol=1e-6)
    found = {"noise": noise, "clean": clean, "v": a * noise - b * clean}[predict]
    assert torch.allclose(target, found, atol=1e-6)


def test_errors_are_means_or_sums_and_the_reference_has_no_gradient():
    weight, frozen = torch.ones(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    clean, noise, level = torch.randn(2, 3), torch.randn(2, 3), torch.tensor([0.3, 1.0])

    def policy(x, t, shift):
        return weight * x + shift[:, None]

    given = {"shift": torch.tensor([0.5, 0.0])}
    x = (1 - level[:, None]) * clean + level[:, None] * noise
    by_hand = ((x + given["shift"][:, None] - (noise - clean)) ** 2).sum(1)
    for reduce, size in (("sum", 1), ("mean", 3)):
        found = errors(policy, lambda x, t, shift: frozen * x, clean, noise, level, reduce=reduce, condition=given)
        assert torch.allclose(found.policy, by_hand / size)
        assert torch.allclose(found.reference, ((noise - clean) ** 2).sum(1) / size)
    found.policy.sum().backward()
    assert weight.grad is not None
    assert frozen.grad is None


def test_reference_may_be_told_less_and_other_times():
    seen = []

    def model(x, t, **given):
        seen.append((t.tolist(), sorted(given)))
        return torch.zeros_like(x)

    clean, level, user = torch.zeros(2, 1), torch.tensor([0.3, 0.4]), torch.ones(2, 1)
    errors(
        model, model, clean, clean, level, predict="noise", times=torch.tensor([30, 40]),
        condition={"user": user}, ref_condition={},
    )  # fmt: skip
    assert seen == [([30, 40], ["user"]), ([30, 40], [])]


def test_rows_of_a_group_share_a_draw():
    draws = torch.randn(5, 2)
    found = shared(draws, torch.tensor([3, 1, 3, 1, 3]))
    assert torch.equal(found, draws[[0, 1, 0, 1, 0]])


# Implicit rewards


def test_videoalign_worked_flow_dpo():
    """E_w .48 and E_l .53 against .5 at β = 100, of which Flow-DPO takes half: .0789; equal models: log 2."""
    scores = implicit_scores(Errors(numbers(0.48, 0.53), numbers(0.5, 0.5)), beta=100 / 2)
    assert pair_loss(scores[:1] - scores[1:])[0].item() == pytest.approx(0.0789, abs=5e-5)
    pair = Errors(numbers(0.48, 0.53).requires_grad_(), numbers(0.5, 0.5).requires_grad_())
    implicit_scores(pair, beta=50.0).sum().backward()
    assert pair.policy.grad.tolist() == [-50.0, -50.0]
    assert pair.reference.grad is None
    equal = implicit_scores(Errors(numbers(0.48, 0.53), numbers(0.48, 0.53)), beta=50.0)
    loss, sums = pair_loss(equal[:1] - equal[1:])
    assert loss.item() == pytest.approx(math.log(2))
    assert sums["right"] == 0


def test_scores_take_a_beta_for_each_level():
    scores = implicit_scores(Errors(numbers(0.4, 0.4), numbers(0.5, 0.5)), beta=100 * (1 - numbers(0.5, 0.9)) ** 2)
    assert scores.tolist() == pytest.approx([2.5, 0.1])


# Regression


def test_weighted_regression_is_its_equation():
    e, r, groups = numbers(0.5, 1.0, 0.2), numbers(1.0, -1.0, 2.0), torch.tensor([1, 1, 0])
    loss, _ = weighted_regression(e, r, temperature=0.5)
    assert loss.item() == pytest.approx(
        sum(math.exp(2 * b) * a for a, b in zip(e.tolist(), r.tolist(), strict=True)) / 3
    )
    first = 2 * math.exp(2.0) / (math.exp(2.0) + math.exp(-2.0)), 2 * math.exp(-2.0) / (math.exp(2.0) + math.exp(-2.0))
    loss, _ = weighted_regression(e, r, temperature=0.5, groups=groups)
    assert loss.item() == pytest.approx((first[0] * 0.5 + first[1] * 1.0 + 0.2) / 3)
    assert weighted_regression(e)[0].item() == pytest.approx(e.mean().item())
    best = weighted_regression(e, weight=numbers(1.0, 0.0, 1.0), denominator=2)[0]
    assert best.item() == pytest.approx((0.5 + 0.2) / 2)


@given(st.integers(0, 6), st.integers(0, 2**16), st.sampled_from([0.0, 1.0, 1e3]), st.booleans())
def test_weighted_regression_is_finite(n, seed, size, grouped):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(n, generator=generator) < 0.7
    e, r = (torch.where(mask, size * torch.randn(n, generator=generator), math.nan) for _ in range(2))
    e.requires_grad_()
    groups = torch.randint(3, (n,), generator=generator) if grouped else None
    loss, _ = weighted_regression(e, r, mask=mask, groups=groups)
    loss.backward()
    assert math.isfinite(loss.item())
    assert torch.isfinite(e.grad).all()


# Inverted latents


def test_inpo_inversion_is_diffusers():
    from diffusers import DDIMInverseScheduler

    scheduler = DDIMInverseScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    scheduler.set_timesteps(10)
    table = scheduler.alphas_cumprod.double()
    policy = gaussian_noise(0.4, 0.3, table)
    clean = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # Up to t = 600 on the grid: τ = 1, 101, …, 501.
    x = clean
    for tau in scheduler.timesteps[scheduler.timesteps < 600]:
        x = scheduler.step(policy(x, tau.expand(4)), int(tau), x).prev_sample
    found = invert(policy, clean, torch.full((4,), 600), table, ends="grid", jitter=0.0)
    assert torch.allclose(found.latent, x, atol=1e-5)
    assert torch.allclose(noised(clean, found.noise, table[600].expand(4), predict="noise")[0], found.latent)


@pytest.mark.parametrize("ends", ["time", "grid"])
def test_inpo_inverted_latents_are_better_told(ends):
    """A Gaussian of variance .3 at t = 600: the exact model's error is .033 where it inverts, .054 at random noise."""
    table, generator = alphas(), torch.Generator().manual_seed(0)
    policy = gaussian_noise(0.0, 0.3, table)
    clean, noise = (torch.randn(20000, 1, dtype=torch.float64, generator=generator) for _ in range(2))
    clean, times = 0.3**0.5 * clean, torch.full((20000,), 600)
    found = invert(policy, clean, times, table, ends=ends, generator=generator)

    def error(noise):
        x = table[600].sqrt() * clean + (1 - table[600]).sqrt() * noise
        return ((policy(x, times) - noise) ** 2).mean().item()

    assert error(found.noise) == pytest.approx(0.033, abs=0.002)
    assert error(noise) == pytest.approx(0.054, abs=0.002)


def test_inpo_inverted_and_sampled_again_is_the_sample():
    """There and back with the exact score: within 1e-2 in 50 steps at unit variance, and four times nearer in 200."""
    table, clean = alphas(), numbers(-0.7, 0.1, 0.9)[:, None]
    policy, found = gaussian_noise(0.2, 1.0, table), []
    for every in (20, 5):
        x = invert(policy, clean, torch.full((3,), 981), table, every=every, jitter=0.0).latent
        for tau in range(981, 0, -every):
            here, there = table[tau], table[tau - every] if tau > every else numbers(1.0)
            said = policy(x, torch.full((3,), tau))
            x = there.sqrt() * (x - (1 - here).sqrt() * said) / here.sqrt() + (1 - there).sqrt() * said
        found.append((x - clean).abs().max().item())
    assert found[0] < 1e-2
    assert found[1] < found[0] / 3.5


def test_inpo_each_row_ends_at_its_own_time():
    table = alphas()
    policy = gaussian_noise(0.2, 0.3, table)
    clean, times = numbers(0.5, 0.5, 0.5, -1.0), torch.tensor([250, 0, 999, 1])
    together = invert(policy, clean, times, table, jitter=0.0)
    for row in range(4):
        alone = invert(policy, clean[row : row + 1], times[row : row + 1], table, jitter=0.0)
        assert together.latent[row].item() == pytest.approx(alone.latent.item())
    assert together.mask.all()


def test_inpo_time_below_the_grid_goes_nowhere_and_says_so():
    table = alphas()
    clean = numbers(0.5, -1.0)
    found = invert(gaussian_noise(0.0, 0.3, table), clean, torch.tensor([1, 150]), table, ends="grid", jitter=0.0)
    assert found.mask.tolist() == [False, True]
    assert found.latent[0] == 0.5


def test_inpo_jitter_at_the_last_step_stays_in_the_schedule():
    table, generator = alphas(), torch.Generator().manual_seed(0)
    clean = torch.zeros(20000, dtype=torch.float64)
    times = torch.full((20000,), 999)
    spread = [
        invert(lambda x, t: torch.zeros_like(x), clean, times, table, jitter=j, every=998, generator=generator).latent
        for j in (0.0, 0.5)
    ]
    # τ = 1 and 999; the first step's jitter is carried on by √(ᾱ_999/ᾱ_1), the last one has none: nothing is beyond.
    to = (1 - table[1]) / (1 - table[999]) * (1 - table[999] / table[1]) * table[999] / table[1]
    assert spread[0].std() == 0
    assert spread[1].std().item() == pytest.approx(0.5 * to.sqrt().item(), rel=0.03)


# Guidance


def test_videoalign_nrg_ends_in_the_tilted_gaussian():
    """N(1, .25) and r(x, s) = log E[e^{x₀} | x]: with w = 1 the flow ends at mean 1.25, with w = 2 at 1.5, var .25."""
    mean, variance, steps = 1.0, 0.25, 400

    def posterior(x, s):
        total = (1 - s) ** 2 * variance + s**2
        gain = (1 - s) * variance / total
        return mean + gain * (x - (1 - s) * mean), s**2 * variance / total

    def reward(x, s):
        here, spread = posterior(x[:, 0], s)
        return (here + spread / 2)[:, None].expand(-1, 2)

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    for weight, goal in ((numbers(0.4, 0.6), 1.25), (2.0, None), (0.0, 1.0)):
        x = start
        for k in range(steps):
            s = torch.full((len(x),), 1 - k / steps, dtype=torch.float64)
            clean, _ = posterior(x[:, 0], s)
            velocity = (x - clean[:, None]) / s[:, None]
            x = x - guided_velocity(velocity, x, s, reward, weight=weight) / steps
        assert x.var().item() == pytest.approx(0.25, rel=0.06)
        if goal is not None:
            assert x.mean().item() == pytest.approx(goal, abs=0.03)


# Bad input


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: noised(numbers(math.nan), numbers(0.0), numbers(0.5)), "finite"),
        (lambda: noised(numbers(0.0), numbers(0.0), numbers(0.0)), "level"),
        (lambda: noised(numbers(0.0), numbers(0.0), numbers(1.0), predict="noise"), "level"),
        (lambda: noised(numbers(0.0), numbers(0.0), numbers(0.5), predict="x0"), "predict"),
        (lambda: noised(numbers(0.0), numbers(0.0, 1.0), numbers(0.5)), "clean and noise"),
        (lambda: errors(lambda x, t: x[:, :1], None, torch.ones(1, 2), torch.ones(1, 2), numbers(0.5)), "output"),
        (lambda: implicit_scores(Errors(numbers(0.0), numbers(0.0)), beta=-1.0), "beta"),
        (lambda: implicit_scores(Errors(numbers(0.0), numbers(0.0, 1.0)), beta=1.0), "errors"),
        (lambda: weighted_regression(numbers(0.0), numbers(0.0), temperature=0.0), "temperature"),
        (lambda: shared(numbers(0.0), torch.tensor([0, 1])), "groups"),
        (lambda: guided_velocity(numbers(0.0), numbers(0.0), numbers(2.0), lambda x, s: x), "level"),
        (lambda: guided_velocity(numbers(0.0), numbers(0.0), numbers(0.5), lambda x, s: x.detach()), "differentiable"),
        (lambda: guided_velocity(numbers(0.0), numbers(0.0), numbers(0.5), lambda x, s: x.sum()), "rewards"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"times": torch.tensor([1000])}, "training steps"),
        ({"times": torch.tensor([-1])}, "training steps"),
        ({"times": numbers(3.0)}, "whole numbers"),
        ({"alphas": alphas().flip(0)}, "fall"),
        ({"clean": numbers(math.inf)}, "finite"),
        ({"every": 0}, "every"),
    ],
)
def test_bad_inversion_is_refused_before_the_model_is_called(options, words):
    given = {"clean": numbers(0.0), "times": torch.tensor([5]), "alphas": alphas(), **options}
    with pytest.raises(ValueError, match=words):
        invert(lambda x, t: pytest.fail("called"), **given)
