import math
import statistics

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.core.rollouts import Tree
from guerdon.core.spans import Spans
from guerdon.credit import (
    branches,
    choose_fork,
    fork_relative,
    group_relative,
    keep_forks,
    prefix_tree,
    shared_once,
    spread,
    tree_rewards,
)

# root → a → (a1, a2) and root → b → (b1, b2), one step each; only a1 ends right.
FORKED = Tree(torch.tensor([-1, 0, -1, 2]), torch.tensor([0, 2, 0, 2]))
STEPS = Spans.of([[(0, 2), (2, 4)]] * 4)
OUTCOMES = torch.tensor([1.0, 0.0, 0.0, 0.0])
ONE = torch.zeros(4, dtype=torch.long)


def test_portool_worked_example():
    nodes = branches(FORKED, STEPS)
    assert nodes.tolist() == [[0, 1], [0, 3], [4, 5], [4, 7]]
    rewards = tree_rewards(OUTCOMES, nodes, gamma=1.0)
    assert rewards.tolist() == [[0.5, 1.0], [0.5, 0.0], [0.0, 0.0], [0.0, 0.0]]
    found = fork_relative(rewards, nodes, ONE)
    half = 0.5**0.5
    expected = torch.tensor([[half, half], [half, -half], [-half, 0.0], [-half, 0.0]])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_portool_a_shared_step_is_trained_on_once():
    assert shared_once(branches(FORKED, STEPS)).tolist() == [[True, True], [False, True], [True, True], [False, True]]


def test_portool_the_mean_counts_trajectories_and_the_maximum_asks_for_one():
    nodes = torch.tensor([[0, 1, -1], [0, 4, 5], [0, 4, 8]])
    outcomes = torch.tensor([1.0, 1.0, 0.0])
    mean = tree_rewards(outcomes, nodes, gamma=0.5)
    assert mean.tolist() == [[(0.5 + 0.25 + 0) / 3, 1.0, 0.0], [0.25, 0.25, 1.0], [0.25, 0.25, 0.0]]
    most = tree_rewards(outcomes, nodes, gamma=0.5, aggregate="max")
    assert most.tolist() == [[0.5, 1.0, 0.0], [0.5, 0.5, 1.0], [0.5, 0.5, 0.0]]
    assert tree_rewards(-outcomes, nodes, gamma=1.0, aggregate="max")[0].tolist() == [0.0, -1.0, 0.0]
    # The way that is a step shorter to the same outcome is worth more where they part.
    assert most[0, 1] > most[1, 1]


def test_portool_formats_are_added_and_abstentions_left_out():
    nodes = torch.tensor([[0, 1], [0, 3], [4, 5]])
    formats = torch.tensor([[0.5, 0.0], [0.5, 1.0], [torch.nan, 0.25]])
    formats = torch.where(nodes == 4, 0.0, formats)
    valid = torch.tensor([True, False, False])
    outcomes = torch.tensor([1.0, torch.nan, torch.nan])
    found = tree_rewards(outcomes, nodes, gamma=1.0, formats=formats, valid=valid)
    assert found.tolist() == [[1.5, 1.0], [1.5, 1.0], [0.0, 0.25]]


def test_portool_is_trajectory_and_fork_on_the_tokens_of_each_step():
    nodes = branches(FORKED, STEPS)
    rewards = tree_rewards(OUTCOMES, nodes, gamma=1.0)
    trajectory = group_relative(rewards.mean(1), ONE, eps=1e-6)
    forks = fork_relative(rewards, nodes, ONE)
    written = torch.tensor([[True, False, True, True]] * 4)
    found = spread(trajectory[:, None] + forks, written, STEPS, place="all")
    means = [0.75, 0.25, 0.0, 0.0]
    expected = (0.75 - statistics.fmean(means)) / (statistics.stdev(means) + 1e-6) + 0.5**0.5
    assert found[0].tolist() == pytest.approx([expected, 0.0, expected, expected], abs=1e-4)


