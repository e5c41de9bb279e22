"""Systems of the denoising policy where the answer is known: credit and the policy gradient are those of language."""

import io
import math
from functools import partial

import pytest
import torch
from flows import Mixture, coefficients, moments
from PIL import Image
from shifted import GAUSSIAN, Shifted, affine, moved, noise, optimum, times
from torch import nn

from guerdon.credit import (
    branch_extremes,
    granular_relative,
    group_relative,
    progress,
    turning_points,
    turning_steps,
)
from guerdon.objectives import clip, denoising, policy_gradient
from guerdon.objectives.denoising import Chain, branch, complete, logp, replay, sample, step

MODES = Mixture.of([-1.0, 1.0], 0.05)


def learn(policy, loss_of, *, updates, rate, average=0.5):
    """Adam with a falling rate; the parameters end as the mean over the last part of the updates."""
    optimizer = torch.optim.Adam(policy.parameters(), lr=rate)
    mean, kept = torch.zeros_like(policy.shift.detach()), 0
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = rate * (1 - 0.9 * update / updates)
        optimizer.zero_grad()
        loss_of(update).backward()
        optimizer.step()
        if update >= average * updates:
            mean, kept = mean + policy.shift.detach(), kept + 1
    with torch.no_grad():
        policy.shift.copy_(mean / kept)


def penalty(policy, reference, trajectory, chain, beta):
    """Log-probabilities, and β times the exact KL of each step."""
    now = replay(policy, trajectory, chain)
    with torch.no_grad():
        before = replay(reference, trajectory, chain)
    return now.logp, beta * denoising.gaussian_kl(now.mean, before.mean, now.std)


@pytest.mark.parametrize(
    ("steps", "kind", "a", "variance"),
    [
        (200, "ode", 0.0, 0.245),
        (200, "flow_sde", 0.7, 0.2507),
        (200, "cps", 0.8, 0.159),
        (10, "ode", 0.0, 0.186),
        (10, "flow_sde", 0.7, 0.229),
        (10, "cps", 0.8, 0.124),
    ],
)
def test_what_each_kind_of_step_does_to_the_marginals(steps, kind, a, variance):
    """x₀ ~ N(1, ¼) with the exact velocity; the sheet's variances were sampled, these are exact."""
    s = times(steps)
    chain = [
        coefficients(step, *ends, GAUSSIAN.velocity, kind=kind, a=a)
        for ends in zip(s[:-1].tolist(), s[1:].tolist(), strict=True)
    ]
    mean, found = moments(chain)
    assert mean == pytest.approx(1.0)
    assert found == pytest.approx(variance, abs=0.0015)


def test_sampled_chains_have_the_moments_of_their_steps():
    chain = Chain(times(10), "flow_sde", 0.7)
    found = sample(GAUSSIAN.velocity, noise(40_000, torch.Generator().manual_seed(0)), chain).states[:, -1]
    assert float(found.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(found.var()) == pytest.approx(0.22996, abs=0.005)


def test_flow_grpo_in_three_lines_learns_the_tilted_optimum():
    chain, beta, generator = Chain(times(5), "dance", 0.5), 0.5, torch.Generator().manual_seed(0)
    policy, reference = Shifted(GAUSSIAN, chain), Shifted(GAUSSIAN, chain)
    groups = torch.arange(8).repeat_interleave(32)

    def loss(update):
        trajectory = sample(policy, noise(256, generator), chain, generator=generator)
        advantages = group_relative(trajectory.states[:, -1, 0], groups, scale="none")
        now, kl = penalty(policy, reference, trajectory, chain, beta)
        return policy_gradient(now, trajectory.logp, advantages, trajectory.mask, kl=kl)[0]

    learn(policy, loss, updates=80, rate=0.05)
    best = optimum(chain, reference, beta)
    start = moved(chain, reference)
    steps = affine(chain, reference)
    onward = [math.prod(s[0] for s in steps[k + 1 :]) for k in range(len(steps))]
    injected = sum((slope * std) ** 2 for slope, (_, _, std, _) in zip(onward, steps, strict=True))
    assert moved(chain, policy) - start == pytest.approx(injected / beta, rel=0.1)
    assert float((policy.shift.detach()[0] - best).norm() / best.norm()) < 0.2


def test_densegrpo_gains_are_the_noise_of_their_step_and_telescope():
    chain, generator = Chain(times(16), "flow_sde", 0.7), torch.Generator().manual_seed(0)
    trajectory = sample(GAUSSIAN.velocity, noise(1, generator).expand(2000, 1), chain, generator=generator)
    table = complete(GAUSSIAN.velocity, trajectory, chain)[..., 0]
    gains = progress(table, trajectory.mask)
    ode = sample(GAUSSIAN.velocity, trajectory.states[:, 0], chain.deterministic()).states[:, -1, 0]
    torch.testing.assert_close(gains.sum(1), trajectory.states[:, -1, 0] - ode)
    fresh = (trajectory.actions - replay(GAUSSIAN.velocity, trajectory, chain).mean)[..., 0]
    for t in range(16):
        assert abs(float(torch.corrcoef(torch.stack([gains[:, t], fresh[:, t]]))[0, 1])) > 0.96
    whole = [abs(float(torch.corrcoef(torch.stack([table[:, -1], fresh[:, t]]))[0, 1])) for t in range(16)]
    assert max(whole) < 0.36
    still = sample(GAUSSIAN.velocity, noise(3, generator), chain.deterministic())
    found = complete(GAUSSIAN.velocity, still, chain)[..., 0].diff(dim=1)
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-12, rtol=0)


