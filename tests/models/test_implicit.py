"""The log-ratio of two models as a reward: its theorem, its losses, and what they teach."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.core import Spans
from guerdon.credit import unit_returns
from guerdon.models import at_steps, implicit_loss, log_ratio, total, written_runs

KINDS = ["ce", "dpo", "nca", "kto"]


@st.composite
def batches(draw):
    """Log-probabilities with NaN in masked places, spans over them, labels and groups."""
    n, t = draw(st.integers(1, 5)), draw(st.integers(0, 6))
    numbers = st.lists(st.floats(-20, 0), min_size=n * t, max_size=n * t)
    logp, ref_logp = (torch.tensor(draw(numbers), dtype=torch.float64).reshape(n, t) for _ in range(2))
    bits = draw(st.lists(st.booleans(), min_size=n * t, max_size=n * t))
    mask = torch.tensor(bits, dtype=torch.bool).reshape(n, t)
    labels = torch.tensor(draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=n, max_size=n)))
    groups = torch.tensor(draw(st.lists(st.integers(-1, 1), min_size=n, max_size=n)))
    nan = torch.tensor(math.nan, dtype=torch.float64)
    return torch.where(mask, logp, nan), torch.where(mask, ref_logp, nan), mask, labels, groups


# The theorem


def test_implicit_prm_prefix_sums_are_exact_soft_values():
    """q_t = β log E_{y ~ π_ref(·|y_≤t)} exp(r(y)/β), on a random tree of depth 3, to 1e-9."""
    rng, beta = np.random.default_rng(0), 0.05
    states = ["".join(p) for depth in range(3) for p in product("ab", repeat=depth)]
    theta, ref = ({s: dict(zip("ab", rng.dirichlet([1, 1]), strict=True)) for s in states} for _ in range(2))
    leaves = ["".join(p) for p in product("ab", repeat=3)]

    def along(policy, word):
        return [math.log(policy[word[:t]][word[t]]) for t in range(3)]

    logp, ref_logp = (torch.tensor([along(p, w) for w in leaves], dtype=torch.float64) for p in (theta, ref))
    mask = torch.ones(8, 3, dtype=torch.bool)
    rewards = log_ratio(logp, ref_logp, mask, beta=beta)
    whole = dict(zip(leaves, total(rewards, mask, how="sum").tolist(), strict=True))
    for word, row in zip(leaves, rewards.cumsum(1), strict=True):
        for t in range(1, 4):
            rest = [(math.exp(sum(along(ref, w)[t:])), whole[w]) for w in leaves if w.startswith(word[:t])]
            soft = beta * math.log(sum(p * math.exp(r / beta) for p, r in rest))
            assert float(row[t - 1]) == pytest.approx(soft, abs=1e-9)


def test_implicit_prm_of_equal_models_is_nothing():
    logp = torch.rand(3, 4).log()
    mask = torch.ones(3, 4, dtype=torch.bool)
    rewards = log_ratio(logp, logp, mask)
    assert (rewards == 0).all()
    loss, _ = implicit_loss(total(rewards, mask, how="sum"), torch.tensor([1.0, 0.0, 1.0]))
    assert loss.item() == pytest.approx(math.log(2))


def test_implicit_prm_steps_and_their_aggregates():
    """β times the log-ratio of each step's tokens; the best-of-N score is the least of them."""
    logp, ref_logp = torch.tensor([[-1.0, -2.0, -3.0, -9.0]]), torch.tensor([[-2.0, -2.0, -2.0, 0.0]])
    mask = torch.tensor([[True, True, True, False]])
    steps = Spans.of([[(0, 1), (1, 3)]])
    rewards = at_steps(log_ratio(logp, ref_logp, mask, beta=0.5), mask, steps)
    assert rewards.tolist() == [[0.5, -0.5]]
    there = torch.as_tensor(steps.mask)
    assert [total(rewards, there, how=how).item() for how in ("min", "sum", "mean")] == [-0.5, 0.0, 0.0]
    assert total(log_ratio(logp, ref_logp, mask, beta=0.5), mask, how="sum").item() == pytest.approx(0.0)


