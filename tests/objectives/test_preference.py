"""Losses of implicit rewards against their equations: pairs, ties, single samples, ranked groups, group margins."""

import itertools
import math

import pytest
import torch
from hypothesis import given, strategies as st

from guerdon.objectives import group_margins, group_preference, pair_loss, pair_terms, ranked_loss, unpaired_loss


def sigma(x):
    return 1 / (1 + math.exp(-x))


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


# Pairs


@pytest.mark.parametrize("theta", [1.0, 1.5, 5.0])
@pytest.mark.parametrize("margin", [-3.0, -0.2, 0.0, 1.7])
def test_first_second_and_tie_are_all_there_is(theta, margin):
    d = numbers(margin)
    said = [pair_terms(d, labels=numbers(y), theta=theta) for y in (1.0, 0.0)]
    if theta > 1:
        said.append(pair_terms(d, tied=torch.tensor([True]), theta=theta))
    assert sum(math.exp(-term.item()) for term in said) == pytest.approx(1.0, abs=1e-12)
    assert math.exp(-said[0].item()) == pytest.approx(math.exp(margin) / (math.exp(margin) + theta))


def test_videoalign_worked_ties():
    """At D = 0 and θ = 5: ln 6 for a strict verdict, .4055 for a tie."""
    terms = pair_terms(numbers(0.0, 0.0), tied=torch.tensor([False, True]), theta=5.0)
    assert terms.tolist() == pytest.approx([math.log(6), 0.4055], abs=5e-5)


def test_soft_labels_are_means_of_verdicts():
    d, y = numbers(0.7, -1.2), numbers(0.3, 0.9)
    soft = pair_terms(d, labels=y)
    by_hand = [
        -p * math.log(sigma(x)) - (1 - p) * math.log(sigma(-x)) for x, p in zip(d.tolist(), y.tolist(), strict=True)
    ]
    assert soft.tolist() == pytest.approx(by_hand)


def test_an_offset_is_what_the_first_is_to_earn_more():
    """−log σ(D − m) for the first, −log σ(m − D) for the second; who is right is still said by D."""
    d, m, y = numbers(0.7, 0.7, -1.0, 9.0), numbers(1.5, -0.3, -2.0, math.nan), numbers(1.0, 1.0, 0.0, 1.0)
    mask = torch.tensor([True, True, True, False])
    loss, sums = pair_loss(d, labels=y, offset=m, mask=mask)
    by_hand = [sigma(0.7 - 1.5), sigma(0.7 + 0.3), sigma(-2.0 + 1.0)]
    assert loss.item() == pytest.approx(-sum(map(math.log, by_hand)) / 3)
    assert (sums["strict"], sums["right"]) == (3, 3)
    assert pair_terms(d, offset=0.57)[0].item() == pytest.approx(-math.log(sigma(0.13)))


def test_a_weight_is_how_much_a_pair_counts_and_is_not_divided_by():
    d = torch.tensor([0.4, -2.0, 1.0], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([True, True, False])
    weight = numbers(3.0, 0.0, math.nan).requires_grad_()
    loss, _ = pair_loss(d, weight=weight, mask=mask)
    loss.backward()
    assert weight.grad is None
    assert loss.item() == pytest.approx(-3 * math.log(sigma(0.4)) / 2)
    assert d.grad.tolist() == pytest.approx([-3 * (1 - sigma(0.4)) / 2, 0, 0])
    assert pair_loss(d.detach(), weight=2.0)[0].item() == pytest.approx(2 * pair_loss(d.detach())[0].item())
    with pytest.raises(ValueError, match="weight must not be negative"):
        pair_loss(d, weight=-1.0)
    for name in ("offset", "weight"):
        with pytest.raises(ValueError, match=f"{name} must be a number or"):
            pair_loss(d, **{name: numbers(1.0, 2.0)})


def test_pairs_without_verdict_reach_neither_loss_nor_gradient():
    d = torch.tensor([1.0, math.nan, -2.0], requires_grad=True)
    labels, tied = torch.tensor([1.0, math.nan, 0.0]), torch.tensor([False, True, False])
    mask = torch.tensor([True, False, True])
    loss, sums = pair_loss(d, labels=labels, tied=tied, theta=2.0, mask=mask)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * (math.log(1 + 2 * math.exp(-1)) + math.log(1 + 2 * math.exp(-2))))
    assert d.grad[1] == 0
    assert torch.isfinite(d.grad).all()
    assert {name: value.item() for name, value in sums.items()} == {"pairs": 2, "strict": 2, "right": 2}