def test_densegrpo_learns_each_step_from_its_own_gain_with_calibrated_noise():
    generator, beta = torch.Generator().manual_seed(0), 0.5
    table = Chain(times(8), "flow_sde", 0.5).std / (1 / 8) ** 0.5  # ψ begins as a √(s/(1 − s))
    for _ in range(3):
        chain = Chain(times(8), "dance", table)
        trajectory = sample(GAUSSIAN.velocity, noise(64, generator), chain, generator=generator)
        gains = progress(complete(GAUSSIAN.velocity, trajectory, chain)[..., 0], trajectory.mask)
        table = denoising.calibrated(table, gains)
    chain = Chain(times(8), "dance", table)
    policy, reference = Shifted(GAUSSIAN, chain), Shifted(GAUSSIAN, chain)
    groups = torch.arange(8).repeat_interleave(32)

    def loss(update):
        trajectory = sample(policy, noise(256, generator), chain, generator=generator)
        gains = progress(complete(policy, trajectory, chain)[..., 0], trajectory.mask)
        advantages = group_relative(gains, groups, pool="position", scale="none")
        now, kl = penalty(policy, reference, trajectory, chain, beta)
        return policy_gradient(now, trajectory.logp, advantages, trajectory.mask, kl=kl)[0]

    learn(policy, loss, updates=100, rate=0.05)
    steps, ode = affine(Chain(times(8), "dance", 0.5), reference), affine(chain, reference, "ode")
    std = chain.std.tolist()
    slopes = [  # ∂mean/∂v of a dance step whose a is the table's
        float(step(torch.zeros(1, 1), torch.ones(1, 1), s, to, kind="dance", a=a).mean)
        for s, to, a in zip(*(x.tolist() for x in (chain.levels[:-1], chain.levels[1:], table)), strict=True)
    ]
    best = torch.tensor(
        [math.prod(s[0] for s in ode[k + 1 :]) * std[k] ** 2 / (beta * slopes[k]) for k in range(len(steps))]
    ).double()
    assert float((policy.shift.detach()[0] - best).norm() / best.norm()) < 0.1