def test_only_the_reward_model_gets_a_gradient():
    logp, ref_logp = torch.zeros(1, 2, requires_grad=True), torch.zeros(1, 2, requires_grad=True)
    mask = torch.tensor([[True, False]])
    log_ratio(logp, ref_logp, mask, beta=0.05).sum().backward()
    assert logp.grad.tolist() == [[pytest.approx(0.05), 0.0]]
    assert ref_logp.grad is None


# The losses


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def by_hand(kind, scores, labels, groups, pool):
    """Each loss from its equation, row by row and pair by pair."""
    n = range(len(scores))
    if kind == "ce":
        terms = [
            -(y * math.log(sigmoid(r)) + (1 - y) * math.log(sigmoid(-r))) for r, y in zip(scores, labels, strict=True)
        ]
        return sum(terms) / len(terms)
    if kind == "kto":
        z = max(sum(scores) / len(scores), 0.0)
        terms = [1 - sigmoid(r - z if y > 0.5 else z - r) for r, y in zip(scores, labels, strict=True)]
        return sum(terms) / len(terms)
    means = {}
    for w in n:
        for k in n:
            if groups[w] == groups[k] and labels[w] > labels[k]:
                a, b = scores[w], scores[k]
                nca = -math.log(sigmoid(a)) - 0.5 * (math.log(sigmoid(-a)) + math.log(sigmoid(-b)))
                term = -math.log(sigmoid(a - b)) if kind == "dpo" else nca
                means.setdefault(groups[w] if pool == "groups" else 0, []).append(term)
    return sum(sum(x) / len(x) for x in means.values()) / len(means) if means else 0.0


@pytest.mark.parametrize("pool", ["pairs", "groups"])
@pytest.mark.parametrize("kind", KINDS)
def test_implicit_losses_are_their_equations(kind, pool):
    scores, labels, groups = [0.3, -1.2, 2.0, 0.1, -0.4], [1.0, 0.0, 1.0, 0.0, 1.0], [0, 0, 0, 7, 7]
    loss, _ = implicit_loss(
        torch.tensor(scores), torch.tensor(labels), kind=kind, groups=torch.tensor(groups), pool=pool
    )
    assert loss.item() == pytest.approx(by_hand(kind, scores, labels, groups, pool), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_implicit_losses_have_the_gradients_of_their_equations(kind):
    labels, groups = [1.0, 0.0, 1.0, 0.0], [0, 0, 1, 1]
    scores = torch.tensor([0.3, -0.2, 0.9, 0.5], dtype=torch.float64, requires_grad=True)
    loss, _ = implicit_loss(scores, torch.tensor(labels), kind=kind, groups=torch.tensor(groups))
    loss.backward()
    base = scores.detach().tolist()
    for i in range(4):
        up, down = ([x + sign * 1e-5 * (j == i) for j, x in enumerate(base)] for sign in (1, -1))
        if kind == "kto":  # z carries no gradient: hold it where it is
            z = max(sum(base) / 4, 0.0)
            term = lambda r, y, z=z: (1 - sigmoid(r - z if y > 0.5 else z - r)) / 4  # noqa: E731
            slope = (term(up[i], labels[i]) - term(down[i], labels[i])) / 2e-5
        else:
            slope = (by_hand(kind, up, labels, groups, "pairs") - by_hand(kind, down, labels, groups, "pairs")) / 2e-5
        assert scores.grad[i].item() == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize(("anchor", "z"), [(None, 0.0), (-0.5, -0.5), (0.4, 0.4)])
def test_kto_is_anchored_at_the_batchs_mean_if_that_is_positive_or_where_it_is_told(anchor, z):
    loss, _ = implicit_loss(torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 0.0]), kind="kto", anchor=anchor)
    assert loss.item() == pytest.approx((1 - sigmoid(-1 - z) + 1 - sigmoid(z + 2)) / 2)