def test_portool_a_chain_has_no_forks():
    chain = branches(Tree(torch.tensor([-1]), torch.tensor([0])), Spans.of([[(0, 1), (1, 2), (2, 3)]]))
    assert fork_relative(torch.tensor([[1.0, 2.0, 3.0]]), chain, torch.zeros(1)).tolist() == [[0.0, 0.0, 0.0]]


def test_portool_keeps_exactly_the_places_and_no_branch_dies_while_another_divides():
    branch = torch.tensor([0, 0, 0, 1, 1, 2])
    assert keep_forks(branch, keep=4).tolist() == [True, True, False, True, False, True]
    assert keep_forks(branch, keep=5).tolist() == [True, True, False, True, True, True]
    assert keep_forks(branch, keep=2).tolist() == [True, False, False, True, False, False]
    assert keep_forks(branch, keep=0).sum() == 0
    assert keep_forks(branch, keep=99).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=12), st.integers(0, 14))
def test_portool_number_kept(branch, keep):
    kept = keep_forks(torch.tensor(branch, dtype=torch.long), keep=keep)
    assert int(kept.sum()) == min(keep, len(branch))
    counts = [sum(b == k and bool(x) for b, x in zip(branch, kept, strict=True)) for k in set(branch)]
    room = [branch.count(k) for k in set(branch)]
    # Nobody has two more than another that could have had one more.
    assert all(a <= b + 1 or b == full for a in counts for b, full in zip(counts, room, strict=True))


@st.composite
def forests(draw):
    n, t = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    ids = torch.tensor(draw(st.lists(st.lists(st.integers(0, 2), min_size=t, max_size=t), min_size=n, max_size=n)))
    lengths = torch.tensor(draw(st.lists(st.integers(0, t), min_size=n, max_size=n)))
    groups = torch.tensor(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    outcomes = torch.tensor(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))).double() / 4
    return ids, torch.arange(t) < lengths[:, None], groups, outcomes


@settings(max_examples=100, deadline=None)
@given(forests(), st.sampled_from(["mean", "max"]))
def test_fork_relative_compares_each_step_with_its_siblings(data, aggregate):
    ids, mask, groups, outcomes = data
    nodes = prefix_tree(ids, mask, outcomes, groups).nodes
    rewards = tree_rewards(outcomes, nodes, gamma=0.9, aggregate=aggregate)
    found = fork_relative(rewards, nodes, groups, eps=0.01)
    keys = {}
    for i in range(len(ids)):
        for t in range(int(mask[i].sum())):
            keys[i, t] = (int(groups[i]), *ids[i, : t + 1].tolist())
    through = {}
    for (i, t), key in keys.items():
        through.setdefault(key, []).append(0.9 ** (int(mask[i].sum()) - 1 - t) * float(outcomes[i]))
    worth = {k: (max(v) if aggregate == "max" else statistics.fmean(v)) for k, v in through.items()}
    for (i, t), key in keys.items():
        siblings = [v for k, v in worth.items() if k[:-1] == key[:-1]]
        sigma = statistics.stdev(siblings) if len(siblings) > 1 else 0.0
        expected = (worth[key] - statistics.fmean(siblings)) / (sigma + 0.01) if sigma > 1e-6 else 0.0
        assert float(rewards[i, t]) == pytest.approx(worth[key])
        assert float(found[i, t]) == pytest.approx(expected, abs=1e-6)
    assert (found[~mask] == 0).all()


def test_steps_beyond_the_branching_point_are_a_row_s_own():
    tree = Tree(torch.tensor([-1, 0, 1]), torch.tensor([0, 4, 3]))
    spans = Spans.of([[(0, 2), (2, 4), (4, 6)], [(0, 2), (2, 4), (4, 9)], [(0, 2), (2, 5)]])
    assert branches(tree, spans).tolist() == [[0, 1, 2], [0, 1, 5], [0, 7, -1]]


