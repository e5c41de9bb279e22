"""VideoAlign, joined: a reward of noisy latents is learned from pairs, and at sampling it leads the flow."""

import math

import pytest
import torch
from flows import Mixture

from guerdon.models import bradley_terry, fit
from guerdon.objectives.denoising_errors import guided_velocity, noised

DATA = Mixture.gaussian(1.0, 0.25)


class NoisyReward(torch.nn.Module):
    """r(x, s) = p(s) x, p linear between nodes: what x tells of the clean sample fades with the noise."""

    def __init__(self):
        super().__init__()
        self.slopes = torch.nn.Parameter(torch.zeros(9, dtype=torch.float64))

    def forward(self, x, s):
        hats = (1 - (8 * s[:, None] - torch.arange(9)).abs()).clamp(min=0)
        return x[:, 0] * (hats @ self.slopes)


def sampled(reward=None, weight=1.0, n=2000, steps=100):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    for k in range(steps):
        s = torch.full((n,), 1 - k / steps, dtype=torch.float64)
        velocity = DATA.velocity(x, s)
        if reward is not None:
            velocity = guided_velocity(velocity, x, s, reward, weight=weight)
        x = x - velocity / steps
    return x


def test_videoalign_a_reward_learned_on_noisy_latents_leads_the_flow():
    """Verdicts with P(first) = σ(x₀ − y₀): the learned slope is that of E[x₀ | x], and w = 1 tilts the data by e^{x₀}.

    A verdict on noisy latents is less sure than their mean rewards: E σ(z) ≈ σ(E z / √(1 + π/8 var z)).
    """
    generator = torch.Generator().manual_seed(0)
    n = 6000
    first, second = DATA.draw(n, generator), DATA.draw(n, generator)
    level = 0.02 + 0.96 * torch.rand(n, generator=generator, dtype=torch.float64)
    (x, _), (y, _) = (
        noised(clean, torch.randn(n, 1, generator=generator, dtype=torch.float64), level) for clean in (first, second)
    )
    labels = torch.sigmoid(first - second)[:, 0]
    reward = NoisyReward()

    def loss(rows):
        return bradley_terry(reward(x[rows], level[rows]), reward(y[rows], level[rows]), labels=labels[rows])

    fit(reward.parameters(), loss, n, learning_rate=0.1, epochs=15, batch=500)
    for s in (0.125, 0.5, 0.75):
        total = (1 - s) ** 2 * 0.25 + s**2
        exact = (1 - s) * 0.25 / total / (1 + math.pi / 8 * 2 * s**2 * 0.25 / total) ** 0.5
        at = torch.full((1,), s, dtype=torch.float64)
        assert reward(torch.ones(1, 1, dtype=torch.float64), at).item() == pytest.approx(exact, abs=0.06)
    assert sampled().mean().item() == pytest.approx(1.0, abs=0.03)
    assert sampled(reward).mean().item() == pytest.approx(1.24, abs=0.04)
    assert sampled(reward, weight=3.0).mean().item() == pytest.approx(1.72, abs=0.1)