def test_rows_without_an_outcome_teach_nothing():
    scores = torch.tensor([0.3, math.nan, -0.5], requires_grad=True)
    known = torch.tensor([True, False, True])
    for kind in KINDS:
        loss, sums = implicit_loss(scores, torch.tensor([1.0, math.nan, 0.0]), kind=kind, mask=known)
        alone, _ = implicit_loss(scores[known], torch.tensor([1.0, 0.0]), kind=kind)
        assert loss.item() == pytest.approx(alone.item())
        (slope,) = torch.autograd.grad(loss, scores)
        assert slope[1] == 0
        assert torch.isfinite(slope).all()
        assert sums["terms"].item() == (1 if kind in ("dpo", "nca") else 2)


def test_istar_pair_loss_of_equal_models_is_log_2_and_without_pairs_0():
    zero = torch.zeros(4, requires_grad=True)
    labels, groups = torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([0, 0, 1, 1])
    loss, sums = implicit_loss(zero, labels, kind="dpo", groups=groups)
    assert loss.item() == pytest.approx(math.log(2))
    assert sums["terms"] == 1
    none, _ = implicit_loss(zero, torch.ones(4), kind="dpo", groups=groups)
    none.backward()
    assert none.item() == 0
    assert zero.grad.tolist() == [0.0] * 4


def test_istar_a_constant_at_every_step_leaves_the_pair_loss():
    steps, there = torch.tensor([[0.5, -0.2], [0.1, 0.3]]), torch.ones(2, 2, dtype=torch.bool)
    labels = torch.tensor([1.0, 0.0])
    losses = [implicit_loss(total(steps + c, there, how="mean"), labels, kind="dpo")[0].item() for c in (0.0, 3.0)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_istar_episode_scores_order_the_pairs_where_there_is_no_success():
    scores = torch.tensor([0.1, 0.7, -0.3])
    loss, sums = implicit_loss(scores, torch.tensor([5.5, 3.0, 3.0]), kind="dpo")
    assert sums["terms"] == 2
    assert loss.item() == pytest.approx(-(math.log(sigmoid(-0.6)) + math.log(sigmoid(0.4))) / 2)


def test_wrong_input_is_named():
    three = torch.zeros(3)
    with pytest.raises(ValueError, match="labels as probabilities"):
        implicit_loss(three, torch.tensor([0.0, 2.0, 1.0]))
    with pytest.raises(ValueError, match="one shape"):
        implicit_loss(three, torch.zeros(2))
    with pytest.raises(ValueError, match="kind is one of"):
        implicit_loss(three, three, kind="mse")
    with pytest.raises(ValueError, match="beta must be positive"):
        log_ratio(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), beta=0.0)
    with pytest.raises(ValueError, match="spans count characters"):
        at_steps(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), Spans.of([[(0, 1)]], unit="character"))
    with pytest.raises(ValueError, match="ends at token 2"):
        at_steps(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), Spans.of([[(0, 2)]]))
    with pytest.raises(ValueError, match="how is one of"):
        total(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), how="max")


# What it learns


class Bigram(torch.nn.Module):
    """log π(y_t | y_{t−1}) from a table that begins as the reference, uniform."""

    def __init__(self, letters):
        super().__init__()
        self.table = torch.nn.Parameter(torch.zeros(letters, letters))

    def forward(self, words):
        before = torch.nn.functional.pad(words[:, :-1], (1, 0))
        return self.table.log_softmax(-1)[before, words]


