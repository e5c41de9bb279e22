"""`geometric` and `tiers`, against the equations written out."""

import itertools
import math

import numpy as np
import pytest
import torch

from guerdon import Rollouts, gate
from guerdon.algebra import geometric, spec, tiers
from guerdon.algebra.geometric import signed_geometric_mean
from guerdon.algebra.tiers import tiered
from guerdon.rewards import recorded


def column(name, low=0.0):
    return recorded.value(column=name, low=low).named(name)


def scored(reward, **columns):
    n = len(next(iter(columns.values())))
    return reward.score(Rollouts(["?"] * n, [""] * n, columns))


def test_lucy_skg_worked_numbers():
    assert signed_geometric_mean([np.array(-0.5), np.array(0.8)]) == pytest.approx(-0.6325, abs=5e-5)
    assert signed_geometric_mean([np.array(x) for x in (-0.5, -0.5, 1.0)]) == pytest.approx(-0.63, abs=5e-3)
    assert signed_geometric_mean([np.array(x) for x in (-0.5, 0.0, 1.0)]) == 0
    assert signed_geometric_mean([np.array(0.37)] * 5) == pytest.approx(0.37)


def test_signed_geometric_mean_is_its_definition():
    rng = np.random.default_rng(0)
    values, weights = rng.uniform(-1, 1, (3, 50)), (1.0, 2.0, 0.5)
    expected = [
        (1 if min(row) >= 0 else -1)
        * math.exp(sum(w * math.log(abs(r)) for w, r in zip(weights, row, strict=True)) / 3.5)
        for row in values.T
    ]
    np.testing.assert_allclose(signed_geometric_mean(list(values), weights=weights), expected)


def test_two_wrongs_are_no_right():
    wrong, right = np.array([-1.0, -0.9]), np.array([0.1, 0.1])
    assert (signed_geometric_mean([wrong, wrong]) < signed_geometric_mean([right, right])).all()


def test_geometric_has_finite_gradients_at_zero():
    values = torch.tensor([0.0, 0.5, -0.5], requires_grad=True)
    signed_geometric_mean([values, torch.ones(3)]).sum().backward()
    assert torch.isfinite(values.grad).all()
    assert values.grad[1].item() == pytest.approx(0.5 / math.sqrt(0.5))


def test_geometric_stays_in_its_range_and_abstains_with_any_term():
    reward = geometric(column("a", -1), column("b", -0.5), weights=(1, 3))
    grid = list(itertools.product(np.linspace(-1, 1, 9), np.linspace(-0.5, 1, 7)))
    values = scored(reward, a=[a for a, _ in grid], b=[b for _, b in grid]).read(np.nan)
    low, high = reward.range
    assert low <= values.min()
    assert values.max() == high == 1
    assert geometric(column("a", 0.25), column("b", 0.25)).range == (0.25, 1)
    assert scored(reward, a=[0.5, None], b=[None, 0.5]).abstained.all()


def test_tiers_worked_by_hand():
    reward = tiers(column("a"), column("b"), column("c"))
    found = scored(reward, a=[1, 1, 0.99, 0], b=[1, 0.5, 1, 1], c=[1, 1, 1, 1]).read(np.nan)
    np.testing.assert_allclose(found, [0.875, 0.625, 0.495, 0])


def test_tiers_order_lexicographically():
    rows = list(itertools.product((0.0, 0.5, 1.0), repeat=3))
    values = scored(
        tiers(column("a"), column("b"), column("c")), **dict(zip("abc", zip(*rows, strict=True), strict=True))
    )
    worth = values.read(np.nan)
    for (first, one), (second, other) in itertools.combinations(zip(rows, worth, strict=True), 2):
        reached = next((k for k in range(3) if first[k] != second[k]), None)
        if reached is not None and all(x == 1 for x in first[:reached]):
            assert one < other


def test_tiers_are_nested_gates():
    rows = np.random.default_rng(3).choice([0.0, 0.3, 0.6, 1.0], (40, 3))
    a, b, c = (column(name) for name in "abc")
    gated = 0.5 * a + gate(
        a, then=0.3 * b + gate(b, then=0.2 * c, above=0.6, inclusive=True), above=0.6, inclusive=True
    )
    columns = {name: rows[:, k].tolist() for k, name in enumerate("abc")}
    np.testing.assert_allclose(
        scored(tiers(a, b, c, weights=(0.5, 0.3, 0.2), above=0.6), **columns).read(np.nan),
        scored(gated, **columns).read(np.nan),
    )


def test_a_closed_tier_is_not_needed():
    found = scored(tiers(column("a"), column("b")), a=[0.5, 1.0, None], b=[None, None, 1.0])
    assert found.abstained.tolist() == [False, True, True]
    assert found.read(0.0)[0] == 0.25


def test_tiers_range_leaves_out_what_is_never_reached():
    assert tiers(column("a"), column("b")).range == (0, 0.75)
    assert tiers(column("a"), column("b"), above=2).range == (0, 0.5)


def test_both_are_data_and_back():
    for reward in (
        geometric(column("a"), column("b"), weights=(1, 2)),
        tiers(column("a"), column("b"), weights=(1, 0.5), above=0.9),
    ):
        assert spec.load(spec.dump(reward)) == reward
    read = spec.load({"tiers": [{"part": "recorded.value", "column": name, "name": name} for name in "ab"]})
    assert read.range == (0, 0.75)


def test_weights_that_cannot_be_meant():
    with pytest.raises(ValueError, match="positive"):
        geometric(column("a"), column("b"), weights=(1, 0))
    with pytest.raises(ValueError, match="2 rewards"):
        tiers(column("a"), column("b"), weights=(1,))
    with pytest.raises(ValueError, match="nothing"):
        signed_geometric_mean([])
    with pytest.raises(ValueError, match="threshold"):
        tiers(column("a"), above=math.nan)
    assert tiered([np.array([1.0])])[0].tolist() == [0.5]