def test_right_needs_a_strict_margin_and_a_strict_label():
    d, y = numbers(0.0, 1.0, 1.0, -1.0, 3.0), numbers(1.0, 1.0, 0.5, 1.0, 1.0)
    _, sums = pair_loss(d, labels=y, tied=torch.tensor([False] * 4 + [True]), theta=2.0)
    assert (sums["pairs"], sums["strict"], sums["right"]) == (5, 3, 1)


def test_parts_of_a_batch_add_up():
    generator = torch.Generator().manual_seed(0)
    d, y, s = (torch.rand(6, generator=generator, dtype=torch.float64) for _ in range(3))
    parts = [slice(0, 2), slice(2, 6)]
    whole = pair_loss(d, labels=y)[0]
    assert sum(pair_loss(d[p], labels=y[p], denominator=6)[0] for p in parts).item() == pytest.approx(whole.item())
    whole = unpaired_loss(s, y > 0.5, anchor=0.1)[0]
    pieces = sum(unpaired_loss(s[p], y[p] > 0.5, anchor=0.1, denominator=6)[0] for p in parts)
    assert pieces.item() == pytest.approx(whole.item())
    groups = torch.tensor([0, 0, 1, 1, 1, 2])
    whole = ranked_loss(s, d, groups)[0]
    pieces = sum(ranked_loss(s[p], d[p], groups[p], denominator=2)[0] for p in parts)
    assert pieces.item() == pytest.approx(whole.item())


# Single samples


def test_kto_is_its_equation():
    s = numbers(0.4, -0.3, 1.5, 0.2)
    desired = torch.tensor([True, False, True, False])
    z = max(0.0, sum(s.tolist()) / 4)
    terms = [
        (2.0 * (1 - sigma(r - z))) if good else (0.5 * (1 - sigma(z - r)))
        for r, good in zip(s.tolist(), desired, strict=True)
    ]
    loss, sums = unpaired_loss(s, desired, positive=2.0, negative=0.5)
    assert loss.item() == pytest.approx(sum(terms) / 4)
    assert (sums["samples"], sums["right"]) == (4, 3)


def test_kto_leaves_alone_what_is_settled():
    s = numbers(0.0, 12.0, -12.0).requires_grad_()
    unpaired_loss(s, torch.tensor([True] * 3), anchor=0.0)[0].backward()
    assert s.grad[0] < 0
    assert abs(s.grad[1]) < 1e-4 * abs(s.grad[0])
    assert abs(s.grad[2]) < 1e-4 * abs(s.grad[0])


# Ranked groups


def plackett_luce(s, r, tau):
    """Place by place, from the definition."""
    order = sorted(range(len(s)), key=lambda i: -r[i])
    loss = 0.0
    for i in range(len(s) - 1):
        rest = order[i:]
        top = max(r[j] for j in rest)
        weights = [math.exp((r[j] - top) / tau) if tau else float(r[j] == top) for j in rest]
        loss += math.log(sum(math.exp(s[j]) for j in rest))
        loss -= sum(w * s[j] for w, j in zip(weights, rest, strict=True)) / sum(weights)
    return loss


@pytest.mark.parametrize(("tau", "value"), [(0.05, 0.9175), (0.5, 1.4366)])
def test_gdro_worked_example(tau, value):
    s, r, groups = numbers(1.0, 0.2, -0.5), numbers(1.0, 0.5, 0.0), torch.zeros(3, dtype=torch.long)
    assert ranked_loss(s, r, groups, temperature=tau)[0].item() == pytest.approx(value, abs=5e-5)


def test_gdro_of_two_is_dpo():
    loss, _ = ranked_loss(numbers(1.0, 0.2), numbers(1.0, 0.0), torch.zeros(2, dtype=torch.long), temperature=0.0)
    assert loss.item() == pytest.approx(0.3711, abs=5e-5)
    assert loss.item() == pytest.approx(pair_loss(numbers(0.8))[0].item())


def test_gdro_at_zero_temperature_is_the_likelihood_of_the_order():
    """exp(−loss) of all orders adds up to 1."""
    s, groups = numbers(0.3, -1.1, 0.8), torch.zeros(3, dtype=torch.long)
    chances = [
        math.exp(-ranked_loss(s, numbers(*order), groups, temperature=0.0)[0].item())
        for order in itertools.permutations([1.0, 2.0, 3.0])
    ]
    assert sum(chances) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("tau", [0.0, 0.1, 2.0])
