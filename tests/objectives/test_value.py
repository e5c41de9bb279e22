"""The critic's side, and VL-DAC's objective: values per step, ratios per token."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.objectives import Critic, clip, clipped_value_loss, kl_penalty, policy_gradient

numbers = st.floats(-5, 5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, numbers, st.booleans()), min_size=1, max_size=6), st.floats(0, 2))
def test_value_loss_is_its_definition(rows, bound):
    values, old, returns, mask = (torch.tensor(x) for x in zip(*rows, strict=True))
    expected, held = 0.0, 0
    for v, v_old, r, here in rows:
        if here:
            v_clip = min(max(v, v_old - bound), v_old + bound)
            expected += 0.5 * max((v - r) ** 2, (v_clip - r) ** 2)
            held += (v_clip - r) ** 2 > (v - r) ** 2 + 1e-4
    found, sums = clipped_value_loss(values, old, returns, mask, clip=bound)
    count = sum(here for *_, here in rows)
    assert float(found) == pytest.approx(expected / max(count, 1), rel=1e-4, abs=1e-5)
    assert float(sums["steps"]) == count
    assert held <= float(sums["clipped"])


def test_value_loss_gains_nothing_beyond_the_clip():
    values = torch.tensor([0.05, 0.5, -0.5], requires_grad=True)
    zero, one = torch.zeros(3), torch.ones(3)
    loss, sums = clipped_value_loss(values, zero, one, one.bool(), clip=0.1)
    loss.backward()
    # the third has moved away from its return: there the unclipped error is the larger one, and pulls
    assert values.grad.tolist() == pytest.approx([(0.05 - 1) / 3, 0.0, (-0.5 - 1) / 3])
    assert float(sums["clipped"]) == 1
    values.grad = None
    clipped_value_loss(values, zero, one, one.bool(), clip=None)[0].backward()
    assert values.grad.tolist() == pytest.approx([-0.95 / 3, -0.5 / 3, -1.5 / 3])


def test_vl_dac_critic_leaves_the_backbone_alone():
    torch.manual_seed(0)
    backbone = torch.nn.Linear(3, 4)
    returns, here = torch.ones(2), torch.ones(2, dtype=torch.bool)
    for features, moved in (("detached", False), ("shared", True)):
        backbone.zero_grad()
        critic = Critic(4, hidden=(8,), features=features)
        values = critic(backbone(torch.randn(2, 3)))
        clipped_value_loss(values, values, returns, here)[0].backward()
        assert (backbone.weight.grad is not None and bool(backbone.weight.grad.any())) == moved
        assert all(parameter.grad.any() for parameter in critic.layers[-1].parameters())


def test_a_critic_that_starts_at_zero_says_zero_and_learns():
    critic = Critic(4, hidden=(8,), start="zero")
    values = critic(torch.randn(5, 2, 4))
    assert values.shape == (5, 2)
    assert not values.any()
    values.sum().backward()
    assert critic.layers[-1].bias.grad.item() == 10
    assert Critic(4, hidden=())(torch.randn(3, 4)).shape == (3,)


def vl_dac(ratios, advantages, mask=None, **chosen):
    logp = torch.tensor(ratios, dtype=torch.float64).log().requires_grad_()
    mask = torch.ones_like(logp, dtype=torch.bool) if mask is None else mask
    advantages = torch.tensor(advantages, dtype=torch.float64)
    loss, sums = policy_gradient(logp, torch.zeros_like(logp), advantages, mask, clip=clip.guarded, **chosen)
    (gradient,) = torch.autograd.grad(loss, logp)
    return float(loss.detach()), gradient, sums


def test_vl_dac_holds_a_row_with_a_runaway_ratio_to_the_clipped_branch():
    # A = −1: unbounded at ratio 5 in the first row; the second has a ratio above 10, so all of it is clipped.
    loss, gradient, sums = vl_dac([[1.0, 5.0], [5.0, 11.0]], [-1.0, -1.0])
    assert loss == pytest.approx((1 + 5 + 1.1 + 1.1) / 4)
    assert gradient.flatten().tolist() == pytest.approx([0.25, 1.25, 0.0, 0.0])
    assert float(sums["clip_high"]) == 2
    # within the limit it is PPO
    _, gradient, _ = vl_dac([[1.0, 5.0], [5.0, 9.9]], [1.0, -1.0])
    assert gradient.flatten().tolist() == pytest.approx([-0.25, 0.0, 1.25, 9.9 / 4])


def test_vl_dac_ratio_outside_the_mask_is_no_runaway():
    mask = torch.tensor([[True, False]])
    loss, gradient, _ = vl_dac([[5.0, 50.0]], [-1.0], mask)
    assert loss == pytest.approx(5.0)
    assert gradient.flatten().tolist() == pytest.approx([5.0, 0.0])


def test_vl_dac_repeating_a_text_changes_the_product_of_ratios_and_not_the_loss():
    """Every token of a step has its step's advantage; the mean over tokens does not know how long the text is."""
    losses = [vl_dac([[1.05] * times], [2.0])[0] for times in (1, 2, 6)]
    assert losses == pytest.approx([-2.1] * 3)
    products = [policy_product(times) for times in (1, 2, 6)]
    assert products == pytest.approx([-2.0 * 1.05**times for times in (1, 2, 6)])


def policy_product(times):
    logp = torch.full((1, times), 1.05, dtype=torch.float64).log()
    loss, _ = policy_gradient(
        logp, torch.zeros_like(logp), torch.tensor([2.0]), logp > 0, ratio="product", clip=clip.none
    )
    return float(loss)


def test_vl_dac_loss_of_a_minibatch():
    """Mean over tokens of actor + β·KL, plus the value loss of the steps."""
    generator = torch.Generator().manual_seed(5)
    logp, old_logp, ref_logp = -torch.rand(3, 2, 4, generator=generator, dtype=torch.float64)
    mask = torch.arange(4) < torch.tensor([4, 2])[:, None]
    advantages, values = torch.tensor([0.855, 1.0]), torch.tensor([0.2, -0.1])
    returns, old_values = torch.tensor([1.0, 0.5]), torch.tensor([0.0, 0.0])
    expected = 0.0
    for i in range(2):
        for t in range(int(mask[i].sum())):
            r, d = float((logp - old_logp)[i, t].exp()), float((ref_logp - logp)[i, t])
            a = float(advantages[i])
            expected += (-min(r * a, min(max(r, 0.9), 1.1) * a) + 0.04 * (2.718281828459045**d - d - 1)) / 6
    expected += 0.5 * (max(0.8**2, 0.9**2) + max(0.6**2, 0.6**2)) / 2
    kl = 0.04 * kl_penalty(logp, ref_logp, mask=mask)
    actor, _ = policy_gradient(logp, old_logp, advantages, mask, clip=clip.guarded, kl=kl)
    critic, _ = clipped_value_loss(values, old_values, returns, torch.ones(2, dtype=torch.bool))
    assert float(actor + critic) == pytest.approx(expected, rel=1e-6)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="one shape"):
        clipped_value_loss(torch.zeros(2), torch.zeros(2), torch.zeros(3), torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="clip must not be negative"):
        clipped_value_loss(*[torch.zeros(2)] * 3, torch.ones(2, dtype=torch.bool), clip=-0.1)
    with pytest.raises(ValueError, match="limit is a ratio beyond the clip range"):
        clip.guarded(*[torch.ones(1, 1)] * 3, high=0.5, limit=1.2)
