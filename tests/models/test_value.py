"""Values of prefixes: their labels, their loss, and search by them."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.credit import prefix_tree
from guerdon.models import allot, beam_search, beam_searches, value_loss
from guerdon.objectives.value import Critic

A, B, C, D, E, F = range(6)


def test_tvm_worked_labels():
    """Paths abc (right), abd (wrong), aef (right): V(a) = 2/3, V(ab) = 1/2, V(abc) = 1, V(abd) = 0, V(ae) = 1."""
    ids = torch.tensor([[A, B, C], [A, B, D], [A, E, F]])
    tree = prefix_tree(ids, torch.ones(3, 3, dtype=torch.bool), torch.tensor([1.0, 0.0, 1.0]), torch.zeros(3))
    expected = [[2 / 3, 1 / 2, 1.0], [2 / 3, 1 / 2, 0.0], [2 / 3, 1.0, 1.0]]
    for row, wanted in zip(tree.value.tolist(), expected, strict=True):
        assert row == pytest.approx(wanted)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), min_size=1, max_size=12))
def test_tvm_labels_are_a_martingale(paths):
    """V(prefix) is the count-weighted mean of its children's."""
    ids = torch.tensor([path[:2] for path in paths])
    right = torch.tensor([float(path[2]) for path in paths], dtype=torch.float64)
    tree = prefix_tree(ids, torch.ones(len(paths), 2, dtype=torch.bool), right, torch.zeros(len(paths)))
    for first in set(ids[:, 0].tolist()):
        rows = (ids[:, 0] == first).nonzero()[:, 0]
        children = {int(tree.nodes[i, 1]): (int(tree.size[i, 1]), float(tree.value[i, 1])) for i in rows}
        mean = sum(count * value for count, value in children.values()) / len(rows)
        assert float(tree.value[rows[0], 0]) == pytest.approx(mean)


def test_tvm_labels_go_to_the_chance_of_success():
    """A process of two fair tosses that succeeds on two heads: V → 1/4 … 1/2 … 1."""
    ids = torch.randint(0, 2, (4000, 2), generator=torch.Generator().manual_seed(0))
    right = (ids.sum(1) == 2).float()
    tree = prefix_tree(ids, torch.ones_like(ids, dtype=torch.bool), right, torch.zeros(4000))
    heads = ids[:, 0] == 1
    assert tree.before[0, 0].item() == pytest.approx(0.25, abs=0.03)
    assert tree.value[heads][0, 0].item() == pytest.approx(0.5, abs=0.03)
    assert tree.value[~heads][0, 0].item() == 0


def test_tvm_loss_is_the_squared_error_summed_over_tokens():
    values = torch.tensor([[0.5, 0.0], [1.0, math.nan]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.25], [0.5, math.nan]])
    mask = torch.tensor([[True, True], [True, False]])
    loss = value_loss(values, targets, mask)
    assert loss.item() == pytest.approx((0.25 + 0.0625 + 0.25) / 2)
    loss.backward()
    assert values.grad.tolist() == [[-0.5, -0.25], [0.5, 0.0]]
    with pytest.raises(ValueError, match="one shape"):
        value_loss(values, targets[:1], mask)


def test_tvm_head_learns_its_labels():
    """A linear head on one-hot states of the worked tree finds the labels."""
    ids = torch.tensor([[A, B, C], [A, B, D], [A, E, F]])
    mask = torch.ones(3, 3, dtype=torch.bool)
    tree = prefix_tree(ids, mask, torch.tensor([1.0, 0.0, 1.0]), torch.zeros(3))
    hidden = torch.nn.functional.one_hot(tree.nodes, int(tree.nodes.max()) + 1).float()
    torch.manual_seed(0)
    head = Critic(hidden.shape[-1], hidden=(), features="shared")
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(200):
        loss = value_loss(head(hidden), tree.value, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.allclose(head(hidden), tree.value, atol=0.02)


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(0, 4), st.data())
def test_tvm_loss_is_finite_and_blind_to_padding(n, t, data):
    numbers = st.lists(st.floats(0, 1), min_size=n * t, max_size=n * t)
    values, targets = (torch.tensor(data.draw(numbers)).reshape(n, t) for _ in range(2))
    bits = data.draw(st.lists(st.booleans(), min_size=n * t, max_size=n * t))
    mask = torch.tensor(bits, dtype=torch.bool).reshape(n, t)
    values, targets = (torch.where(mask, x, math.nan) for x in (values, targets))
    loss = value_loss(values, targets, mask)
    assert torch.isfinite(loss)
    wide = [torch.nn.functional.pad(x, (0, 2), value=math.nan) for x in (values, targets)]
    assert value_loss(*wide, torch.nn.functional.pad(mask, (0, 2))).item() == pytest.approx(loss.item(), abs=1e-6)


