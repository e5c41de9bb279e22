from functools import partial

import pytest
import torch

from guerdon.objectives import clip

RATIOS = torch.tensor([[0.1, 0.79, 0.9, 1.0, 1.1, 1.21, 2.9, 3.1, 50.0]], dtype=torch.float64)


def value_and_slope(rule, advantage):
    """The surrogate of each ratio, and its derivative by that ratio."""
    ratio = RATIOS.clone().requires_grad_()
    surrogate = rule(ratio, ratio.log(), torch.full_like(ratio, advantage))
    (slope,) = torch.autograd.grad(surrogate.value.sum(), ratio)
    return surrogate, slope


def test_ppo_bounds_gains_only_above_and_losses_only_below():
    rule = partial(clip.ppo, low=0.2, high=0.28)
    good, slope = value_and_slope(rule, 2.0)
    torch.testing.assert_close(good.value, 2 * torch.minimum(RATIOS, torch.tensor(1.28, dtype=torch.float64)))
    assert good.high.tolist() == [[r > 1.28 for r in RATIOS[0].tolist()]]
    assert not good.low.any()
    assert (slope == 2.0 * ~good.high).all()
    bad, slope = value_and_slope(rule, -2.0)
    torch.testing.assert_close(bad.value, -2 * torch.maximum(RATIOS, torch.tensor(0.8, dtype=torch.float64)))
    assert bad.low.tolist() == [[r < 0.8 for r in RATIOS[0].tolist()]]
    assert not bad.high.any()
    assert (slope == -2.0 * ~bad.low).all()


@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_dual_is_the_papers_maximum_with_delta_times_advantage(advantage):
    found, slope = value_and_slope(partial(clip.dual, low=0.2, high=0.3, delta=3.0), advantage)
    plain = torch.minimum(RATIOS * advantage, RATIOS.clamp(0.8, 1.3) * advantage)
    expected = torch.maximum(plain, torch.full_like(plain, 3.0 * advantage)) if advantage < 0 else plain
    torch.testing.assert_close(found.value, expected)
    assert ((slope == 0) == (found.low | found.high)).all()


def test_dual_refuses_a_bound_inside_the_clip_range():
    with pytest.raises(ValueError, match="delta bounds what `high` leaves open"):
        value_and_slope(partial(clip.dual, high=0.3, delta=1.2), 1.0)


def test_cispo_weighs_the_log_probability_and_keeps_every_gradient():
    logp = torch.tensor([[-1.0, -2.0, -0.5]], requires_grad=True)
    found = clip.cispo(torch.tensor([[0.5, 5.0, 80.0]]), logp, torch.tensor([[1.0, -1.0, -1.0]]), cap=5.0)
    found.value.sum().backward()
    assert logp.grad.tolist() == [[0.5, -5.0, -5.0]]
    assert found.value.tolist() == [[-0.5, 10.0, 2.5]]
    assert found.high.tolist() == [[False, False, True]]


def test_cispo_does_not_differentiate_the_weight():
    logp = torch.tensor([[-1.0]], requires_grad=True)
    clip.cispo((logp + 1).exp(), logp, torch.ones(1, 1)).value.sum().backward()
    assert logp.grad.item() == 1.0


@pytest.mark.parametrize(("advantage", "temperature"), [(1.5, 1.0), (-1.5, 1.05)])
def test_soft_gate_has_the_slope_of_papers_weight(advantage, temperature):
    found, slope = value_and_slope(clip.soft, advantage)
    gate = torch.sigmoid(temperature * (RATIOS - 1))
    torch.testing.assert_close(found.value, 4 / temperature * gate * advantage)
    # SAPO: the weight of a token's gradient is 4p(1 − p), which is 1 at r = 1.
    torch.testing.assert_close(slope, 4 * gate * (1 - gate) * advantage)
    assert float(slope[0, 3]) == pytest.approx(advantage)


def test_unbounded_rules():
    ratio, logp, advantages = torch.tensor([[3.0]]), torch.tensor([[-0.7]]), torch.tensor([[-2.0, 1.0]])
    torch.testing.assert_close(clip.none(ratio, logp, advantages).value, torch.tensor([[-6.0, 3.0]]))
    torch.testing.assert_close(clip.reinforce(ratio, logp, advantages).value, torch.tensor([[1.4, -0.7]]))
    for rule in (clip.none, clip.reinforce, clip.soft):
        found = rule(ratio, logp, advantages)
        assert not found.low.any()
        assert not found.high.any()
