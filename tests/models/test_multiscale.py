from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.models.multiscale import Codebook, MultiScalePlanner, pool, residual_scales, stretch


def energy(signal):
    return float(signal.square().sum())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([(1, 2, 4, 8), (8,), (2, 8), (1, 4, 8)]))
def test_mage_scales_without_quantisation_leave_nothing(seed, scales):
    signal = torch.randn(3, 8, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rest, left = signal, [energy(signal)]
    for part in residual_scales(signal, scales):
        rest = rest - part
        left.append(energy(rest))
    assert left[-1] < 1e-28
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(left))
    torch.testing.assert_close(sum(residual_scales(signal, scales)), signal, rtol=0, atol=1e-15)


def test_mage_coarse_scales_are_means_and_the_finer_ones_what_is_left():
    signal = torch.tensor([1.0, 3.0, 5.0, 7.0])[None, :, None]
    first, second, third = (part[0, :, 0].tolist() for part in residual_scales(signal, (1, 2, 4)))
    assert (first, second, third) == ([4.0] * 4, [-2.0, -2.0, 2.0, 2.0], [-1.0, 1.0, -1.0, 1.0])


def test_mage_one_scale_is_plain_vector_quantisation():
    torch.manual_seed(0)
    book, signal = Codebook(5, 3), torch.randn(2, 4, 3)
    found = book(signal, (4,))
    for i in range(2):
        for t in range(4):
            distances = [(signal[i, t] - code).square().sum().item() for code in book.codes]
            nearest = distances.index(min(distances))
            assert int(found.ids[0][i, t]) == nearest
            torch.testing.assert_close(found.total[i, t], book.codes[nearest])
    chosen = book.codes[found.ids[0]]
    assert found.loss.item() == pytest.approx(1.25 * (chosen - signal).square().mean().item())


