"""Adv-GRPO, joined: a flow that learns from a reward which learns to tell its samples from references."""

from functools import partial

import torch
from flows import Mixture
from shifted import GAUSSIAN, Shifted, noise, times

from guerdon import Context, Rollouts
from guerdon.credit import group_relative
from guerdon.models import adversarial_reward
from guerdon.objectives import clip, denoising, policy_gradient
from guerdon.objectives.denoising import Chain, logp, sample


def learned(target, *, learning=120, rounds=120):
    """Flow-GRPO on 10 steps of which 2 are noisy, four groups of 16; the mean of the samples of each round."""
    generator = torch.Generator().manual_seed(0)
    chain = Chain(times(10), "cps", denoising.uniform(10, 0.8, first=1, last=3))
    policy, references = Shifted(GAUSSIAN, chain), Mixture.gaussian(target, 0.25)
    reward = adversarial_reward(column="x", hidden=0, normalize=False, learning_rate=0.3)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    groups, means = torch.arange(4).repeat_interleave(16), []
    for step in range(rounds):
        trajectory = sample(policy, noise(64, generator), chain, generator=generator)
        x = trajectory.states[:, -1]
        real = references.draw(64, generator)
        batch = Rollouts(["p"] * 64, [""] * 64, {"x": list(x.numpy()), "reference": list(real.numpy())})
        context = Context(batch, step=step, training=True)
        scores = reward.measure(batch, context)
        if step < learning:
            reward.update(batch, scores, context)
        advantages = group_relative(torch.as_tensor(scores.read(0.0)), groups).clamp(-5, 5)
        loss, _ = policy_gradient(
            logp(policy, trajectory, chain), trajectory.logp, advantages, trajectory.mask,
            clip=partial(clip.ppo, low=1e-5, high=1e-5),
        )  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        means.append(float(x.mean()))
    assert not policy.shift[0, [0, *range(3, 10)]].any()  # steps without noise have no gradient
    return torch.tensor(means)


def test_adv_grpo_leads_a_flow_to_the_references_on_either_side():
    for target in (0.0, 2.0):
        means = learned(target)
        assert abs(float(means[0]) - 1) < 0.2
        assert abs(float(means[-60:].mean()) - target) < 0.15


def test_adv_grpo_a_flow_runs_past_the_references_once_the_reward_stands_still():
    assert float(learned(2.0, learning=15, rounds=150)[-1]) > 2.8