def taught(words, outcomes, *, kind, beta=0.05, updates=100, groups=None, mean=False, rate=0.5):
    model = Bigram(int(words.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    mask = torch.ones_like(words, dtype=torch.bool)
    reference = model(words).detach()
    for _ in range(updates):
        rewards = log_ratio(model(words), reference, mask, beta=beta)
        loss, _ = implicit_loss(total(rewards, mask, how="mean" if mean else "sum"), outcomes, kind=kind, groups=groups)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return log_ratio(model(words), reference, mask, beta=beta).detach()


@pytest.mark.parametrize("kind", KINDS)
def test_prime_the_token_that_decides_gets_the_largest_mean_reward(kind):
    """Letter 3 anywhere makes a success; outcomes are all that is told."""
    words = torch.randint(1, 6, (64, 4), generator=torch.Generator().manual_seed(0))
    outcomes = (words == 3).any(1).float()
    rewards = taught(words, outcomes, kind=kind)
    means = {letter: rewards[words == letter].mean().item() for letter in range(1, 6)}
    assert max(means, key=means.get) == 3


def test_implicit_prm_separates_good_from_bad_tokens():
    """CE on one response per prompt: of single letters, AUC above .9."""
    words = torch.randint(1, 9, (96, 3), generator=torch.Generator().manual_seed(1))
    outcomes = ((words <= 4).sum(1) >= 2).float()
    rewards = taught(words, outcomes, kind="ce")
    good, bad = rewards[words <= 4], rewards[words > 4]
    auc = (good[:, None] > bad).float().mean().item()
    assert auc > 0.9


def test_istar_only_the_deciding_step_is_rewarded():
    """Two steps of which the second decides: its rewards become the larger."""
    first = torch.randint(1, 3, (48, 1), generator=torch.Generator().manual_seed(2))
    second = torch.randint(3, 5, (48, 1), generator=torch.Generator().manual_seed(3))
    words = torch.cat([first, second], 1)
    groups = torch.arange(48) // 4
    rewards = taught(words, (second[:, 0] == 3).float(), kind="dpo", groups=groups, mean=True)
    assert rewards[:, 1].abs().mean() > 3 * rewards[:, 0].abs().mean()


def test_prime_rewards_of_a_batch_are_brought_to_unit_returns():
    """Its normalisation is `credit.unit_returns`: no reverse cumulative sum leaves [−1, 1]."""
    q = torch.tensor([[0.5, -3.0, 1.0], [0.25, 0.25, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    scaled = unit_returns(q, mask)
    assert scaled == pytest.approx(q / 2.0, abs=1e-5)


# Random masks and values


@settings(deadline=None)
@given(batches())
def test_rewards_steps_and_totals_are_finite_and_blind_to_padding(batch):
    logp, ref_logp, mask, _, _ = batch
    rewards = log_ratio(logp, ref_logp, mask)
    assert torch.isfinite(rewards).all()
    assert (rewards[~mask] == 0).all()
    spans = written_runs(mask)
    steps, there = at_steps(rewards, mask, spans), torch.as_tensor(spans.mask)
    for i, row in enumerate(spans.rows()):
        for j, (a, b) in enumerate(row):
            assert steps[i, j].item() == pytest.approx(sum(rewards[i, a:b].tolist()), abs=1e-5)
    wide = [torch.nn.functional.pad(x, (0, 2), value=math.nan) for x in (logp, ref_logp)]
    more = torch.nn.functional.pad(mask, (0, 2))
    again = log_ratio(*wide, more)
    for how in ("sum", "mean", "min"):
        value = total(rewards, mask, how=how)
        assert torch.isfinite(value).all()
        assert total(again, more, how=how).tolist() == pytest.approx(value.tolist(), abs=1e-5)
        assert total(steps, there, how=how).shape == value.shape
    assert total(steps, there, how="sum").tolist() == pytest.approx(total(rewards, mask, how="sum").tolist(), abs=1e-5)


@settings(deadline=None)
@given(batches(), st.sampled_from(KINDS), st.sampled_from(["pairs", "groups"]))
def test_losses_are_finite_and_so_are_their_gradients(batch, kind, pool):
    logp, _, mask, labels, groups = batch
    scores = torch.where(mask, logp, 0.0).sum(1).requires_grad_()
    known = torch.arange(len(scores)) % 3 != 1
    loss, _ = implicit_loss(scores, labels, kind=kind, groups=groups, mask=known, pool=pool)
    (slope,) = torch.autograd.grad(loss, scores)
    assert torch.isfinite(loss)
    assert loss >= 0
    assert torch.isfinite(slope).all()
    assert (slope[~known] == 0).all()
