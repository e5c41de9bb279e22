"""TDM-R1: a generator of four deterministic steps, a surrogate of its reward, and the score of its own samples."""

import math

import pytest
import torch
from flows import Mixture
from shifted import GAUSSIAN, Shifted, moved, noise, times
from torch import nn

from guerdon.credit import group_relative, spread
from guerdon.objectives import denoising
from guerdon.objectives.denoising import Chain, complete, sample
from guerdon.objectives.preference import group_margins, pair_loss


class Tuned(nn.Module):
    """The velocity of N(1 + shift, ¼)."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x, s):
        return GAUSSIAN.velocity(x - (1 - s)[:, None] * self.shift, s) - self.shift


def clean(velocity, x, s):
    return x - s[:, None] * velocity(x, s)


def tdm_r1(*, others, guidance=0.3, reward=0.7, updates=150):
    """The mean of the generator's samples after each update, the surrogate and the fake score.

    The teacher knows N(1, ¼) of the prompt, and N(others, ¼) without a prompt. The reward is 1 above 1.3.
    """
    generator = torch.Generator().manual_seed(0)
    chain, groups = Chain(times(4), "ode"), torch.arange(4).repeat_interleave(24)
    maker, unconditional = Shifted(GAUSSIAN, chain), Mixture.gaussian(others, 0.25).velocity
    surrogate, reference, fake, teacher = Tuned(), Tuned(), Tuned(), Tuned()
    optimizer = torch.optim.Adam(
        [
            {"params": maker.parameters(), "lr": 0.01},
            {"params": surrogate.parameters(), "lr": 0.02},
            {"params": fake.parameters(), "lr": 0.1},
        ]
    )
    means = [moved(chain, maker)]
    for update in range(updates):
        trajectory = sample(maker, noise(96, generator), chain)
        rewards = (trajectory.states[:, -1, 0] > 1.3).double()
        advantages = spread(group_relative(rewards, groups), torch.ones(96, 4, dtype=torch.bool), place="all")
        k = int(torch.randint(1, 5, (), generator=generator))
        s = chain.levels[k].expand(96)
        shared = torch.rand(4, generator=generator, dtype=torch.float64).repeat_interleave(24) * 0.9 + 0.05
        to = s + (1 - s) * shared
        one = noise(4, generator).repeat_interleave(24, 0)
        x, target = denoising.renoised(trajectory.states[:, k], s, to, one)
        errors = ((surrogate(x, to) - target) ** 2).mean(1)
        with torch.no_grad():
            before = ((reference(x, to) - target) ** 2).mean(1)
        preference, _ = pair_loss(group_margins(before - errors, advantages[:, k - 1], groups))
        if update == 0:
            assert float(preference.detach()) == pytest.approx(math.log(2))

        states = trajectory.states[:, k - 1]
        made = clean(maker, states, chain.levels[k - 1].expand(96))
        again, goal = denoising.renoised(made.detach(), torch.zeros(96), to, noise(96, generator))
        score = ((fake(again, to) - goal) ** 2).mean()
        with torch.no_grad():
            towards = clean(surrogate, again, to) - clean(reference, again, to)
            asked = clean(teacher, again, to)
            back = asked - clean(fake, again, to)
            guide = 3.5 * (asked - clean(unconditional, again, to))
        moving = (
            reward * denoising.directed(made, towards)
            + guidance * denoising.directed(made, guide, normalize=False)
            + denoising.directed(made, back, normalize=False)
        )
        optimizer.zero_grad()
        (preference + score + moving).backward()
        optimizer.step()
        denoising.follow(reference, surrogate, update)
        means.append(moved(chain, maker))
    return torch.tensor(means), surrogate, fake


def test_every_state_of_a_deterministic_chain_earns_the_reward_of_its_sample():
    chain = Chain(times(4), "ode")
    maker = Shifted(GAUSSIAN, chain)
    trajectory = sample(maker, noise(96, torch.Generator().manual_seed(0)), chain)
    table = complete(maker, trajectory, chain)
    torch.testing.assert_close(table, trajectory.states[:, -1:].expand_as(table))  # no variance of r given a state


def test_tdm_r1_a_generator_of_four_steps_learns_a_reward_that_has_no_gradient():
    """The surrogate learns from all states, the generator from the surrogate and from guidance, held to the teacher by
    the score of its own samples; further than guidance alone would take it."""
    means, surrogate, fake = tdm_r1(others=0.8)
    assert float(surrogate.shift.detach()) > 0.2
    assert float(means[-1]) > 1 + 0.3 * 3.5 * 0.2 + 0.1
    # The score of its samples has followed the generator.
    assert float(fake.shift.detach()) == pytest.approx(float(means[-1]) - 1, abs=0.25)


@pytest.mark.parametrize("others", [0.8, 1.2])
def test_tdm_r1_guidance_leads_away_from_what_is_made_without_a_prompt(others):
    """Without a reward the losses are at rest where teacher + .3 · 3.5 (teacher − unconditional) = fake: for Gaussians
    of one variance, at the mean 1 + 1.05 (1 − others)."""
    means, _, _ = tdm_r1(others=others, reward=0.0, updates=200)
    assert float(means[-100:].mean()) == pytest.approx(1 + 1.05 * (1 - others), abs=0.04)