# Search

ANSWERS = {"".join(p): i % 5 == 3 for i, p in enumerate(product("abc", repeat=3))}


def chance(state):
    """The true share of right answers below a state."""
    below = [right for answer, right in ANSWERS.items() if answer.startswith(state)]
    return sum(below) / len(below)


def grow(states, n):
    return [[state + letter for letter in "abc"[:n]] for state in states]


def test_tvm_beam_search_by_value_beats_labels_of_outcomes():
    """At the same budget, V finds a right answer; a reward that knows whole answers only goes by chance."""
    budget = {"candidates": 6, "keep": 2, "steps": 3}
    done = lambda state: len(state) == 3  # noqa: E731
    by_value = beam_search("", grow, lambda states: [chance(s) for s in states], done, **budget)
    outcome = beam_search("", grow, lambda states: [float(ANSWERS.get(s, 0)) for s in states], done, **budget)
    assert [ANSWERS[state] for state, _ in by_value] == [True, True]
    assert sum(ANSWERS[state] for state, _ in outcome) < 2


def test_tvm_several_searches_at_once_find_what_each_finds_alone():
    """Also where one of them is done before the others."""
    worth = lambda states: [chance(s) if len(s) < 4 else 2.0 for s in states]  # noqa: E731
    done = lambda state: len(state) >= 3  # noqa: E731
    each = lambda states, counts: [grow([s], n)[0] for s, n in zip(states, counts, strict=True)]  # noqa: E731
    starts, budget = ["a", "", "bca", "c"], {"candidates": 4, "keep": 2, "steps": 3}
    together = beam_searches(starts, each, worth, done, **budget)
    assert together == [beam_search(start, grow, worth, done, **budget) for start in starts]
    assert beam_searches([], each, worth, done) == []


def test_rebase_search_grows_the_best_most():
    """Of the states that are kept, e^0.5 : 1 of six candidates go on from the better."""
    asked = []

    def expand(states, counts):
        asked.append(dict(zip(states, counts, strict=True)))
        return [[state + letter for letter in "abcdef"[:count]] for state, count in zip(states, counts, strict=True)]

    values = {"a": 0.1, "b": 0.6, "c": 0.2, "d": 0.0, "e": 0.0, "f": 0.0}
    worth = lambda states: [values[s[-1]] for s in states]  # noqa: E731
    beam_searches([""], expand, worth, lambda s: len(s) == 2, candidates=6, keep=2, temperature=0.8)
    assert asked == [{"": 6}, {"b": 4, "c": 2}]


def test_tvm_finished_answers_stay_and_compete():
    values = {"a": 0.9, "b": 0.5, "ba": 0.95, "bb": 0.1}
    found = beam_search(
        "", lambda states, n: [[s + c for c in "ab"] for s in states], lambda states: [values[s] for s in states],
        lambda s: s == "a" or len(s) == 2, candidates=4, keep=2,
    )  # fmt: skip
    assert found == [("ba", 0.95), ("a", 0.9)]


def test_beam_search_shares_its_candidates():
    asked = []

    def expand(states, n):
        asked.append((list(states), n))
        return [[s + c for c in "abcd"[:n]] for s in states]

    beam_search("", expand, lambda states: list(range(len(states))), lambda s: False, candidates=4, keep=2, steps=2)
    assert asked == [([""], 4), (["d", "c"], 2)]
    with pytest.raises(ValueError, match="candidates ≥ keep"):
        beam_search("", expand, lambda s: [], lambda s: False, candidates=1, keep=2)


@settings(deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=6), st.integers(0, 20), st.floats(0.05, 5))
def test_rebase_shares_add_up_and_follow_the_values(values, budget, temperature):
    counts = allot(torch.tensor(values), budget, temperature=temperature)
    assert int(counts.sum()) == budget
    assert (counts >= 0).all()
    weights = [math.exp((v - max(values)) / temperature) for v in torch.tensor(values).tolist()]
    for count, weight in zip(counts.tolist(), weights, strict=True):
        assert abs(count - budget * weight / sum(weights)) <= 1 + 1e-3


def test_rebase_refuses_nothing_to_share_among():
    with pytest.raises(ValueError, match="at least one state"):
        allot(torch.zeros(0), 3)
