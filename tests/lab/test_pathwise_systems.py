"""The differentiable path, each system joined end to end where the answer is known."""

import itertools
import math

import numpy as np
import pytest
import torch
from flows import Mixture

from guerdon.audit.diversity import identity_similarity
from guerdon.credit import group_relative
from guerdon.objectives import policy_gradient
from guerdon.objectives.denoising import Chain, logp, sample, step
from guerdon.objectives.pathwise import (
    absorbing,
    balanced,
    condition_error,
    consistency_loss,
    denoise,
    directional,
    disagreement,
    drift,
    guidance,
    last_part,
    noised,
    one_step,
    parameter_drift,
    pathwise_gradient,
    recovered,
    reward_loss,
    segmental,
    self_correction,
    truncation,
)
from guerdon.objectives.pathwise.drifts import velocity_of


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def diffusion(steps):
    bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    return torch.cat([bars[torch.arange(steps - 1, -1, -1) * (1000 // steps)], torch.ones(1, dtype=torch.float64)])


class Biased(torch.nn.Module):
    """A model whose answer is known and right, and a low-rank part that is trained: a bias."""

    def __init__(self, base, *shape, start=0.0):
        super().__init__()
        self.base, self.bias = base, torch.nn.Parameter(torch.full(shape, start, dtype=torch.float64))

    def forward(self, x, time, **condition):
        return self.base(x, time, **condition) + self.bias


def test_alignprop_reward_rises_monotonically_and_truncation_keeps_the_direction():
    data, goal, chain = Mixture.gaussian(1.0, 0.25, 2), torch.tensor([2.0, 0.0]), Chain(diffusion(10), "ddim", 1.0)
    policy, noise, draws = Biased(data.noise, 2), randn(32, 2), randn(32, 10, 2, seed=1)

    def loss(graph_from):
        return pathwise_gradient(
            policy, noise, chain, lambda x: -(x - goal).square().sum(1), graph_from=graph_from, draws=draws
        )

    (full,) = torch.autograd.grad(loss(0)[0], policy.bias)
    for k in {truncation(10, kind="uniform", generator=generator(i)) for i in range(4)} | {9}:
        (short,) = torch.autograd.grad(loss(k)[0], policy.bias)
        assert torch.cosine_similarity(full, short, dim=0) > 0
    rewards = []
    for _ in range(100):
        found, sums = loss(7)
        (gradient,) = torch.autograd.grad(found, policy.bias)
        with torch.no_grad():
            policy.bias -= 0.05 * gradient
        rewards.append(sums["reward"].item() / 32)
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(rewards))
    assert rewards[-1] > rewards[0] + 1.0


def feedback(weight, *, unsure=False, steps=60):
    """A model that denoises its data perfectly, trained to hold a condition that a linear reader reads off."""
    bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    data, made = Mixture.gaussian(0.0, 0.25), generator(3)
    policy = Biased(lambda x, time: data.noise(x, bars[time.long()]), 1)
    for _ in range(steps):
        clean, noise = data.draw(128, made), torch.randn(128, 1, generator=made, dtype=torch.float64)
        label, times = 2 * (clean + 0.5), torch.randint(0, 999, (128,), generator=made)
        broken = (torch.arange(128) % 4 == 0)[:, None]
        label = torch.where(broken & torch.tensor(unsure is not None), label - 8, label)

        def read(times, clean=clean, noise=noise, broken=broken):
            x = noised(clean, noise, bars[times], kind="ddim")
            estimate = one_step(policy, x, bars[times], kind="ddim", time=times)
            # where it is broken, the reader jumps with its least change
            return 2 * estimate + torch.where(broken & torch.tensor(unsure is not None), 3 * torch.sin(2e3 * x), 0.0)

        first = read(times)
        errors, valid = condition_error(first, label)
        doubt = disagreement(first, read(times + 1)) if unsure else None
        found, _ = consistency_loss(errors, times, valid=valid, uncertainty=doubt, penalty=0.0, limit=400)
        x = noised(clean, noise, bars[times], kind="ddim")
        denoising = (policy(x, times) - noise).square().mean()
        (gradient,) = torch.autograd.grad(denoising + weight * found, policy.bias)
        with torch.no_grad():
            policy.bias -= 0.1 * gradient
    clean, noise, times = data.draw(2000, generator(9)), randn(2000, 1, seed=8), torch.full((2000,), 200)
    x = noised(clean, noise, bars[times], kind="ddim")
    held = 2 * one_step(policy, x, bars[times], kind="ddim", time=times)
    return (held - 2 * (clean + 0.5)).mean().detach().abs().item()


def test_controlnet_feedback_lowers_the_error_of_the_condition():
    without, with_feedback = feedback(0.0, unsure=None), feedback(2.0, unsure=None)
    assert without == pytest.approx(1.0, abs=0.1)  # the data do not hold the condition, by 2 · 0.5
    assert with_feedback < 0.75 * without


def test_ctrlu_does_not_follow_a_reader_where_it_is_unsure():
    plain, weighed = feedback(2.0, unsure=False), feedback(2.0, unsure=True)
    assert weighed < plain - 0.05


def test_instructvideo_edits_the_middle_of_videos():
    frames = 8
    data = Mixture.gaussian(0.0, 0.25, frames)
    chain = last_part(Chain(torch.linspace(1, 0, 21, dtype=torch.float64), "ode"), 0.6)
    policy, made = Biased(lambda x, time: data.velocity(x[..., 0], time)[..., None], frames, 1), generator(4)
    clean = data.draw(64, made)[..., None]
    start = noised(clean, randn(64, frames, 1, seed=5), chain.levels[0])
    reward = segmental(lambda f: -(f[:, 0] - 1).square(), segments=4, decay=1.0, generator=made)
    optimizer = torch.optim.SGD([policy.bias], lr=20.0)

    def distance():
        return (denoise(policy, start, chain) - 1).square().mean((0, 2)).detach()

    before = distance()
    denoised = (one_step(policy, start, chain.levels[0]) - clean).square().mean((1, 2)).detach()
    for _ in range(25):
        weight = torch.exp(-10 * denoised)
        loss, _ = pathwise_gradient(policy, start, chain, reward, graph_from=len(chain) - 1, weight=weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    gained = before - distance()
    assert gained[4] > 0.3
    assert gained[4] > 5 * gained[0].abs()


def test_r0_trains_a_few_step_generator_by_rewards_alone():
    """Two rewards of very different scale, guidance towards one mode of two, and weights held near their origin."""
    both = Mixture.of([[-1.0, 0.0], [1.0, 0.0]], variance=0.05)
    one = Mixture.of([[1.0, 0.0]], variance=0.05)

    def trained(held, steps=40):
        policy, made = Biased(both.velocity, 2), generator(6)
        origin = policy.bias.detach().clone()
        optimizer = torch.optim.Adam([policy.bias], lr=0.02)
        for _ in range(steps):
            eta = torch.rand(4, generator=made, dtype=torch.float64)
            chain = Chain(torch.linspace(1, 0, 5, dtype=torch.float64), "cps", 2 / math.pi * torch.asin(eta))
            noise = torch.randn(32, 2, generator=made, dtype=torch.float64)
            implicit = guidance(one.velocity, both.velocity, level=0.7, generator=made)
            reward = balanced(
                lambda x: -1000 * (x[:, 1] - 1).square(), lambda x: -(x[:, 1] - 1).square(), implicit,
                weights=[1.0, 1.0, 1.0],
            )  # fmt: skip
            at = int(torch.randint(0, 4, (), generator=made))
            loss, _ = pathwise_gradient(policy, noise, chain, reward, estimate_at=at, generator=made)
            loss = loss + held * parameter_drift([policy.bias], [origin])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        chain = Chain(torch.linspace(1, 0, 5, dtype=torch.float64), "cps", 0.3)
        return denoise(policy, randn(400, 2, seed=7), chain, generator=generator(8)).detach(), policy.bias.detach()

    before, _ = trained(0.0, steps=0)
    after, far = trained(0.0)
    _, near = trained(1e3)
    assert after[:, 1].mean() > before[:, 1].mean() + 0.3
    assert after[:, 0].mean() > before[:, 0].mean() + 0.1
    assert near.norm() < 0.1 * far.norm()


def test_d2_align_keeps_prompts_apart_where_the_frozen_reward_makes_them_one():
    subjects, taste = torch.eye(4, dtype=torch.float64)[:3], torch.eye(4, dtype=torch.float64)[3]
    text = torch.nn.functional.normalize(subjects + 1.5 * taste, dim=1)
    prompts = torch.arange(24) % 3
    chain = Chain(torch.linspace(1, 0, 5, dtype=torch.float64), "ode")

    def velocity(x, time, center):  # of N(center, 0.01), exactly
        s = time[:, None]
        variance = (1 - s) ** 2 * 0.01 + s**2
        away = (x - (1 - s) * center) / variance
        return s * away - (center + (1 - s) * 0.01 * away)

    def embed(x):
        return torch.nn.functional.normalize(x, dim=1)

    condition, noise = {"center": subjects[prompts]}, randn(24, 4, seed=1)
    with torch.no_grad():
        frozen = embed(denoise(velocity, noise, chain, condition=condition))
    b = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([b], lr=0.05)
    for _ in range(150):
        loss = -directional(frozen, text[prompts], b).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    b = b.detach()
    assert b[3] < -0.3  # against the taste, which is in no prompt

    def alike(reward):
        """After training on one step back from the policy's own samples, whose noise is known."""
        policy, made = Biased(velocity, 4), generator(2)
        optimizer = torch.optim.Adam([policy.bias], lr=0.25)
        for _ in range(30):
            with torch.no_grad():
                clean = denoise(policy, noise, chain, condition=condition)
            fresh = torch.randn(24, 4, generator=made, dtype=torch.float64)
            x, time = noised(clean, fresh, 0.75), torch.full((24,), 0.75, dtype=torch.float64)
            taken = step(x, policy(x, time, **condition), 0.75, 0.5, kind="ode")
            loss, _ = reward_loss(reward(embed(recovered(taken.mean, fresh, 0.5))))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        made = embed(denoise(policy, noise, chain, condition=condition)).detach().numpy()
        return identity_similarity(np.stack([made[prompts == k].mean(0) for k in range(3)]))

    start = identity_similarity(np.stack([frozen[prompts == k].mean(0).numpy() for k in range(3)]))
    corrected = alike(lambda e: directional(e, text[prompts], b))
    plain = alike(lambda e: torch.cosine_similarity(e, text[prompts]))
    assert plain > start + 0.3
    assert corrected < start + 0.1


def test_soar_undoes_a_bias_of_the_policy():
    data, made = Mixture.gaussian(1.0, 0.25, 2), generator(2)
    policy = Biased(data.velocity, 2, start=1.0)
    optimizer = torch.optim.SGD([policy.bias], lr=0.3)
    for _ in range(40):
        clean, noise = data.draw(64, made), torch.randn(64, 2, generator=made, dtype=torch.float64)
        time = torch.randn(64, generator=made, dtype=torch.float64).sigmoid()
        loss, _ = self_correction(
            policy, clean, noise, time, (time - 1 / 40).clamp(min=0), kinds=("ode", "cps"), points=2, generator=made
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert policy.bias.abs().max() < 0.15
    chain = Chain(torch.linspace(1, 0, 11, dtype=torch.float64), "ode")
    assert (denoise(policy, randn(2000, 2, seed=3), chain).mean(0) - 1).abs().max() < 0.15


def euphonium(levels=9):
    return Chain(torch.linspace(1, 0, levels, dtype=torch.float64)[: levels - 1], "dance", 0.25)


def slope(x, time):
    return x[:, 0]


def test_euphonium_a_gaussian_is_led_along_the_gradient_the_more_the_stronger():
    data, chain, noise = Mixture.gaussian(0.0, 1.0, 2), euphonium(), randn(500, 2)

    def mean(strength):
        guide = drift(slope, chain, strength=strength)
        return sample(data.velocity, noise, chain, generator=generator(1), guide=guide).states[:, -1].mean(0)

    plain, weak, strong = mean(0.0), mean(1.0), mean(2.0)
    # N(0, 1) and a linear reward: the drift is affine, so that the shift is in proportion to k
    assert weak[0] > plain[0] + 0.2
    assert (strong - plain)[0].item() == pytest.approx(2 * (weak - plain)[0].item(), rel=1e-6)
    assert (strong - plain)[1].item() == pytest.approx(0.0, abs=1e-9)


def test_euphonium_distillation_goes_unguided_where_the_guide_led():
    data, chain, noise = Mixture.gaussian(0.0, 1.0, 2), euphonium(), randn(64, 2)
    policy = Biased(data.velocity, 2)
    guide, seen = drift(slope, chain, strength=0.8), []

    def recording(x, time, taken):
        shift = guide(x, time, taken)
        i = int((chain.levels - time[0]).abs().argmin())
        level, following = (chain.levels[k].expand(len(x)) for k in (i, i + 1))
        v = velocity_of(taken, x, level, following)
        seen.append((x, time, absorbing(v, shift, level, following, std=taken.std)))
        return shift

    led = sample(policy, noise, chain, generator=generator(1), guide=recording).states[:, -1]
    for _ in range(200):
        loss = torch.stack([(policy(x, time) - target).square().mean() for x, time, target in seen]).mean()
        (gradient,) = torch.autograd.grad(loss, policy.bias)
        with torch.no_grad():
            policy.bias -= 0.5 * gradient
    alone = sample(policy, noise, chain, generator=generator(1)).states[:, -1]
    torch.testing.assert_close(alone.mean(0), led.mean(0), atol=0.02, rtol=0)
    assert led.mean(0)[0] > noise.mean(0)[0] + 0.2


def test_euphonium_dual_rewards_by_the_shared_credit_and_policy_gradient():
    data, chain = Mixture.gaussian(0.0, 1.0, 2), euphonium(7)
    policy, made = Biased(data.velocity, 2), generator(5)
    groups, optimizer = torch.arange(64) // 8, torch.optim.Adam([policy.bias], lr=0.05)
    guide = drift(slope, chain, strength=0.5, first=2)
    for _ in range(30):
        start = torch.randn(8, 2, generator=made, dtype=torch.float64).repeat_interleave(8, 0)
        path = sample(policy, start, chain, generator=made, guide=guide)
        outcome = group_relative(path.states[:, -1, 0], groups)
        process = torch.stack([group_relative(path.states[:, k + 1, 0], groups) for k in range(len(chain))], 1)
        now = logp(policy, path, chain)
        loss = sum(policy_gradient(now, path.logp, a, path.mask)[0] for a in (outcome, process))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    noise = randn(400, 2, seed=9)
    after = sample(policy, noise, chain, generator=generator(1)).states[:, -1].mean(0)
    before = sample(data.velocity, noise, chain, generator=generator(1)).states[:, -1].mean(0)
    assert (after - before)[0] > 0.3
    assert (after - before)[1].abs() < 0.5 * (after - before)[0]
