"""Small heads, the loop that trains them, and the losses of pairs."""

import math
import statistics

import pytest
import torch
from hypothesis import given, strategies as st

from guerdon.core import Spans
from guerdon.core.errors import GuerdonError
from guerdon.models import DisentangledHeads, LinearHead, bradley_terry, fit, length_bias, step_states

numbers = st.lists(st.floats(-50, 50), min_size=0, max_size=6)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# The loop


def test_every_row_is_learned_from_once_an_epoch_and_groups_stay_together():
    seen = []
    weight = torch.zeros(1, requires_grad=True)

    def loss(rows):
        seen.append(rows)
        return (weight**2).sum()

    groups = [7, 3, 7, 3, 5, 5, 7]
    losses = fit([weight], loss, 7, learning_rate=0.1, epochs=3, batch=2, groups=groups)
    assert len(losses) == len(seen)
    assert sorted(row for batch in seen for row in batch) == sorted([*range(7)] * 3)
    whole = {7: {0, 2, 6}, 3: {1, 3}, 5: {4, 5}}
    assert all(set(batch) in whole.values() for batch in seen)  # every group has two rows or more: a batch each
    assert len({tuple(map(tuple, seen[i : i + 3])) for i in (0, 3, 6)}) > 1


def test_the_order_depends_on_the_seed_alone():
    def orders(seed):
        seen = []
        weight = torch.zeros(1, requires_grad=True)
        fit([weight], lambda rows: seen.append(rows) or (weight**2).sum(), 9, learning_rate=1.0, batch=4, seed=seed)
        return seen

    assert orders(1) == orders(1) != orders(2)
    assert [len(batch) for batch in orders(1)] == [4, 4, 1]


def test_a_step_is_adams_and_the_gradient_is_bounded():
    """Adam's first step is the rate times the gradient's sign; a batch that teaches nothing takes none."""
    for bound in (0.0, 1.0):
        weight = torch.tensor([1.0, -1.0], requires_grad=True)
        fit([weight], lambda rows: (weight * torch.tensor([1e3, 2e3])).sum(), 1, learning_rate=0.1, max_grad_norm=bound)  # noqa: B023
        assert weight.tolist() == pytest.approx([0.9, -1.1])
    weight = torch.ones(1, requires_grad=True)
    assert fit([weight], lambda rows: torch.tensor(0.0), 1, learning_rate=0.1) == [0.0]
    assert weight.item() == 1.0


@pytest.mark.parametrize(
    ("weights", "rows", "options", "message"),
    [
        ([], 1, {}, "weights are empty"),
        ([torch.zeros(1)], 1, {}, "none of them has a gradient"),
        ([torch.zeros(1, requires_grad=True)], 0, {}, "rows, epochs, batch"),
        ([torch.zeros(1, requires_grad=True)], 1, {"epochs": 0}, "must be positive"),
        ([torch.zeros(1, requires_grad=True)], 2, {"groups": [0]}, "groups has 1 entries for 2 rows"),
    ],
    ids=["none", "frozen", "rows", "epochs", "groups"],
)
def test_fitting_names_bad_input(weights, rows, options, message):
    with pytest.raises(ValueError, match=message):
        fit(weights, lambda chosen: weights[0].sum(), rows, learning_rate=0.1, **options)


def test_a_loss_that_is_not_finite_ends_it():
    weight = torch.zeros(1, requires_grad=True)
    with pytest.raises(GuerdonError, match="step 0: the loss is nan"):
        fit([weight], lambda rows: weight.sum() * math.nan, 1, learning_rate=0.1)


# Pairs


@given(st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), max_size=6), st.sampled_from([0.0, 0.005, 2.0]))
def test_par_reward_regulariser_is_its_equation(pairs, weight):
    won, lost = (torch.tensor([pair[side] for pair in pairs], dtype=torch.float64) for side in (0, 1))
    loss = bradley_terry(won, lost, regularizer=weight)
    terms = [math.log1p(math.exp(b - a)) + weight * (a * a + b * b) for a, b in pairs]
    assert loss.item() == pytest.approx(statistics.fmean(terms) if terms else 0.0, abs=1e-9)


def test_par_regulariser_bounds_what_a_pair_can_teach():
    """Without λ the two rewards part for ever; with it they stop where σ(−2r) = 2λ r."""
    free, held = (torch.tensor([0.1], requires_grad=True) for _ in range(2))
    for weight, value in ((0.0, free), (0.005, held)):
        fit(
            [value],
            lambda rows, v=value, w=weight: bradley_terry(v, -v, regularizer=w),
            1,
            learning_rate=0.05,
            epochs=800,
        )
    assert free.item() > held.item() > 0
    r = held.item()  # d/dr [log(1 + e^{−2r}) + 2λ r²] = −2σ(−2r) + 4λ r
    assert 2 * sigmoid(-2 * r) == pytest.approx(4 * 0.005 * r, rel=0.05)


@given(numbers, st.integers(0, 2**31))
def test_odin_length_loss_is_pearsons_correlations(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    quality, verbosity = torch.randn(2, len(lengths), generator=generator, dtype=torch.float64)
    given_lengths = torch.tensor(lengths, dtype=torch.float64)
    found = length_bias(quality, verbosity, given_lengths).item()
    assert math.isfinite(found)
    if len(lengths) > 1 and max(lengths) - min(lengths) > 1e-3 * max(map(abs, lengths)):
        rho = [statistics.correlation(side.tolist(), lengths) for side in (quality, verbosity)]
        assert found == pytest.approx(abs(rho[0]) - rho[1], abs=1e-6)
    elif len(set(lengths)) < 2:
        assert found == 0.0


def test_odin_heads_do_not_overlap_where_their_weights_are_orthogonal_whatever_their_size():
    heads = DisentangledHeads(2)
    with torch.no_grad():
        heads.quality.weight.copy_(torch.tensor([[1e-3, 0.0]]))
        heads.verbosity.weight.copy_(torch.tensor([[0.0, 5.0]]))
    assert heads.overlap().item() == 0.0
    with torch.no_grad():
        heads.verbosity.weight.copy_(torch.tensor([[-3.0, 4.0]]))
    assert heads.overlap().item() == pytest.approx(0.6)
    quality, verbosity = heads(torch.tensor([[2.0, 1.0]]))
    assert (quality.item(), verbosity.item()) == pytest.approx((2e-3, -2.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bradley_terry(torch.zeros(2), torch.zeros(3)), "chosen and rejected must have one shape"),
        (lambda: bradley_terry(torch.zeros(2), torch.zeros(2), regularizer=-1), "regularizer must not be negative"),
        (lambda: length_bias(torch.zeros(2), torch.zeros(2), torch.zeros(3)), "quality, verbosity and lengths"),
        (lambda: step_states(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), Spans.of([[]])), "states"),
    ],
    ids=["pairs", "regularizer", "lengths", "states"],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# States


def test_the_state_of_a_step_is_the_mean_of_its_tokens_that_count():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 5, 3, generator=generator)
    mask = torch.tensor([[True, True, False, True, True], [True, False, False, False, False]])
    spans = Spans.of([[(0, 2), (2, 5)], [(0, 1)]])
    found = step_states(torch.where(mask[..., None], states, math.nan), mask, spans)
    assert torch.allclose(found[0, 0], states[0, :2].mean(0), atol=1e-6)
    assert torch.allclose(found[0, 1], states[0, 3:5].mean(0), atol=1e-6)
    assert torch.allclose(found[1, 0], states[1, 0], atol=1e-6)
    assert (found[1, 1] == 0).all()
    assert LinearHead(3)(found).shape == (2, 2)
