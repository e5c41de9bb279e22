"""Pairs sorted into two sets by a reward of the whole set."""

import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.data import contrast_sets
from guerdon.rewards.distribution import set_value


def pairs(seed, m=6, d=2):
    return torch.randn(2, m, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_dragon_swaps_never_lower_the_reward_and_find_each_better_one_of_an_additive_reward(seed):
    vectors = pairs(seed)
    single = vectors.sum(-1)
    found = contrast_sets(vectors, lambda sets: sets.sum((-1, -2)), generator=torch.Generator().manual_seed(seed))
    assert found.second.tolist() == (single[1] > single[0]).tolist()
    assert found.value == pytest.approx(single.amax(0).sum().item())
    for value in (set_value("vendi"), set_value("frechet", pairs(seed + 1, 20)[0])):
        sorted_ = contrast_sets(vectors, value)
        assert sorted_.value >= value(vectors).max().item()
        better, worse = sorted_.split(vectors)
        assert value(better).item() == pytest.approx(sorted_.value)
        assert torch.equal(better + worse, vectors.sum(0))


def test_more_passes_come_near_the_best_of_all_choices():
    vectors, value = pairs(3), set_value("vendi")
    picks = torch.tensor(list(itertools.product((0, 1), repeat=6)))
    best = value(vectors[picks, torch.arange(6)]).max().item()
    found = contrast_sets(vectors, value, passes=4)
    assert value(vectors).max().item() < found.value <= best + 1e-9


def test_what_is_no_pair_is_refused():
    for wrong in (torch.zeros(3, 2, 2), torch.zeros(2, 0, 2), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="two samples"):
            contrast_sets(wrong, set_value("vendi"))
    with pytest.raises(ValueError, match="finite"):
        contrast_sets(pairs(0), lambda sets: sets.sum((-1, -2)) * torch.nan)