def test_g2rpo_learns_single_noisy_steps_seen_at_two_granularities():
    """Each of J steps has its own shared anchor; A is a z-score per granularity, so θ* = 2 σ / (β k) for two."""
    base, beta, generator = Chain(times(6), "flow_sde", 0.7), 8.0, torch.Generator().manual_seed(0)
    policy, reference = Shifted(GAUSSIAN, base), Shifted(GAUSSIAN, base)
    trained, size, prompts = torch.arange(3), 32, 3
    tables = denoising.singular(6, trained)
    groups = torch.arange(prompts).repeat_interleave(size)

    def forks():
        anchors = sample(policy, noise(prompts, generator), base.deterministic())
        for j, table in zip(trained.tolist(), tables, strict=True):
            chain = base.exploring(table)
            found = branch(policy, anchors, chain, at=j, branches=size, generator=generator)
            after = found.states[:, j + 1]
            rest = base[j + 1 :].deterministic()
            ends = [found.states[:, -1], sample(policy, after, rest.coarser(2)).states[:, -1]]
            yield chain, found, torch.stack(ends)[..., 0]

    _, found, ends = next(iter(forks()))
    fresh = found.states[:size, 1, 0] - found.states[:size, 1, 0].mean()
    assert float(torch.corrcoef(torch.stack([fresh, ends[0, :size]]))[0, 1].abs()) > 0.9999
    still = branch(policy, found, base.exploring(torch.zeros(6)), at=0, branches=2)
    assert not group_relative(still.states[:, -1, 0], torch.arange(len(still)) // 2).any()

    def loss(update):
        parts = list(forks())
        advantages = granular_relative(torch.stack([ends for _, _, ends in parts], 2), groups)
        total = 0.0
        for j, (chain, found, _) in enumerate(parts):
            now, kl = penalty(policy, reference, found, chain, beta)
            placed = advantages[:, [j]].clamp(-5, 5) * found.mask
            total = total + policy_gradient(now, found.logp, placed, found.mask, kl=kl)[0]
        return total

    learn(policy, loss, updates=40, rate=0.1)
    steps = affine(base, reference)
    best = torch.tensor([2 * steps[j][2] / (beta * steps[j][3]) for j in range(3)], dtype=torch.float64)
    assert float((policy.shift.detach()[0, :3] - best).norm() / best.norm()) < 0.1
    assert not policy.shift[0, 3:].any()


def test_turningpoint_grpo_moves_mass_to_the_better_mode():
    """Two modes, a reward for the right one, CPS steps but for the last; turns are paid with what they led to."""
    generator = torch.Generator().manual_seed(0)
    chain = Chain(times(8), "cps", denoising.uniform(8, 0.7, last=7))
    policy = Shifted(MODES, chain)
    groups, turns = torch.arange(8).repeat_interleave(24), []

    def loss(update):
        shared = noise(8, generator).repeat_interleave(24, 0)
        trajectory = sample(policy, shared, chain, generator=generator)
        table = complete(policy, trajectory, chain)[..., 0].sigmoid()
        rewards, turning = (part(table, mask=trajectory.mask) for part in (turning_points, turning_steps))
        turns.append(int(turning.sum()))
        assert int((turning & (rewards > 0)).sum()) == int((turning & (rewards < 0)).sum()) or bool(
            (rewards[turning] > 0).all() | (rewards[turning] < 0).all()
        )
        advantages = group_relative(rewards, groups, mask=trajectory.mask, pool="position").clamp(-5, 5)
        now = logp(policy, trajectory, chain)
        return policy_gradient(now, trajectory.logp, advantages, trajectory.mask, clip=partial(clip.ppo, low=1e-5))[0]

    def share():
        draws = sample(policy, noise(2000, torch.Generator().manual_seed(1)), chain, generator=generator)
        return float((draws.states[:, -1] > 0).double().mean())

    before = share()
    learn(policy, loss, updates=40, rate=0.05)
    assert before == pytest.approx(0.5, abs=0.05)
    assert share() > 0.8
    assert min(turns) > 0


def test_b2_diffurl_learns_a_sparse_reward_from_branches():
    """Two prompts, two modes, reward 1 in the prompted one; the interval grows from the clean side to the noise."""
    generator, stages = torch.Generator().manual_seed(0), 24
    levels = torch.linspace(0.02, 1.0, 11, dtype=torch.float64)
    chain = Chain(levels, "ddim", 1.0)
    policy = Shifted(MODES, chain, prompts=2)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    history, lengths = [], []

    def right(x, prompt):
        return ((x[:, 0] > 0).long() == prompt).double()

    for stage in range(stages):
        at = 10 - denoising.interval(stage, stages, shortest=7, longest=10)
        lengths.append(10 - at)
        prompt = torch.arange(2).repeat(60)
        trunk = sample(policy, noise(120, generator), chain[:at], condition={"prompt": prompt}, generator=generator)
        found = branch(policy, trunk, chain, at=at, branches=5, condition={"prompt": prompt}, generator=generator)
        prompts = prompt.repeat_interleave(5)
        rewards = right(found.states[:, -1], prompts)
        history = [*history[-8:], (rewards, prompts)]
        known, groups = (torch.cat(x) for x in zip(*history, strict=True))
        scores = group_relative(known, groups, ddof=0, eps=1e-8)[-len(rewards) :]
        advantages = branch_extremes(scores, torch.arange(120).repeat_interleave(5))
        kept = found.mask & (advantages != 0)[:, None]
        for _ in range(2):
            now = logp(policy, found, chain, mask=kept, condition={"prompt": prompts})
            loss, _ = policy_gradient(now, found.logp, advantages, kept, clip=partial(clip.ppo, low=0.1, high=0.1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert lengths[0] == 7
    assert lengths[-1] == 10
    prompt = torch.arange(2).repeat(1000)
    final = sample(policy, noise(2000, generator), chain, condition={"prompt": prompt}, generator=generator)
    assert float(right(final.states[:, -1], prompt).mean()) > 0.85


def test_d3po_raises_what_is_preferred_step_by_step():
    generator = torch.Generator().manual_seed(0)
    chain = Chain(torch.linspace(0.05, 1.0, 7, dtype=torch.float64), "ddim", 1.0)
    policy, reference = Shifted(GAUSSIAN, chain), Shifted(GAUSSIAN, chain)
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3)
    groups = torch.arange(16).repeat_interleave(7)
    means = []
    for update in range(200):
        trajectory = sample(policy, noise(112, generator), chain, generator=generator)
        rewards = trajectory.states[:, -1, 0]
        with torch.no_grad():
            before = logp(reference, trajectory, chain)
        # One step at a time, in turn.
        place = torch.arange(6) == update % 5
        loss, _ = denoising.step_preference(
            logp(policy, trajectory, chain), before, rewards, groups, trajectory.mask & place
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        means.append(float(rewards.mean()))
    assert sum(means[-20:]) / 20 > sum(means[:20]) / 20 + 0.1


def test_prdp_regresses_rewards_to_the_optimum_of_trajectories():
    """Rows of a prompt share their first noise, so the optimum over trajectories is one of the steps: θ*, at loss 0."""
    generator, beta = torch.Generator().manual_seed(0), 0.5
    chain = Chain(times(6), "dance", 0.5, reduce="sum")
    policy, reference = Shifted(GAUSSIAN, chain), Shifted(GAUSSIAN, chain)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    groups = torch.arange(8).repeat_interleave(8)
    losses = []
    for _ in range(80):
        shared = noise(8, generator).repeat_interleave(8, 0)
        trajectory = sample(policy, shared, chain, generator=generator)
        with torch.no_grad():
            before = logp(reference, trajectory, chain)
        for _ in range(3):
            loss, _ = denoising.reward_difference(
                logp(policy, trajectory, chain),
                before,
                trajectory.states[:, -1, 0],
                groups,
                trajectory.mask,
                beta=beta,
                old_logp=trajectory.logp,
                clip=0.2,
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(float(loss.detach()))
    best = optimum(chain, reference, beta)
    assert losses[-1] < 1e-3 * losses[0]
    assert float((policy.shift.detach()[0] - best).norm() / best.norm()) < 0.05


def test_rlcm_chain_has_the_marginals_of_the_consistency_model():
    """f that knows the sample and nothing of x: states at ᾱ are N(√ᾱ f, 1 − ᾱ)."""
    chain = Chain(torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64), "consistency")
    found = sample(
        lambda x, level: torch.full_like(x, 2.0), noise(50_000, torch.Generator().manual_seed(0)), chain
    ).states[..., 0]
    for k, level in enumerate((0.3, 0.7), 1):
        assert float(found[:, k].mean()) == pytest.approx(2 * math.sqrt(level), abs=0.02)
        assert float(found[:, k].var()) == pytest.approx(1 - level, abs=0.02)
    assert bool((found[:, 3] == 2).all())


@pytest.mark.parametrize("head", ["ppo", "rebel"])
def test_rlcm_moves_a_single_step_to_the_target(head):
    """H = 1, reward −|x − y|²: the mean moves to y in fewer than 500 updates; advantages by prompt."""
    generator, y = torch.Generator().manual_seed(0), torch.tensor([0.8, -0.6], dtype=torch.float64)
    chain = Chain(torch.tensor([0.0, 0.9], dtype=torch.float64), "consistency")
    mean = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = torch.optim.Adam([mean], lr=0.02)
    groups = torch.arange(4).repeat_interleave(16)

    def policy(x, level):
        return mean.expand_as(x)

    for update in range(150):
        trajectory = sample(policy, noise(64, generator, 2), chain, generator=generator)
        rewards = -((trajectory.states[:, -1] - y) ** 2).sum(1)
        advantages = group_relative(rewards, groups, eps=1e-8).clamp(-10, 10)
        now = logp(policy, trajectory, chain)
        if head == "ppo":
            bounded = partial(clip.ppo, low=1e-4, high=1e-4)
            loss, _ = policy_gradient(now, trajectory.logp, advantages, trajectory.mask, clip=bounded)
        else:
            loss, _ = denoising.reward_difference(now, trajectory.logp, advantages, groups, trajectory.mask)
        (gradient,) = torch.autograd.grad(loss, mean)
        if update == 0 and head == "ppo":  # ratios are 1: REINFORCE with a baseline
            x = trajectory.states[:, 1]
            std2 = 1 - 0.9
            expected = -(advantages[:, None] * math.sqrt(0.9) * (x - x.new_zeros(2)) / std2 / 2).mean(0)
            torch.testing.assert_close(gradient, expected)
        mean.grad = gradient
        optimizer.step()
    assert float((math.sqrt(0.9) * mean.detach() - y).norm()) < 0.12


def kilobytes(image):
    """The size of a picture in [0, 1] as JPEG at quality 95."""
    file = io.BytesIO()
    Image.fromarray((image.clamp(0, 1) * 255).round().to(torch.uint8).numpy()).save(file, "JPEG", quality=95)
    return len(file.getvalue()) / 1000


def test_rlcm_learns_pictures_that_compress_from_their_size_alone():
    """A reward without gradient, of the decoded end of two-step chains; the contrast that costs bytes goes down."""
    generator = torch.Generator().manual_seed(0)
    flat, busy = torch.full((64, 64, 3), 0.5), torch.rand(64, 64, 3, generator=generator)
    assert kilobytes(flat) < 1 < 5 < kilobytes(busy)
    chain = Chain(torch.tensor([0.0, 0.9, 1.0]), "consistency")
    texture, contrast = torch.randn(16, 16, generator=generator), nn.Parameter(torch.tensor(0.3))
    optimizer = torch.optim.Adam([contrast], lr=0.02)
    groups = torch.arange(2).repeat_interleave(16)

    def policy(x, level):
        seen = (x * texture).mean((1, 2)) / texture.square().mean()  # how much of the texture is in x
        amount = contrast + torch.where(level > 0, 0.5 * seen, 0.0)
        return amount[:, None, None] * texture

    for _ in range(30):
        start = torch.randn(32, 16, 16, generator=generator)
        trajectory = sample(policy, start, chain, generator=generator)
        pictures = (0.5 + 0.5 * trajectory.states[:, -1]).unbind()
        rewards = -torch.tensor([kilobytes(picture) for picture in pictures])
        advantages = group_relative(rewards, groups).clamp(-10, 10)
        now = logp(policy, trajectory, chain)
        loss, _ = policy_gradient(now, trajectory.logp, advantages, trajectory.mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(contrast.detach()) < 0.2


def test_rlcm_several_steps_learn_the_optimum_of_their_chain():
    generator, beta = torch.Generator().manual_seed(0), 0.5
    chain = Chain(torch.tensor([0.02, 0.3, 0.6, 0.9, 1.0], dtype=torch.float64), "consistency")
    policy, reference = Shifted(GAUSSIAN, chain), Shifted(GAUSSIAN, chain)
    groups = torch.arange(16).repeat_interleave(32)

    def loss(update):
        trajectory = sample(policy, noise(512, generator), chain, generator=generator)
        assert trajectory.mask.all(0).tolist() == [True, True, True, False]
        advantages = group_relative(trajectory.states[:, -1, 0], groups, scale="none")
        now, kl = penalty(policy, reference, trajectory, chain, beta)
        return policy_gradient(now, trajectory.logp, advantages, trajectory.mask, kl=kl)[0]

    learn(policy, loss, updates=100, rate=0.05)
    best = optimum(chain, reference, beta)
    assert float((policy.shift.detach()[0] - best).norm() / best.norm()) < 0.1
