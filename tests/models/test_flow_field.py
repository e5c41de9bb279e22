"""A field over hidden states: what it is before it has learned, when it knows all, and what it tells apart."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.credit import rescale
from guerdon.models import FlowField, flow_deviation, flow_error, flow_loss


def there(n, t):
    return torch.ones(n, t, dtype=torch.bool)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_rlfr_a_field_that_has_not_learned_scores_8_on_unit_latents():
    """E (x₁ − ε)² = 1 + mean x₁² = 2, times s/(1 − s) = 4 at s = .8."""
    latents = torch.randn(2, 8, 20, 32, generator=seeded())
    field = FlowField(32, depth=2, hidden=16)
    scores = flow_deviation(field, latents, there(8, 20), [0.25, 0.75], generator=seeded(1))
    assert scores[:, 0].tolist() == [0.0] * 8
    assert scores[:, 1:].mean().item() == pytest.approx(8.0, rel=0.02)
    shorter = flow_deviation(field, latents * 0.5, there(8, 20), [0.25, 0.75], generator=seeded(1))
    assert shorter[:, 1:].mean().item() == pytest.approx(4 * 1.25, rel=0.02)


def test_rlfr_a_field_that_knows_the_path_scores_0():
    latents, noise = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4)

    def oracle(x, time, condition, layer):
        return latents - noise

    error = flow_error(oracle, latents, there(2, 5), [0.5], time=0.8, noise=noise)
    assert (error == 0).all()


def test_rlfr_the_field_sees_the_path_the_time_and_the_token_before():
    latents = torch.arange(12.0).reshape(1, 1, 3, 4)
    seen = {}

    def record(x, time, condition, layer):
        seen.update(x=x, time=time, condition=condition, layer=layer)
        return torch.zeros_like(x)

    noise = torch.ones(1, 1, 3, 4)
    error = flow_error(record, latents, there(1, 3), [0.25], time=0.75, noise=noise)
    assert torch.equal(seen["x"], 0.75 * latents + 0.25)
    assert seen["condition"][0, 0].tolist() == [[0.0] * 4, [0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]
    assert (seen["time"] == 0.75).all()
    assert (seen["layer"] == 0.25).all()
    assert error[0, 0, 1].item() == pytest.approx(sum((k - 1) ** 2 for k in (4, 5, 6, 7)) / 4)


def test_rlfr_each_time_weighs_its_own_error():
    """With times .5 and .9 the weights are 1 and 9, not 9 and 9."""
    latents = torch.zeros(1, 1, 2, 3)

    def constant(x, time, condition, layer):
        return torch.zeros_like(x) if float(time[0, 0, 0]) < 0.7 else x / (1 - time[..., None])

    generator = seeded(5)
    noise = [torch.randn(1, 1, 2, 3, generator=generator) for _ in range(2)]
    first = float((noise[0][0, 0, 1] ** 2).mean())
    second = float(((noise[1] + noise[1])[0, 0, 1] ** 2).mean())  # x = .1 ε, so v = ε and u = −ε
    score = flow_deviation(constant, latents, there(1, 2), [0.5], times=(0.5, 0.9), generator=seeded(5))
    assert score[0, 1].item() == pytest.approx((1 * first + 9 * second) / 2, rel=1e-5)


def test_rlfr_after_training_on_one_cluster_the_other_strays():
    """300 steps on paths in cluster A: A's mean score falls below B's, and below what it was."""
    torch.manual_seed(0)
    centre = torch.tensor([2.0, -1.0, 0.5, 0.0])
    a, b = (sign * centre + 0.1 * torch.randn(1, 8, 6, 4, generator=seeded(7)) for sign in (1, -1))
    field = FlowField(4, depth=2, hidden=24)
    optimizer = torch.optim.Adam(field.parameters(), lr=3e-3)
    generator = seeded(8)
    untrained = flow_deviation(field, a, there(8, 6), [0.5], generator=seeded(9)).mean()
    for _ in range(300):
        loss = flow_loss(field, a, there(8, 6), [0.5], generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    near, far = (flow_deviation(field, x, there(8, 6), [0.5], generator=seeded(9)).mean() for x in (a, b))
    assert near < 0.5 * far
    assert near < 0.5 * untrained


def test_rlfr_score_of_a_sequence_is_brought_to_unit_scale_by_credit():
    """True masked min-max by default, the released form beside it."""
    scores, mask = torch.tensor([[0.0, 4.0, 8.0, 6.0]]), torch.tensor([[False, True, True, True]])
    assert rescale(scores, mask).tolist() == [[0.0, 0.0, 1.0, 0.5]]
    released = rescale(scores, mask, form="second-smallest")
    assert released.tolist() == [[0.0, 0.0, 1.0, 0.5]]
    shifted = rescale(scores[:, 1:] - 9, mask[:, 1:], form="second-smallest")
    assert shifted[0, 0] < 0


def test_rlfr_rollouts_that_are_not_to_be_imitated_teach_nothing():
    latents = torch.randn(1, 2, 4, 3, generator=seeded())
    field = FlowField(3, depth=1, hidden=8)
    torch.nn.init.normal_(field.leave.weight, generator=seeded(2))
    other = latents.clone()
    other[:, 1] += 5
    losses = [
        flow_loss(field, x, there(2, 4), [0.5], weights=torch.tensor([1.0, 0.0]), generator=seeded(3))
        for x in (latents, other)
    ]
    assert losses[0] == losses[1] > 0
    assert flow_loss(field, latents, there(2, 4), [0.5], weights=torch.zeros(2)).item() == 0


def test_rlfr_gradients_stay_in_the_field():
    latents = torch.randn(1, 1, 3, 4, requires_grad=True)
    field = FlowField(4, depth=1, hidden=8)
    flow_loss(field, latents, there(1, 3), [0.5]).backward()
    assert latents.grad is None
    assert field.leave.weight.grad.abs().sum() > 0


def test_wrong_input_is_named():
    field, latents = FlowField(2, depth=1, hidden=4), torch.zeros(1, 1, 3, 2)
    with pytest.raises(ValueError, match="do not fit"):
        flow_error(field, latents, there(1, 2), [0.5], time=0.5, noise=latents)
    with pytest.raises(ValueError, match="2 layers for latents of 1"):
        flow_error(field, latents, there(1, 3), [0.5, 1.0], time=0.5, noise=latents)
    with pytest.raises(ValueError, match="times are in"):
        flow_deviation(field, latents, there(1, 3), [0.5], times=(1.0,))
    with pytest.raises(ValueError, match="must be at least 1"):
        FlowField(0)


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(0, 4), st.data())
def test_deviations_are_finite_whatever_stands_in_padding(n, t, data):
    lengths = torch.tensor(data.draw(st.lists(st.integers(0, t), min_size=n, max_size=n)))
    mask = torch.arange(t) < lengths[:, None]
    latents = torch.where(mask[..., None], torch.randn(1, n, t, 3, generator=seeded(4)), math.nan)
    noise = torch.randn(1, n, t + 2, 3, generator=seeded(6))
    field = FlowField(3, depth=1, hidden=4)
    torch.nn.init.normal_(field.leave.weight, generator=seeded(2))
    error = flow_error(field, latents, mask, [0.5], time=0.8, noise=noise[:, :, :t])
    assert torch.isfinite(error).all()
    assert (error[:, ~mask] == 0).all()
    wide = torch.nn.functional.pad(latents, (0, 0, 0, 2), value=math.nan)
    again = flow_error(field, wide, torch.nn.functional.pad(mask, (0, 2)), [0.5], time=0.8, noise=noise)
    assert torch.allclose(again[:, :, :t], error, atol=1e-6)
    assert torch.isfinite(flow_loss(field, latents, mask, [0.5]))
    assert torch.isfinite(flow_deviation(field, latents, mask, [0.5])).all()
