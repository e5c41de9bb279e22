import statistics

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.credit import branch_relative, group_relative, prefix_tree


def everywhere(*shape):
    return torch.ones(*shape, dtype=torch.bool)


@st.composite
def sequences(draw):
    """Rows over an alphabet of two, so that prefixes are shared, in groups that are not contiguous."""
    n, t = draw(st.integers(1, 7)), draw(st.integers(1, 5))
    ids = torch.tensor(draw(st.lists(st.lists(st.integers(0, 1), min_size=t, max_size=t), min_size=n, max_size=n)))
    lengths = torch.tensor(draw(st.lists(st.integers(0, t), min_size=n, max_size=n)))
    rewards = torch.tensor(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))).double() / 4
    groups = torch.tensor(draw(st.lists(st.sampled_from([-5, 9]), min_size=n, max_size=n)))
    valid = torch.tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    return ids, torch.arange(t) < lengths[:, None], rewards, groups, valid


def prefixes(ids, mask, groups):
    """For each row, (group, tokens up to t) for each t."""
    rows = []
    for i in range(len(ids)):
        tokens = [int(x) for x, there in zip(ids[i], mask[i], strict=True) if there]
        rows.append([(int(groups[i]), tuple(tokens[: t + 1])) for t in range(len(tokens))])
    return rows


@settings(max_examples=150, deadline=None)
@given(sequences())
def test_the_tree_is_a_trie_of_dictionaries(data):
    ids, mask, rewards, groups, valid = data
    rows = prefixes(ids, mask, groups)
    members = {}
    for i, row in enumerate(rows):
        for key in [(int(groups[i]), ()), *row]:
            members.setdefault(key, []).append(i)

    def value(key):
        scored = [float(rewards[i]) for i in members[key] if valid[i]]
        return sum(scored) / len(scored) if scored else 0.0

    junk = torch.where(mask, ids, -7)
    tree = prefix_tree(junk, mask, torch.where(valid, rewards, torch.nan), groups, valid=valid)
    numbers = {}
    for i, row in enumerate(rows):
        for t, key in enumerate(row):
            assert int(tree.size[i, t]) == len(members[key])
            assert float(tree.value[i, t]) == pytest.approx(value(key))
            parent = row[t - 1] if t else (int(groups[i]), ())
            assert float(tree.before[i, t]) == pytest.approx(value(parent))
            assert numbers.setdefault(key, int(tree.nodes[i, t])) == int(tree.nodes[i, t])
    assert len(set(numbers.values())) == len(numbers)
    assert (tree.nodes[~mask] == -1).all()
    for column in (tree.size, tree.value, tree.before):
        assert (column[~mask] == 0).all()


@settings(max_examples=100, deadline=None)
@given(sequences(), st.sampled_from(["std", "none"]))
def test_tempo_is_its_definition(data, scale):
    ids, mask, rewards, groups, valid = data
    tree = prefix_tree(ids, mask, rewards, groups, valid=valid)
    found = branch_relative(torch.where(valid, rewards, torch.nan), tree, groups, valid=valid, scale=scale)
    rows = prefixes(ids, mask, groups)
    expected = torch.zeros(ids.shape, dtype=torch.float64)
    for i, row in enumerate(rows):
        group = [j for j in range(len(ids)) if groups[j] == groups[i] and valid[j]]
        scores = [float(rewards[j]) for j in group]
        if not valid[i] or len(set(scores)) < 2:
            continue
        before = statistics.fmean(scores)
        for t, key in enumerate(row):
            here = statistics.fmean([float(rewards[j]) for j in group if key in rows[j]])
            expected[i, t] = float(rewards[i]) - statistics.fmean(scores) + here - before
            before = here
        if scale == "std":
            expected[i] /= statistics.stdev(scores) + 1e-6
    torch.testing.assert_close(found, expected)


A, B, X, Y, Z = 1, 2, 3, 4, 5
ONE = torch.zeros(4, dtype=torch.long)
FOUR = torch.tensor([[A, X], [A, Y], [B, X], [B, Z]])


def tempo(ids, mask, rewards, groups, **options):
    return branch_relative(rewards, prefix_tree(ids, mask, rewards, groups), groups, **options)


def test_tempo_worked_example():
    found = tempo(FOUR, everywhere(4, 2), torch.tensor([1.0, 0.0, 0.0, 0.0]), ONE, eps=0.0)
    expected = torch.tensor([[2.0, 2.5], [0.0, -1.5], [-1.0, -0.5], [-1.0, -0.5]])
    torch.testing.assert_close(found, expected)


def test_tempo_differences_telescope_to_the_reward_of_a_row_that_ends_alone():
    rewards = torch.tensor([1.0, 0.0, 0.5, 0.0])
    tree = prefix_tree(FOUR, everywhere(4, 2), rewards, ONE)
    torch.testing.assert_close((tree.value - tree.before).sum(1), rewards - rewards.mean())


def test_tempo_without_shared_prefixes_only_the_first_token_differs_from_grpo():
    ids, rewards = torch.tensor([[1, 7], [2, 7], [3, 7]]), torch.tensor([1.0, 0.0, 0.0])
    groups = torch.zeros(3, dtype=torch.long)
    found = tempo(ids, everywhere(3, 2), rewards, groups)
    plain = group_relative(rewards, groups, eps=1e-6)
    torch.testing.assert_close(found[:, 1], plain)
    torch.testing.assert_close(found[:, 0], 2 * plain)


def test_tempo_identical_responses_and_equal_rewards_have_no_branches():
    same, rewards = torch.tensor([[1, 2]] * 4), torch.tensor([1.0, 0.0, 0.0, 0.0])
    tree = prefix_tree(same, everywhere(4, 2), rewards, ONE)
    assert torch.equal(tree.value, tree.before)
    assert (tree.size == 4).all()
    assert (tempo(FOUR, everywhere(4, 2), torch.full((4,), 0.3), ONE, eps=0.0) == 0).all()


def test_a_row_that_ends_within_another_is_a_prefix_of_it():
    mask = torch.tensor([[True, False], [True, True]])
    tree = prefix_tree(torch.tensor([[1, 0], [1, 0]]), mask, torch.tensor([1.0, 0.0]), torch.zeros(2))
    assert tree.size.tolist() == [[2, 0], [2, 1]]
    assert tree.value.tolist() == [[0.5, 0.0], [0.5, 0.0]]


def test_empty_trees():
    for shape in ((0, 3), (2, 0)):
        tree = prefix_tree(
            torch.zeros(shape, dtype=torch.long), everywhere(*shape), torch.zeros(shape[0]), torch.zeros(shape[0])
        )
        assert tree.value.shape == shape
        assert branch_relative(torch.zeros(shape[0]), tree, torch.zeros(shape[0])).shape == shape


def test_bad_sequences_are_named():
    one = torch.zeros(1)
    with pytest.raises(ValueError, match="row 0 has a token behind a missing one"):
        prefix_tree(torch.zeros(1, 2, dtype=torch.long), torch.tensor([[False, True]]), one, one)
    with pytest.raises(ValueError, match="row 0 has a negative one"):
        prefix_tree(torch.tensor([[-1]]), everywhere(1, 1), one, one)
    with pytest.raises(ValueError, match=r"rewards must be \(1,\)"):
        prefix_tree(torch.tensor([[1]]), everywhere(1, 1), torch.zeros(2), one)
    with pytest.raises(ValueError, match=r"groups must be \(1,\)"):
        branch_relative(one, prefix_tree(torch.tensor([[1]]), everywhere(1, 1), one, one), torch.zeros(2))
