from functools import partial

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.credit import group_relative
from guerdon.objectives import (
    clip,
    explorative,
    hybrid_policy_gradient,
    importance_ratio,
    policy_gradient,
    truncated_importance,
)

HERE = torch.ones(1, 1, dtype=torch.bool)


def one(chance):
    return torch.tensor([[chance]], dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("new", "old", "ratio", "factor"),
    [(0.25, 0.2, 0.625, 0.75**0.5), (1.0, 1.0, 1.0, 0.0), (0.3, 0.0, 1.2, 0.7**0.5)],
    ids=["worked", "sure of it", "unknown to the old policy"],
)
def test_rl_plus_worked_example(new, old, ratio, factor):
    # π_w = ½(π_old + 1), ρ = 2π/(π_old + π_w), and A · √(1 − π)
    logp, old_logp = one(new).requires_grad_(), one(max(old, 1e-200))
    loss, sums = hybrid_policy_gradient(
        logp, old_logp, torch.tensor([3.0], dtype=torch.float64), HERE, external=HERE, length=1
    )
    loss.backward()
    assert loss.item() == pytest.approx(-3 * ratio * factor)
    # dρ/dlogπ = ρ, and the factor is held constant
    assert logp.grad.item() == pytest.approx(-3 * ratio * factor)
    assert sums["external_ratio"].item() == pytest.approx(ratio)
    assert sums["external"].item() == 1


@settings(max_examples=60, deadline=None)
@given(st.floats(-800, 0), st.floats(-800, 0))
def test_rl_plus_ratio_is_bounded_by_four_however_far_the_policies_are_apart(logp, old_logp):
    x, y = (torch.tensor([[z]]) for z in (logp, old_logp))
    found = importance_ratio(x, y, HERE, ratio="mixture")
    assert 0 <= found.item() <= 4 * (1 + 1e-5)
    expected = 2 * x.double().exp() / (1.5 * y.double().exp() + 0.5)
    torch.testing.assert_close(found.double(), expected, rtol=2e-4, atol=1e-30)


def test_rl_plus_without_external_tokens_is_the_plain_policy_gradient():
    generator = torch.Generator().manual_seed(3)
    logp, old_logp = -torch.rand(2, 3, 4, generator=generator)
    rewards, mask = torch.tensor([1.0, 0.0, 0.0]), torch.arange(4) < torch.tensor([4, 2, 3])[:, None]
    advantages = group_relative(rewards, torch.zeros(3, dtype=torch.long), scale="none")
    torch.testing.assert_close(advantages, rewards - 1 / 3)
    nobody = torch.zeros_like(mask)
    found, gradients = [], []
    for objective in (
        partial(hybrid_policy_gradient, external=nobody, length=10),
        partial(policy_gradient, clip=clip.none, aggregate="constant", length=10),
    ):
        leaf = logp.clone().requires_grad_()
        loss, _ = objective(leaf, old_logp, advantages, mask)
        loss.backward()
        found.append(loss.detach())
        gradients.append(leaf.grad)
    torch.testing.assert_close(*found)
    torch.testing.assert_close(*gradients)


def test_rl_plus_sums_all_tokens_over_a_fixed_divisor():
    """Seven rollouts and a demonstration: one sum over rows × the limit on tokens, whoever wrote a token."""
    generator = torch.Generator().manual_seed(1)
    logp, old_logp = -torch.rand(2, 8, 5, generator=generator, dtype=torch.float64)
    advantages = torch.randn(8, generator=generator, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([5, 4, 1, 2, 3, 5, 2, 4])[:, None]
    external = torch.zeros_like(mask)
    external[7] = True
    expected = 0.0
    for i in range(8):
        for t in range(5):
            if not mask[i, t]:
                continue
            new, old, a = logp[i, t].exp(), old_logp[i, t].exp(), advantages[i]
            term = new / old * a if i < 7 else 2 * new / (old + 0.5 * (old + 1)) * a * (1 - new) ** 0.5
            expected -= float(term) / (8 * 20)
    kl = torch.full_like(logp, -0.001)  # an entropy bonus of 1 nat per token
    found, sums = hybrid_policy_gradient(logp, old_logp, advantages, mask, external=external, length=20, kl=kl)
    assert float(found) == pytest.approx(expected - 0.001 * int(mask.sum()) / 160)
    assert (float(sums["tokens"]), float(sums["external"])) == (26.0, 4.0)


def test_rl_plus_ablations():
    logp, old_logp = one(0.3), one(0.2)
    given_ = (logp, old_logp, torch.tensor([1.0], dtype=torch.float64), HERE)
    run = partial(hybrid_policy_gradient, *given_, external=HERE, length=1, exponent=0.0)
    assert float(run(external_ratio="probability")[0]) == pytest.approx(-0.3)
    assert float(run(external_ratio="token")[0]) == pytest.approx(-1.5)
    bounded = partial(clip.truncated, low=0.0, high=1.2)
    assert float(run(external_ratio="token", external_clip=bounded)[0]) == pytest.approx(-1.2)


def test_exploration_fades_where_the_policy_is_sure():
    chances = torch.tensor([[0.0, 0.19, 1.0]], dtype=torch.float64)
    here = torch.ones(1, 3, dtype=torch.bool)
    found = explorative(torch.tensor([-2.0]), chances.clamp(min=1e-300).log(), here)
    assert found[0].tolist() == pytest.approx([-2.0, -1.8, 0.0])
    assert explorative(torch.tensor([-2.0]), chances.log(), here, exponent=0.0).tolist() == [[-2.0] * 3]


def test_truncated_importance_is_capped_above_only():
    logp, sampler = torch.tensor([[-1.0, -1.0, -9.0]]), torch.tensor([[-1.5, -9.0, -1.0]])
    mask = torch.tensor([[True, True, True]])
    expected = [2.718281828**0.5, 5.0, 2.718281828**-8]
    assert truncated_importance(logp, sampler, mask)[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_what_does_not_fit_is_named():
    logp = torch.zeros(2, 3)
    mask = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"external must be \(2, 3\) like mask, got \(2,\)"):
        hybrid_policy_gradient(logp, logp, torch.zeros(2), mask, external=mask[:, 0], length=1)
    with pytest.raises(ValueError, match="exponent must not be negative"):
        explorative(torch.zeros(2), logp, mask, exponent=-1.0)
    with pytest.raises(ValueError, match="do not fit"):
        explorative(torch.zeros(3), logp, mask)
    with pytest.raises(ValueError, match="one shape"):
        truncated_importance(logp, logp[:1], mask)