def test_gdro_over_groups_in_any_order_with_abstentions(tau):
    s = numbers(0.1, 2.0, -0.4, 0.9, 0.0, -1.0, 7.0)
    r = numbers(0.5, 0.1, 0.9, 0.2, 0.7, math.nan, 3.0)
    groups = torch.tensor([4, 1, 4, 1, 4, 1, 9])
    mask = ~r.isnan()
    s = torch.where(mask, s, math.nan).requires_grad_()
    loss, sums = ranked_loss(s, r, groups, temperature=tau, mask=mask)
    loss.backward()
    lists = [([0.1, -0.4, 0.0], [0.5, 0.9, 0.7]), ([2.0, 0.9], [0.1, 0.2])]
    assert loss.item() == pytest.approx(sum(plackett_luce(*each, tau) for each in lists) / 2)
    assert sums["groups"] == 2
    assert torch.isfinite(s.grad).all()
    assert s.grad[5] == 0
    assert s.grad[6] == 0
    for group in (1, 4):  # a constant on a group changes nothing
        assert s.grad[groups == group].sum().item() == pytest.approx(0.0, abs=1e-12)


def test_gdro_top_one_only():
    s, r, groups = numbers(0.3, -1.1, 0.8), numbers(0.2, 0.9, 0.4), torch.zeros(3, dtype=torch.long)
    weights = [math.exp(x / 0.05) for x in r.tolist()]
    by_hand = math.log(sum(math.exp(x) for x in s.tolist()))
    by_hand -= sum(w * x for w, x in zip(weights, s.tolist(), strict=True)) / sum(weights)
    assert ranked_loss(s, r, groups, places=1)[0].item() == pytest.approx(by_hand)


# Group margins


def test_group_margins_have_the_gradient_of_dgpo():
    """σ(S) Aᵢ dᵢ summed over the group and divided by its size, S = β/G Σ A (d − d_ref) held fixed."""
    beta, groups = 3.0, torch.tensor([0, 1, 0, 0, 1])
    d, ref = numbers(0.5, 0.4, 0.3, 0.8, 0.1).requires_grad_(), numbers(0.4, 0.4, 0.4, 0.5, 0.3)
    advantages = numbers(1.2, 1.0, -0.7, -0.5, -1.0)
    margins = group_margins(-beta * (d - ref), advantages, groups)
    pair_loss(margins)[0].backward()
    for group in (0, 1):
        rows = groups == group
        total = beta * (advantages * (d - ref))[rows].sum().item() / int(rows.sum())
        by_hand = sigma(total) * beta * advantages[rows] / int(rows.sum()) / 2
        assert d.grad[rows].tolist() == pytest.approx(by_hand.tolist())
    shifted = group_margins(-beta * (d - ref) + 5.0, numbers(1.0, 1.0, -0.5, -0.5, -1.0), groups)
    assert shifted.tolist() == pytest.approx(
        group_margins(-beta * (d - ref), numbers(1.0, 1.0, -0.5, -0.5, -1.0), groups).tolist()
    )


# All


