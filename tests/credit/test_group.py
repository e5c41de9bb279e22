import math
import statistics

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.credit import group_relative

CHOICES = {
    "pool": st.sampled_from(["rollout", "all", "position"]),
    "baseline": st.sampled_from(["mean", "loo", "unbiased", "none"]),
    "scale": st.sampled_from(["std", "batch", "none"]),
}


@st.composite
def step_rewards(draw):
    """Rewards in exact eighths, in unequal groups that are not contiguous, with steps and rows missing."""
    n, s = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    table = st.lists(st.lists(st.integers(-16, 16), min_size=s, max_size=s), min_size=n, max_size=n)
    rewards = torch.tensor(draw(table), dtype=torch.float64) / 8
    groups = torch.tensor(draw(st.lists(st.sampled_from([-3, 0, 70]), min_size=n, max_size=n)))
    mask = torch.tensor(draw(st.lists(st.lists(st.booleans(), min_size=s, max_size=s), min_size=n, max_size=n)))
    rows = torch.tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    return rewards, groups, mask, rows


def deviation(values, ddof):
    if len(values) <= ddof:
        return 0.0
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - ddof))


def by_hand(rewards, groups, mask, rows, pool, baseline, scale, ddof, eps):
    """The definition, one number at a time."""
    n, s = rewards.shape
    steps = {i: [float(rewards[i, k]) for k in range(s) if mask[i, k]] for i in range(n)}
    counted = [i for i in range(n) if rows[i] and steps[i]]

    def samples(group, position):
        members = [j for j in counted if group is None or groups[j] == group]
        if pool == "rollout":
            return [(j, sum(steps[j]) / len(steps[j])) for j in members]
        columns = range(s) if pool == "all" or group is None else [position]
        return [(j, float(rewards[j, k])) for j in members for k in columns if mask[j, k]]

    result = torch.zeros(n, s, dtype=torch.float64)
    for i in range(n):
        for k in range(s):
            if not mask[i, k]:
                continue
            pairs = samples(groups[i], k)
            values, others = [v for _, v in pairs], [v for j, v in pairs if j != i]
            if baseline != "none" and not others:
                continue
            centre = {"none": [0.0], "mean": values, "loo": others, "unbiased": values}[baseline]
            advantage = float(rewards[i, k]) - sum(centre) / len(centre)
            if baseline == "unbiased":
                advantage *= len(values) / len(others)
            measured = {"none": None, "std": values, "batch": [v for _, v in samples(None, k)]}[scale]
            if measured is not None:
                sigma = deviation(measured, ddof)
                advantage = 0.0 if sigma < 1e-9 else advantage / (sigma + eps)
            result[i, k] = advantage
    return result


@settings(max_examples=150, deadline=None)
@given(data=step_rewards(), ddof=st.sampled_from([0, 1]), **CHOICES)
def test_every_setting_is_its_definition(data, pool, baseline, scale, ddof):
    rewards, groups, mask, rows = data
    found = group_relative(
        torch.where(mask, rewards, torch.nan),
        groups,
        mask=mask,
        pool=pool,
        baseline=baseline,
        scale=scale,
        ddof=ddof,
        eps=0.01,
        baseline_rows=rows,
    )
    expected = by_hand(rewards, groups, mask, rows, pool, baseline, scale, ddof, 0.01)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_grpo_of_one_success_in_four():
    # mean 1/4, σ = ½ with ddof 1
    found = group_relative(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.zeros(4, dtype=torch.long), eps=0.0)
    torch.testing.assert_close(found, torch.tensor([1.5, -0.5, -0.5, -0.5]))


def test_rloo_of_one_success_in_four():
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0])
    found = group_relative(rewards, torch.ones(4, dtype=torch.long), baseline="loo", scale="none")
    torch.testing.assert_close(found, torch.tensor([1.0, -1 / 3, -1 / 3, -1 / 3]))


def test_reinforce_is_the_reward_itself_even_alone_or_all_equal():
    rewards = torch.tensor([2.0, 3.0, 3.0])
    found = group_relative(rewards, torch.tensor([0, 1, 1]), baseline="none", scale="none")
    torch.testing.assert_close(found, rewards)


@settings(max_examples=50, deadline=None)
@given(step_rewards(), CHOICES["pool"])
def test_mean_baseline_sums_to_zero_in_each_group(data, pool):
    rewards, groups, *_ = data
    found = group_relative(rewards, groups, pool=pool, scale="none")
    for group in groups.unique():
        assert abs(float(found[groups == group].sum())) < 1e-9


@settings(max_examples=50, deadline=None)
@given(step_rewards())
def test_leave_one_out_is_the_mean_baseline_times_n_over_n_minus_one(data):
    rewards, groups = data[0][:, 0], data[1]
    sizes = torch.stack([(groups == group).sum() for group in groups])
    loo = group_relative(rewards, groups, baseline="loo", scale="none")
    mean = group_relative(rewards, groups, baseline="mean", scale="none")
    torch.testing.assert_close(loo * (sizes - 1) / sizes, mean)


@settings(max_examples=50, deadline=None)
@given(data=step_rewards(), seed=st.integers(0, 99), **CHOICES)
def test_order_of_rows_does_not_matter(data, seed, **chosen):
    rewards, groups, mask, rows = data
    order = torch.randperm(len(rewards), generator=torch.Generator().manual_seed(seed))
    straight = group_relative(rewards, groups, mask=mask, baseline_rows=rows, **chosen)[order]
    shuffled = group_relative(rewards[order], groups[order], mask=mask[order], baseline_rows=rows[order], **chosen)
    torch.testing.assert_close(shuffled, straight)