def test_bad_trees_are_named():
    with pytest.raises(ValueError, match="row 1: a step it shares"):
        branches(Tree(torch.tensor([-1, 0]), torch.tensor([0, 3])), Spans.of([[(0, 2)], [(0, 3)]]))
    with pytest.raises(ValueError, match="its own ancestor"):
        branches(Tree(torch.tensor([1, 0]), torch.tensor([2, 2])), Spans.of([[(0, 2)], [(0, 2)]]))
    with pytest.raises(ValueError, match="the tree has 1 rows"):
        branches(Tree(torch.tensor([-1]), torch.tensor([0])), Spans.of([[(0, 2)], [(0, 2)]]))
    with pytest.raises(ValueError, match="gamma lies in"):
        tree_rewards(torch.zeros(1), torch.zeros(1, 1, dtype=torch.long), gamma=2.0)
    with pytest.raises(ValueError, match="need one shape"):
        fork_relative(torch.zeros(1, 2), torch.zeros(1, 1, dtype=torch.long), torch.zeros(1))
    assert fork_relative(torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.long), torch.zeros(2)).shape == (2, 0)


def test_slate_worked_example():
    rewards = torch.tensor([[2.0, 1.0, 0.0, -1.0, 0.0]])
    found = group_relative(rewards.flatten(), torch.zeros(5, dtype=torch.long), eps=1e-6)
    torch.testing.assert_close(found, torch.tensor([1.403, 0.526, -0.351, -1.228, -0.351]), atol=5e-4, rtol=0)
    draws = (torch.arange(20000) + 0.5) / 20000
    counts = torch.bincount(choose_fork(found.expand(20000, 5), draws), minlength=5) / 20000
    torch.testing.assert_close(counts, torch.tensor([0.679, 0.194, 0.055, 0.016, 0.055]), atol=6e-4, rtol=0)


def test_slate_step_rewards_with_the_bonus_for_an_early_answer():
    # Candidates of the second of four steps: three searches (thought and query), two answers.
    thought, other = torch.tensor([1.0, 0.0, -1.0, 1.0, 0.0]), torch.tensor([1.0, -1.0, 0.0, 1.0, -1.0])
    answers = torch.tensor([False, False, False, True, True])
    rewards = thought + other + 0.1 * (4 - 1) / 4 * answers
    torch.testing.assert_close(rewards, torch.tensor([2.0, -1.0, -1.0, 2.075, -0.925]))


def test_slate_equal_candidates_are_drawn_uniformly_and_the_cold_choice_is_the_best():
    uniform = (torch.arange(1000) + 0.5) / 1000
    counts = torch.bincount(choose_fork(torch.zeros(1000, 4), uniform))
    assert counts.tolist() == [250, 250, 250, 250]
    best = torch.tensor([[0.1, 0.9, 0.9]])
    assert choose_fork(best, torch.tensor([0.99]), temperature=0.0).tolist() == [1]
    mask = torch.tensor([[True, False, False]])
    assert choose_fork(torch.full((1, 3), torch.nan), torch.tensor([0.5]), mask=~everywhere(mask)).tolist() == [-1]
    junk = torch.tensor([[0.3, torch.nan, torch.inf]])
    for temperature in (0.0, 0.7):
        assert choose_fork(junk, torch.tensor([0.999]), mask=mask, temperature=temperature).tolist() == [0]
    assert choose_fork(torch.zeros(2, 0), torch.zeros(2)).tolist() == [-1, -1]
    with pytest.raises(ValueError, match="uniform must lie in"):
        choose_fork(best, torch.tensor([1.0]))


def everywhere(like):
    return torch.ones_like(like)


def test_slate_truncated_groups_carry_the_variance_of_one_step():
    generator = torch.Generator().manual_seed(0)
    steps, candidates = 4, 5
    rewards = torch.randn(20000, candidates, steps, generator=generator, dtype=torch.float64)
    groups = torch.arange(20000).repeat_interleave(candidates)
    whole, truncated = (
        group_relative(x.flatten(), groups, scale="none").var(correction=0) for x in (rewards.sum(2), rewards[:, :, 0])
    )
    # Centring five independent draws leaves 4/5 of their variance.
    assert float(whole) == pytest.approx(3.20, rel=0.02)
    assert float(truncated) == pytest.approx(0.80, rel=0.02)
    assert math.isclose(float(whole / truncated), steps, rel_tol=0.03)
