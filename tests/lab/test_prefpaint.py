"""PrefPaint: a linear reward on features, a bound of its error, weights by it, and the policy gradient of DDIM."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from guerdon import Context, Scores, shaping
from guerdon.credit import group_relative
from guerdon.models import ErrorBound, FeatureReward
from guerdon.objectives import clip, policy_gradient
from guerdon.objectives.denoising import Chain, logp, sample

weigh = shaping.trust(kind="exponential", scale=20.0)


def trusted(bound):
    """γ = clip(exp(−.05 B + .7), 1, 2.21)."""
    weights = math.exp(0.7) * weigh(Scores.of(bound.tolist()), Context()).read(0.0)
    return torch.tensor(shaping.clip(low=1.0, high=2.21)(Scores.of(weights.tolist()), Context()).read(0.0))


def test_prefpaint_worked_weights():
    """B = 0: 2.0138; B = 10: 1.2214; from 14 on 1, never 0."""
    assert trusted(torch.tensor([0.0, 10.0, 14.0, 500.0])).tolist() == pytest.approx([2.0138, 1.2214, 1, 1], abs=5e-5)


def test_prefpaint_bound_is_the_norm_by_the_inverse_root():
    generator = torch.Generator().manual_seed(0)
    z, new = (torch.randn(n, 4, generator=generator) for n in (30, 5))
    bound = ErrorBound(4, ridge=0.5).observe(z[:10]).observe(z[10:])
    v = 0.5 * np.eye(4) + z.double().numpy().T @ z.double().numpy()
    values, vectors = np.linalg.eigh(v)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    by_hand = np.linalg.norm(new.double().numpy() @ root, axis=1)
    assert bound(new).tolist() == pytest.approx(by_hand.tolist(), rel=1e-5)
    again = ErrorBound(4)
    again.load_state_dict(bound.state_dict())
    assert torch.equal(again(new), bound(new))


def test_prefpaint_bound_holds_and_follows_the_error():
    """Ridge on noisy labels: within C B for 95 % and more, and wider where features are."""
    generator = torch.Generator().manual_seed(0)
    d, n, noise = 8, 60, 0.5
    w = torch.randn(d, generator=generator, dtype=torch.float64)
    scales = torch.linspace(0.2, 1.5, d, dtype=torch.float64)
    z = scales * torch.randn(n, d, generator=generator, dtype=torch.float64)
    labels = z @ w + noise * torch.randn(n, generator=generator, dtype=torch.float64)
    bound = ErrorBound(d, ridge=1.0).observe(z)
    fitted = torch.linalg.solve(bound.moments, z.T @ labels)
    new = (
        2
        * torch.rand(4000, 1, generator=generator, dtype=torch.float64)
        * torch.randn(4000, d, generator=generator, dtype=torch.float64)
    )
    wrong, b = (new @ (fitted - w)).abs(), bound(new)
    # The confidence ellipsoid: σ √(log det V/det λI + 2 log 1/δ) + √λ ‖w‖.
    c = noise * math.sqrt(torch.logdet(bound.moments).item() + 2 * math.log(20)) + w.norm().item()
    assert (wrong <= c * b).double().mean() > 0.95
    assert np.corrcoef(wrong, b)[0, 1] > 0.4


def test_prefpaint_reward_is_linear_in_its_features():
    torch.manual_seed(0)
    reward = FeatureReward(32, heads=4, features=8).eval()
    joined = torch.randn(6, 32)
    z = reward.features(joined)
    assert z.shape == (6, 8)
    assert torch.allclose(reward(joined), z @ reward.score.weight[0], atol=1e-6)
    assert torch.allclose(reward(joined[2:3]), reward(joined)[2:3], atol=1e-6)


def test_prefpaint_aligns_a_ddim_policy_with_weighted_advantages():
    """Reward model fitted on labels, bound from what it was fitted on, DDIM with η = 1, clip 1e-4, weights γ."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    variance, levels = 0.3, torch.tensor([0.02, 0.15, 0.4, 0.7, 0.92, 1.0])
    shift = torch.zeros((), requires_grad=True)

    def policy(x, level):
        at = level[:, None]
        return (1 - at).sqrt() * (x - at.sqrt() * shift) / (at * variance + 1 - at)

    # Embeddings of a picture and of what was masked; people like pictures near 1.
    def joined(x):
        return torch.cat([x, x**2, torch.sin(2 * x), torch.ones_like(x)], 1).repeat(1, 4)

    model = FeatureReward(16, heads=4, features=8).eval()
    seen = torch.randn(400, 1, generator=generator)
    labels = -((seen[:, 0] - 1) ** 2) + 0.1 * torch.randn(400, generator=generator)
    with torch.no_grad():
        z = model.features(joined(seen))
        bound = ErrorBound(8, ridge=1e-3).observe(z)
        fitted = torch.linalg.solve(bound.moments, z.double().T @ labels.double())
        model.score.weight.copy_(fitted[None])
    chain = Chain(levels, "ddim", 1.0)
    optimizer = torch.optim.Adam([shift], 0.05)
    rewards, weights = [], []
    for _ in range(40):
        noise = torch.randn(64, 1, generator=generator)
        trajectory = sample(policy, noise, chain, generator=generator)
        with torch.no_grad():
            z = model.features(joined(trajectory.states[:, -1]))
            r, gamma = model.score(z)[:, 0], trusted(bound(z)).float()
        advantages = group_relative(r, torch.zeros(64, dtype=torch.long), ddof=0, eps=1e-7).clamp(-10, 10)
        loss, _ = policy_gradient(
            logp(policy, trajectory, chain), trajectory.logp, advantages, trajectory.mask,
            clip=partial(clip.ppo, low=1e-4, high=1e-4), weight=gamma,
        )  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rewards.append(r.mean().item())
        weights.append(gamma)
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.4
    assert 0.5 < shift.item() < 1.5
    assert torch.cat(weights).min() >= 1
    assert torch.cat(weights).max() <= 2.0138 + 1e-4