@pytest.mark.parametrize("scale", ["std", "batch", "none"])
@pytest.mark.parametrize("baseline", ["mean", "loo", "unbiased"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rewards_equal_up_to_rounding_are_no_signal(dtype, baseline, scale):
    rewards = torch.tensor([0.1 + 0.2, 0.3, 0.3, 1e5, 1e5 * (1 + 1e-7), 7.0], dtype=dtype)
    groups = torch.tensor([0, 0, 0, 1, 1, 2])
    assert (group_relative(rewards, groups, baseline=baseline, scale=scale, eps=0.0) == 0).all()


def test_a_small_but_real_difference_is_signal():
    rewards = torch.tensor([1.0, 1.0 + 1e-4])
    found = group_relative(rewards, torch.zeros(2, dtype=torch.long), eps=0.0)
    torch.testing.assert_close(found, torch.tensor([-(0.5**0.5), 0.5**0.5]), rtol=1e-2, atol=0.0)


@settings(max_examples=100, deadline=None)
@given(
    rewards=st.lists(st.floats(-(2.0**50), 2.0**50, width=32), min_size=1, max_size=6),
    eps=st.sampled_from([0.0, 1e-8, 1e-4]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    **CHOICES,
)
def test_finite_rewards_give_finite_advantages_of_bounded_size(rewards, eps, dtype, **chosen):
    values = torch.tensor(rewards, dtype=dtype)
    found = group_relative(values, torch.arange(len(rewards)) % 2, eps=eps, **chosen)
    assert found.isfinite().all()
    assert found.dtype == dtype
    if chosen["scale"] == "std" and chosen["baseline"] == "mean":
        assert found.abs().max() <= 1.01 * math.sqrt(len(rewards))


def test_abstained_rows_leave_the_statistics_whatever_stands_there():
    rewards = torch.tensor([1.0, float("nan"), 0.0, float("inf"), 1e30])
    mask = torch.tensor([True, False, True, False, False])
    found = group_relative(rewards, torch.zeros(5, dtype=torch.long), mask=mask, eps=0.0)
    torch.testing.assert_close(found, torch.tensor([0.5**0.5, 0.0, -(0.5**0.5), 0.0, 0.0]))


def test_a_row_mask_masks_every_step_of_the_row():
    rewards = torch.tensor([[1.0, 2.0], [3.0, 5.0], [torch.nan, torch.nan]])
    found = group_relative(
        rewards, torch.zeros(3, dtype=torch.long), mask=torch.tensor([True, True, False]), pool="position", scale="none"
    )
    torch.testing.assert_close(found, torch.tensor([[-1.0, -1.5], [1.0, 1.5], [0.0, 0.0]]))


def test_rows_outside_the_baseline_are_compared_with_it():
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0])
    rows = torch.tensor([False, True, True, True])
    found = group_relative(rewards, torch.zeros(4, dtype=torch.long), baseline_rows=rows, scale="none")
    torch.testing.assert_close(found, torch.tensor([2 / 3, -1 / 3, -1 / 3, 2 / 3]))


def test_an_expert_among_equal_failures_is_not_blown_up():
    rewards, rows = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([False, True, True])
    group = torch.zeros(3, dtype=torch.long)
    assert group_relative(rewards, group, baseline_rows=rows, scale="std").tolist() == [0.0, 0.0, 0.0]
    assert group_relative(rewards, group, baseline_rows=rows, scale="none").tolist() == [1.0, 0.0, 0.0]


def test_a_rollout_counts_once_however_many_steps_it_has():
    rewards = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    group = torch.zeros(2, dtype=torch.long)
    by_rollout = group_relative(rewards, group, mask=mask, pool="rollout", scale="none")
    by_step = group_relative(rewards, group, mask=mask, pool="all", scale="none")
    torch.testing.assert_close(by_rollout, torch.tensor([[0.5, 0.5, 0.5], [-0.5, 0.0, 0.0]]))
    torch.testing.assert_close(by_step, torch.tensor([[0.25, 0.25, 0.25], [-0.75, 0.0, 0.0]]))


def test_bfloat16_rewards_are_averaged_in_float32():
    rewards = torch.cat([torch.ones(1), torch.zeros(999)]).bfloat16()
    found = group_relative(rewards, torch.zeros(1000, dtype=torch.long), eps=0.0)
    expected = -0.001 / statistics.stdev([1.0] + [0.0] * 999)
    assert float(found[1]) == pytest.approx(expected, rel=1e-2)


def test_advantages_are_constants():
    rewards = torch.tensor([1.0, 0.0], requires_grad=True)
    assert not group_relative(rewards, torch.zeros(2, dtype=torch.long)).requires_grad


def test_integer_rewards_and_an_empty_batch():
    assert group_relative(torch.tensor([1, 0]), torch.tensor([4, 4]), scale="none").tolist() == [0.5, -0.5]
    assert group_relative(torch.zeros(0), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"groups must be \(2,\) beside rewards \(2, 3\), got \(3,\)"):
        group_relative(torch.zeros(2, 3), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"mask must be \(2,\) or \(2, 3\)"):
        group_relative(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), mask=torch.ones(3, dtype=torch.bool))