def test_mage_codes_pass_the_gradient_to_the_signal_and_the_codebook_its_own():
    torch.manual_seed(1)
    book, signal = Codebook(6, 2, commitment=0.25), torch.randn(3, 4, 2, requires_grad=True)
    codes = book(signal, (1, 4))
    (through,) = torch.autograd.grad((codes.total * 3).sum(), signal, retain_graph=True)
    assert (through == 3).all()
    assert torch.autograd.grad(codes.total.sum(), book.codes, retain_graph=True, allow_unused=True) == (None,)
    to_signal, to_codes = torch.autograd.grad(codes.loss, (signal, book.codes))
    assert to_signal.any()
    assert to_codes.any()
    # residual by residual, as the definition has it
    rest, loss = signal.detach(), 0.0
    for length, ids in zip((1, 4), codes.ids, strict=True):
        pooled = rest.reshape(3, length, 4 // length, 2).mean(2)
        loss += 1.25 * (book.codes[ids] - pooled).square().mean().item() / 2
        rest = rest - book.codes[ids].detach().repeat_interleave(4 // length, 1)
    assert codes.loss.item() == pytest.approx(loss)
    torch.testing.assert_close(codes.total.detach(), signal.detach() - rest)
    torch.testing.assert_close(book.sums(codes.ids, 4)[-1], codes.total.detach())


def planner(**changes):
    torch.manual_seed(0)
    shape = {"state": 1, "action": 1, "length": 8, "scales": (1, 2, 4, 8), "codes": 16, "width": 32, "layers": 2}
    return MultiScalePlanner(**(shape | changes))


def test_mage_predicts_a_scale_from_the_coarser_ones_and_the_condition_only():
    model = planner()
    first, sums = torch.randn(2, 2), [torch.randn(2, 8, 32) for _ in range(3)]
    logits = model._logits(first, sums)
    assert [x.shape for x in logits] == [(2, length, 16) for length in (1, 2, 4, 8)]
    for changed in range(3):
        other = [x + (i == changed) for i, x in enumerate(sums)]
        moved = [not torch.allclose(a, b) for a, b in zip(logits, model._logits(first, other), strict=True)]
        assert moved == [scale > changed for scale in range(4)]
    assert all(not torch.allclose(a, b) for a, b in zip(logits, model._logits(first + 1, sums), strict=True))
    # fewer scales known: the same numbers for those
    torch.testing.assert_close(model._logits(first, sums[:1])[1], logits[1])


def test_mage_planner_loss_is_cross_entropy_inverse_and_condition():
    model = planner()
    trajectories, actions = torch.randn(3, 8, 2), torch.randn(3, 1)
    ids = model.encode(trajectories).ids
    sums = model.codebook.sums(ids, 8)
    expected = 0.0
    for part, logits in zip(ids, model._logits(trajectories[:, 0], sums[:-1]), strict=True):
        for i in range(3):
            for k in range(part.shape[1]):
                expected -= logits[i, k].log_softmax(-1)[part[i, k]].item() / (3 * 15)
    whole = torch.cat([sums[-1].flatten(1), trajectories[:, 0, 1:]], 1)
    expected += (model.inverse(whole) - actions).square().mean().item()
    asked = model.adapter(torch.cat([sums[-1].flatten(1), trajectories[:, 0, :1]], 1))
    expected += (asked - trajectories[:, 0]).square().mean().item()
    assert model.planner_loss(trajectories, actions).item() == pytest.approx(expected, rel=1e-5)


def two_goals(n, generator):
    """Walks on a line from anywhere: to a goal on the left, which pays little, or on the right, which pays more."""
    side = torch.randint(2, (n,), generator=generator).float() * 2 - 1
    speed = 0.3 + 0.7 * torch.rand(n, generator=generator)
    action = (side * speed)[:, None].expand(n, 8) + 0.02 * torch.randn(n, 8, generator=generator)
    start = 8 * torch.rand(n, 1, generator=generator) - 4
    states = start + torch.cat([torch.zeros(n, 1), action.cumsum(1)[:, :-1]], 1)
    rewards = pays(action)
    to_go = rewards.flip(1).cumsum(1).flip(1)
    return torch.stack([to_go, states], -1), action[:, :1]


def pays(action):
    return torch.where(action > 0, action, -0.3 * action) / 8


def test_mage_asking_for_more_brings_more():
    model, generator = planner(layers=1), torch.Generator().manual_seed(0)
    trajectories, actions = two_goals(512, generator)
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
    for step in range(400):
        rows = torch.randint(512, (32,), generator=generator)
        loss = (
            model.autoencoder_loss(trajectories[rows])
            if step < 150
            else model.planner_loss(trajectories[rows], actions[rows])
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    targets = torch.linspace(0.1, 0.95, 18)
    state, earned = torch.full((18, 1), -2.0), torch.zeros(18)
    for _ in range(8):  # one action, then plan the next eight again
        action = model.act(state, targets)
        state, earned = state + action, earned + pays(action[:, 0])
    ranks = [x.argsort().argsort().numpy() for x in (targets, earned)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8
    # the adapter says of the first step what was asked for
    imagined = model.imagine(model.plan(torch.zeros(18, 1), targets), targets)
    assert (imagined[:, 0, 0] - targets).abs().mean() < 0.2
    drawn = [
        model.plan(torch.zeros(18, 1), targets, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("scales", [(), (2, 1, 8), (1, 3, 8), (0, 8), (8, 8)])
def test_scales_that_do_not_fit_are_refused(scales):
    with pytest.raises(ValueError, match="scales must rise and each divide the length, 8"):
        residual_scales(torch.zeros(1, 8, 1), scales)
    with pytest.raises(ValueError, match="scales must rise"):
        planner(scales=scales)


def test_a_planner_needs_the_finest_scale():
    with pytest.raises(ValueError, match="the last scale must be the length, 8"):
        planner(scales=(1, 2))


def test_pooling_a_stretched_signal_gives_it_back():
    signal = torch.randn(2, 3, 4)
    torch.testing.assert_close(pool(stretch(signal, 12), 3), signal)


def test_a_planner_in_the_units_of_the_data_is_one_on_standardised_data():
    one, other = planner(), planner()
    steps, actions = 5 * torch.randn(40, 2) + torch.tensor([3.0, -7.0]), 0.1 * torch.randn(40, 1) + 2
    other.standardize(steps, actions)
    windows, first = steps.reshape(5, 8, 2), actions[:5]
    mean, deviation = steps.mean(0), steps.std(0, correction=0)
    inner, done = (windows - mean) / deviation, (first - actions.mean()) / actions.std(correction=0)
    torch.testing.assert_close(other.autoencoder_loss(windows), one.autoencoder_loss(inner))
    torch.testing.assert_close(other.planner_loss(windows, first), one.planner_loss(inner, done))
    state, target = windows[:, 0, 1:], windows[:, 0, 0]
    plan = one.plan(inner[:, 0, 1:], inner[:, 0, 0])
    torch.testing.assert_close(other.plan(state, target), plan)
    acted = one.act(inner[:, 0, 1:], inner[:, 0, 0]) * actions.std(correction=0) + actions.mean()
    torch.testing.assert_close(other.act(state, target), acted)
    seen = one.imagine(plan, inner[:, 0, 0]) * deviation + mean
    torch.testing.assert_close(other.imagine(plan, target), seen)
    torch.testing.assert_close(other.decode(plan), one.decode(plan) * deviation + mean)
    for mine, theirs in zip(other.encode(windows).ids, one.encode(inner).ids, strict=True):
        assert torch.equal(mine, theirs)


def test_a_quantity_that_never_changes_keeps_its_unit():
    model = planner()
    model.standardize(torch.full((9, 2), 4.0), torch.zeros(9, 1))
    assert model.steps.scale.tolist() == [1.0, 1.0]
    assert torch.isfinite(model.autoencoder_loss(torch.full((2, 8, 2), 4.0)))


def test_a_planner_is_written_and_read(tmp_path):
    model = planner(scales=(2, 8), codes=5)
    model.standardize(torch.randn(9, 2) * 3, torch.randn(9, 1))
    model.save_pretrained(tmp_path / "planner")
    again = MultiScalePlanner.from_pretrained(tmp_path / "planner")
    assert not again.training
    state, target = torch.randn(4, 1), torch.randn(4)
    assert torch.equal(again.act(state, target), model.eval().act(state, target))
    assert again.options == model.options


def test_the_gradient_of_a_code_that_many_share_has_one_order():
    """Indexing adds such gradients in whatever order threads come; the same data must give the same weights."""
    torch.manual_seed(0)
    book, signal = Codebook(2, 64), torch.randn(512, 8, 64)
    found = []
    for _ in range(4):
        book.zero_grad()
        book(signal, (8,)).loss.backward()
        found.append(book.codes.grad.clone())
    assert all(torch.equal(grad, found[0]) for grad in found)
