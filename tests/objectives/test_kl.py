"""The estimators against the KL divergence itself, over a vocabulary small enough to enumerate."""

import pytest
import torch

from guerdon.objectives import importance_ratio, kl_penalty
from guerdon.objectives.ratio import safe_exp

GENERATOR = torch.Generator().manual_seed(0)
LOGITS, REFERENCE, OLD = torch.randn(3, 1, 7, generator=GENERATOR, dtype=torch.float64)
REF_LOGP = REFERENCE.log_softmax(1)


def exact(logits):
    logp = logits.log_softmax(1)
    return (logp.exp() * (logp - REF_LOGP)).sum()


def gradient(function):
    logits = LOGITS.clone().requires_grad_()
    return torch.autograd.grad(function(logits), logits)[0]


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_expectation_is_the_divergence(kind):
    logp = LOGITS.log_softmax(1)
    torch.testing.assert_close((logp.exp() * kl_penalty(logp, REF_LOGP, kind=kind)).sum(), exact(LOGITS))


def test_k2_is_half_the_squared_log_ratio():
    found = kl_penalty(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-4.0, -2.5]]), kind="k2")
    torch.testing.assert_close(found, torch.tensor([[4.5, 0.125]]))


def expected_penalty(logits, kind, behaviour, corrected=False):
    """E over tokens of `behaviour` of the penalty, whose gradient a loss on sampled tokens follows."""
    logp = logits.log_softmax(1)
    ratio = importance_ratio(logp, behaviour, torch.ones_like(logp, dtype=torch.bool)) if corrected else None
    return (behaviour.exp() * kl_penalty(logp, REF_LOGP, kind=kind, ratio=ratio)).sum()


def test_as_a_loss_k1_has_no_expected_gradient_and_k2_that_of_the_divergence():
    own = LOGITS.log_softmax(1)
    torch.testing.assert_close(gradient(lambda x: expected_penalty(x, "k1", own)), torch.zeros_like(LOGITS))
    torch.testing.assert_close(gradient(lambda x: expected_penalty(x, "k2", own)), gradient(exact))


def test_k3_times_the_ratio_has_the_gradient_of_the_divergence_on_old_tokens():
    old = OLD.log_softmax(1)
    torch.testing.assert_close(gradient(lambda x: expected_penalty(x, "k3", old, corrected=True)), gradient(exact))
    assert not torch.allclose(gradient(lambda x: expected_penalty(x, "k3", old)), gradient(exact), rtol=1e-2)


def test_k3_far_from_the_reference_is_finite_and_still_pulls_back():
    logp = torch.tensor([[-1e4, -21.0, -19.0, -1.0, 0.0]], requires_grad=True)
    ref_logp = torch.tensor([[0.0, 0.0, 0.0, -1.0, -1e4]])
    penalty = kl_penalty(logp, ref_logp)
    penalty.sum().backward()
    assert penalty.isfinite().all()
    assert penalty[0, 0] > penalty[0, 1] > penalty[0, 2] > penalty[0, 3] == 0
    # ∂k3/∂logp = 1 − eᵈ, with eᵈ held at e²⁰ beyond d = 20
    torch.testing.assert_close(logp.grad, 1 - torch.tensor([[20.0, 20.0, 19.0, 0.0, -1e4]]).exp(), rtol=1e-5, atol=1e-6)


def test_safe_exp_is_exp_up_to_its_bound_and_smooth_there():
    x = torch.tensor([-1e6, -3.0, 0.0, 19.9, 20.0, 20.0001], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(safe_exp(x).sum(), x)
    torch.testing.assert_close(safe_exp(x)[:5], x[:5].exp())
    torch.testing.assert_close(slope[:5], x[:5].exp())
    torch.testing.assert_close(slope[5], slope[4])


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_masked_positions_reach_neither_value_nor_gradient(kind, poison):
    logp = torch.tensor([[-1.0, poison]], requires_grad=True)
    found = kl_penalty(logp, torch.tensor([[-2.0, poison]]), kind=kind, mask=torch.tensor([[True, False]]))
    found.sum().backward()
    assert found[0, 1] == 0
    assert logp.grad[0, 1] == 0
    assert logp.grad.isfinite().all()


def test_bfloat16_is_computed_in_float32_and_shapes_are_checked():
    half = torch.tensor([[-1.0]]).bfloat16()
    assert kl_penalty(half, half - 1).dtype == torch.float32
    with pytest.raises(ValueError, match="must have one shape"):
        kl_penalty(torch.zeros(2, 3), torch.zeros(2, 4))