@given(st.integers(0, 7), st.integers(0, 2**16), st.sampled_from([0.0, 1.0, 1e4]))
def test_finite_in_finite_out(n, seed, size):
    generator = torch.Generator().manual_seed(seed)
    s, r = (size * torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(2))
    groups, mask = torch.randint(3, (n,), generator=generator), torch.rand(n, generator=generator) < 0.7
    s = torch.where(mask, s, math.nan).requires_grad_()
    r = torch.where(mask, r, math.nan)
    losses = [
        ranked_loss(s, r, groups, mask=mask)[0],
        ranked_loss(s, r, groups, mask=mask, temperature=0.0, places=1)[0],
        unpaired_loss(s, r > 0, mask=mask)[0],
        pair_loss(s, labels=torch.sigmoid(r), tied=groups == 1, theta=2.0, mask=mask)[0],
        group_margins(torch.where(mask, s, 0.0), torch.where(mask, r, 0.0), groups).sum(),
    ]
    for loss in losses:
        assert math.isfinite(loss.item())
    if n:
        sum(losses).backward()
        assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pair_terms(numbers(0.0), theta=0.5), "theta"),
        (lambda: pair_terms(numbers(0.0), labels=numbers(1.5)), "labels"),
        (lambda: pair_terms(numbers(0.0), labels=numbers(1.0, 0.0)), "labels"),
        (lambda: pair_terms(numbers(0.0), tied=torch.tensor([True])), "tied"),
        (lambda: pair_loss(numbers(0.0), mask=torch.ones(2, dtype=torch.bool)), "mask"),
        (lambda: unpaired_loss(numbers(0.0), torch.ones(2, dtype=torch.bool)), "desired"),
        (lambda: ranked_loss(numbers(0.0), numbers(math.nan), torch.zeros(1, dtype=torch.long)), "finite"),
        (lambda: ranked_loss(numbers(0.0), numbers(0.0), torch.zeros(1, dtype=torch.long), places=0), "places"),
        (lambda: group_margins(numbers(0.0), numbers(0.0, 1.0), torch.zeros(1, dtype=torch.long)), "advantages"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# DPO within groups


def attempts():
    """Two groups that take turns and one whose rewards are equal; the last row of the first has no tokens."""
    generator = torch.Generator().manual_seed(0)
    logp, ref_logp = (-torch.rand(8, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.arange(3) < torch.tensor([3, 2, 1, 3, 3, 2, 0, 1])[:, None]
    rewards = numbers(1.0, 0.0, 0.0, 1.0, 1.0, 2.0, 1.0, 2.0)
    return logp, ref_logp, rewards, torch.tensor([4, 9, 4, 9, 4, 6, 4, 6]), mask


def test_agent_rlvr_dpo_is_over_every_pass_with_every_failure_of_a_group():
    """A group weighs the same with two pairs as with one, and with none it counts among those that are averaged."""
    logp, ref_logp, rewards, groups, mask = attempts()
    d = [sum(logp[i, t] - ref_logp[i, t] for t in range(3) if mask[i, t]) for i in range(8)]
    terms = {pair: -math.log(sigma(0.3 * (d[pair[0]] - d[pair[1]]))) for pair in [(0, 2), (4, 2), (3, 1)]}
    expected = ((terms[0, 2] + terms[4, 2]) / 2 + terms[3, 1]) / 3
    loss, sums = group_preference(logp, ref_logp, rewards, groups, mask, beta=0.3)
    assert loss.item() == pytest.approx(expected)
    right = sum(term < math.log(2) for term in terms.values())
    assert {name: value.item() for name, value in sums.items()} == {
        "tokens": 15, "groups": 3, "kept": 2, "pairs": 3, "right": right
    }  # fmt: skip


def test_dpo_within_groups_pulls_on_the_written_tokens_of_pairs_only():
    """∂loss/∂logp of a group of two is −β σ(−margin) on the better, the opposite on the worse, over two groups."""
    logp, ref_logp = numbers(0.0, 0.5).repeat(2, 1).T.contiguous(), torch.zeros(2, 2, dtype=torch.float64)
    logp = torch.cat([logp, logp]).requires_grad_()
    ref_logp = torch.cat([ref_logp, ref_logp]).requires_grad_()
    mask = torch.tensor([[True, True], [True, False]] * 2)
    rewards, groups = numbers(1.0, 0.0, 5.0, 5.0), torch.tensor([0, 0, 1, 1])
    group_preference(logp, ref_logp, rewards, groups, mask, beta=2.0)[0].backward()
    pull = 2.0 * sigma(2.0 * 0.5) / 2
    assert logp.grad.flatten().tolist() == pytest.approx([-pull, -pull, pull, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert ref_logp.grad is None


def test_losses_of_dpo_within_groups_add_up():
    logp, ref_logp, rewards, groups, mask = attempts()
    whole = group_preference(logp, ref_logp, rewards, groups, mask)[0]
    parts = [
        group_preference(*(x[groups == g] for x in (logp, ref_logp, rewards, groups, mask)), denominator=3.0)[0]
        for g in (4, 6, 9)
    ]
    assert sum(parts).item() == pytest.approx(whole.item())


@pytest.mark.parametrize("rows", [[], [6], [5, 7]])
def test_without_a_pair_dpo_within_groups_is_nothing(rows):
    logp, *rest = (x[rows] for x in attempts())
    loss, _ = group_preference(logp.requires_grad_(), *rest)
    loss.backward()
    assert loss.item() == 0.0
    assert not logp.grad.any()


def test_dpo_within_groups_refuses_what_does_not_fit():
    logp, ref_logp, rewards, groups, mask = attempts()
    with pytest.raises(ValueError, match="one shape"):
        group_preference(logp, ref_logp[:, :2], rewards, groups, mask)
    with pytest.raises(ValueError, match="one per row"):
        group_preference(logp, ref_logp, rewards[:2], groups, mask)
    with pytest.raises(ValueError, match="beta must be above 0"):
        group_preference(logp, ref_logp, rewards, groups, mask, beta=0.0)
