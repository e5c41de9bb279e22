"""RPO: learns from labels of the text reward alone, and stops where the λ-harmonic reward is best."""

import math

import numpy as np
import pytest
import torch

from guerdon import Context, Rollouts, harmonic
from guerdon.data import preference_labels
from guerdon.models import BestWeights
from guerdon.objectives import pair_loss
from guerdon.objectives.denoising_errors import Errors, errors, implicit_scores, weighted_regression
from guerdon.rewards import recorded

VARIANCE = 0.3


def similarity(column):
    """(cos + 1)/2 of a recorded cosine."""
    return (recorded.value(column=column, low=-1.0).named(column) + 1.0) * 0.5


def harmonic_of(share):
    return harmonic(similarity("image"), similarity("text"), weights=(share, 1 - share))


def scored(reward, image, text):
    rows = [
        {"prompt": "the dog on a beach", "completion": "", "image": float(a), "text": float(b)}
        for a, b in zip(image, text, strict=True)
    ]
    return reward.score(Rollouts.from_records(rows), Context()).read(math.nan)


def test_rpo_worked_example():
    """a_I = .8, a_T = .6 and λ = .3: .64865; a picture unlike its reference is worth nothing."""
    reward = harmonic_of(0.3)
    assert scored(reward, [2 * 0.8 - 1], [2 * 0.6 - 1])[0] == pytest.approx(0.64865, abs=5e-6)
    low = scored(reward, [-1.0, -0.999, -0.9, 0.9], [0.2] * 4)
    assert low[0] == 0
    assert (np.diff(low) > 0).all()
    assert low[-1] < 0.95
    assert low[1] < 0.01 < 0.3 * 0.0005 + 0.7 * 0.6


def test_rpo_loss_is_its_equation_and_log_2_at_the_reference():
    m_ref, m_gen, f_ref, f_gen, y = 0.4, 0.7, 0.5, 0.6, 0.8
    d = (f_ref - m_ref) - (f_gen - m_gen)
    by_hand = m_ref - y * math.log(1 / (1 + math.exp(-d))) - (1 - y) * math.log(1 / (1 + math.exp(d)))
    policy, reference = torch.tensor([m_ref, m_gen]), torch.tensor([f_ref, f_gen])
    s = implicit_scores(Errors(policy, reference), beta=1.0)
    loss = weighted_regression(policy[:1])[0] + pair_loss(s[:1] - s[1:], labels=torch.tensor([y]))[0]
    assert loss.item() == pytest.approx(by_hand)
    s = implicit_scores(Errors(policy, policy), beta=1.0)
    assert pair_loss(s[:1] - s[1:], labels=torch.tensor([y]))[0].item() == pytest.approx(math.log(2))


def test_rpo_labels_are_drawn_with_the_chance_of_the_rewards():
    r_ref, r_gen = np.full(100_000, 0.7), np.full(100_000, 0.2)
    drawn = preference_labels(r_ref, r_gen, rng=np.random.default_rng(0))
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert drawn.mean() == pytest.approx(1 / (1 + math.exp(-0.5)), abs=0.005)
    assert preference_labels(r_ref[:1], r_gen[:1])[0] == pytest.approx(1 / (1 + math.exp(-0.5)))


class Drift(torch.nn.Module):
    """The exact denoiser of N(μ, .3): only μ learns."""

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x, level):
        at = level[:, None]
        return (1 - at).sqrt() * (x - at.sqrt() * self.mean) / (at * VARIANCE + 1 - at)


def test_rpo_keeps_the_weights_of_the_best_lambda_harmonic_reward():
    """Text wants x = 2, the reference picture stands at 0: its reward rises to the end, what is kept is before."""
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    policy, reference = Drift(), Drift()
    optimizer = torch.optim.Adam(policy.parameters(), 0.15)

    def cosines(x):  # embeddings on a circle, one radian per unit, the picture's at 0 and the text's at 2
        return np.cos(np.clip(x, -1, 3)), np.cos(np.clip(x, -1, 3) - 2.0)

    best, history = BestWeights(policy), []
    text_only, both_sides = similarity("text"), harmonic_of(0.5)
    for _ in range(50):
        made = (
            policy.mean.detach() + VARIANCE**0.5 * torch.randn(32, generator=generator, dtype=torch.float64)
        ).numpy()
        real = VARIANCE**0.5 * rng.standard_normal(32)
        validation = scored(both_sides, *cosines(made)).mean()
        history.append((validation, scored(text_only, *cosines(made)).mean(), policy.mean.item()))
        best.observe(validation)
        r_ref, r_gen = (scored(text_only, *cosines(x)) for x in (real, made))
        labels = torch.tensor(preference_labels(r_ref, r_gen, scale=0.1, rng=rng))
        clean = torch.tensor(np.concatenate([real, made]))[:, None]
        level = (0.02 + 0.96 * torch.rand(32, generator=generator, dtype=torch.float64)).repeat(2)
        noise = torch.randn(64, 1, generator=generator, dtype=torch.float64)
        pair = errors(policy, reference, clean, noise, level, predict="noise")
        s = implicit_scores(pair, beta=1.0)
        loss = 0.02 * weighted_regression(pair.policy[:32])[0] + pair_loss(s[:32] - s[32:], labels=labels)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert history[-1][1] > history[0][1] + 0.3  # the reward that trains
    assert best.score > history[-1][0] + 0.02  # was better before
    assert policy.mean.item() > 1.4
    best.restore()
    assert 0.4 < policy.mean.item() < 1.4  # half way, where both are pleased
