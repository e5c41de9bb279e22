"""DRAGON: a reward of a whole set moves how wide a model spreads, where a reward of samples can only gather them."""

import pytest
import torch
from flows import Mixture

from guerdon.data import contrast_sets
from guerdon.objectives import pair_loss
from guerdon.objectives.denoising_errors import errors, implicit_scores
from guerdon.rewards.distribution import set_value


def aligned(value, rounds=8, n=48):
    """Mean and standard deviation of a Gaussian flow that is trained to prefer the sets that a reward prefers."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.full((2,), 0.5, dtype=torch.float64, requires_grad=True)
    spread = torch.tensor(0.5, dtype=torch.float64).log().requires_grad_()
    optimizer, one = torch.optim.Adam([mean, spread], lr=0.03), torch.ones(1, dtype=torch.float64)

    def flow(mean, spread):
        return Mixture(mean[None], (2 * spread).exp()[None], one).velocity

    for _ in range(rounds):
        noise = torch.randn(2, n, 2, generator=generator, dtype=torch.float64)
        drawn = mean.detach() + spread.detach().exp() * noise
        better, worse = contrast_sets(drawn, value, generator=generator).split(drawn)
        reference = flow(mean.detach().clone(), spread.detach().clone())
        for _ in range(12):
            noise = torch.randn(n, 2, generator=generator, dtype=torch.float64).repeat(2, 1)
            level = (0.1 + 0.7 * torch.rand(n, generator=generator, dtype=torch.float64)).repeat(2)
            both = errors(flow(mean, spread), reference, torch.cat([better, worse]), noise, level, reduce="sum")
            scores = implicit_scores(both, beta=2.0)
            loss, _ = pair_loss(scores[:n] - scores[n:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return mean.detach(), spread.exp().item()


def test_dragon_a_reward_of_the_set_widens_what_a_reward_of_samples_narrows():
    """From N(.5, .5²) to references of N(1, 1): by the Fréchet distance of the set, and by each sample's own."""
    target = Mixture.gaussian(1.0, 1.0, dimensions=2).draw(400, torch.Generator().manual_seed(1))
    frechet = set_value("frechet", target)
    mean, spread = aligned(frechet)
    assert mean.tolist() == pytest.approx([1.0, 1.0], abs=0.25)
    assert 0.75 < spread < 1.2
    alone_mean, alone = aligned(lambda sets: -((sets - target.mean(0)) ** 2).sum(-1).mean(-1))
    assert alone_mean.tolist() == pytest.approx([1.0, 1.0], abs=0.25)
    assert alone < 0.45
