import math
import statistics

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.core.spans import Spans
from guerdon.credit import group_relative, rescale, returns, spread, unit_returns, whiten


def everywhere(*shape):
    return torch.ones(*shape, dtype=torch.bool)


ONE_GROUP = torch.zeros(4, dtype=torch.long)


@st.composite
def token_values(draw):
    n, t = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    numbers = st.lists(st.integers(-16, 16), min_size=t, max_size=t)
    values = torch.tensor(draw(st.lists(numbers, min_size=n, max_size=n))).double() / 8
    flags = st.lists(st.booleans(), min_size=t, max_size=t)
    return values, torch.tensor(draw(st.lists(flags, min_size=n, max_size=n)))


@settings(max_examples=100, deadline=None)
@given(token_values(), st.sampled_from([0, 1]))
def test_whitening_is_its_definition(data, ddof):
    values, mask = data
    counted = values[mask].tolist()
    expected = torch.zeros(values.shape, dtype=torch.float64)
    if len(set(counted)) > 1:
        mean = sum(counted) / len(counted)
        variance = sum((x - mean) ** 2 for x in counted) / (len(counted) - ddof)
        expected = torch.where(mask, (values - mean) / math.sqrt(variance + 1e-8), 0)
    torch.testing.assert_close(whiten(torch.where(mask, values, torch.nan), mask, ddof=ddof), expected)


def test_values_equal_up_to_rounding_are_not_whitened_into_noise():
    assert whiten(torch.tensor([[1.0 + 2**-23, 1.0, 1.0]]), everywhere(1, 3)).tolist() == [[0.0, 0.0, 0.0]]


def test_dler_whitened_advantages_have_mean_0_and_deviation_1_and_one_scale():
    rewards = torch.tensor([1.0] + [0.0] * 15 + [1.0] * 8 + [0.0] * 8)
    groups = torch.arange(2).repeat_interleave(16)
    written = torch.arange(6) < (1 + torch.arange(32) % 6)[:, None]
    centred = group_relative(rewards, groups, scale="none")
    found = whiten(spread(centred, written, place="all"), written)
    counted = found[written].tolist()
    assert statistics.fmean(counted) == pytest.approx(0.0, abs=1e-6)
    assert statistics.stdev(counted) == pytest.approx(1.0, rel=1e-6)
    # The rare success is 15/16 above its group's mean, the frequent one 1/2 above its: so they stay.
    offset = statistics.fmean(centred[i].item() for i in range(32) for _ in range(int(written[i].sum())))
    assert float(found[0, 0] / found[16, 0]) == pytest.approx((15 / 16 - offset) / (1 / 2 - offset), rel=1e-5)


def test_dler_group_deviations_inflate_lopsided_groups_two_fold():
    rare = group_relative(torch.tensor([1.0] + [0.0] * 15), torch.zeros(16, dtype=torch.long), ddof=0, eps=0.0)
    even = group_relative(torch.tensor([1.0] * 8 + [0.0] * 8), torch.zeros(16, dtype=torch.long), ddof=0, eps=0.0)
    assert float((rare[0] / (15 / 16)) / (even[0] / (1 / 2))) == pytest.approx(0.5 / math.sqrt(15 / 256), rel=1e-6)
    assert 0.5 / math.sqrt(15 / 256) == pytest.approx(2.07, abs=0.01)


def test_prime_leave_one_out_of_the_verifier():
    found = group_relative(torch.tensor([1.0, 0.0, 0.0, 0.0]), ONE_GROUP, baseline="unbiased", scale="none")
    torch.testing.assert_close(found, torch.tensor([1.0, -1 / 3, -1 / 3, -1 / 3]))


def test_prime_no_return_leaves_the_unit_interval():
    rewards, mask = torch.tensor([[4.0, -6.0, torch.nan], [1.0, 1.0, 1.0]]), torch.tensor([[1, 1, 0], [1, 1, 1]]) > 0
    found = unit_returns(rewards, mask)
    # Returns are (−2, −6) and (3, 2, 1): the largest in size is 6.
    torch.testing.assert_close(found, torch.tensor([[4.0, -6.0, 0.0], [1.0, 1.0, 1.0]]) / (6 + 1e-6))
    assert float(returns(found, mask).abs().max()) <= 1.0
    assert unit_returns(torch.zeros(1, 2), everywhere(1, 2)).tolist() == [[0.0, 0.0]]


def prime(implicit, solved, mask, groups):
    """The credit of PRIME: both sources against the others' means, as returns, summed and whitened."""
    process = group_relative(unit_returns(implicit, mask), groups, mask=mask, baseline="unbiased", scale="none")
    outcome = spread(group_relative(solved, groups, baseline="unbiased", scale="none"), mask)
    return whiten(returns(process, mask) + returns(outcome, mask), mask)


def test_prime_sum_of_sources_is_its_definition():
    implicit = torch.tensor([[0.3, -0.1, 0.2], [0.5, 0.4, 0.0], [-0.2, 0.0, 0.0], [0.1, 0.1, 0.1]])
    lengths, solved = [3, 2, 1, 3], [1.0, 0.0, 0.0, 1.0]
    mask = torch.arange(3) < torch.tensor(lengths)[:, None]
    rows = [[float(x) for x in implicit[i, : lengths[i]]] for i in range(4)]
    largest = max(abs(sum(r[t:])) for r in rows for t in range(len(r))) + 1e-6
    rows = [[x / largest for x in r] for r in rows]
    means = [sum(r) / len(r) for r in rows]
    advantages = []
    for i, r in enumerate(rows):
        centred = [4 / 3 * (x - sum(means) / 4) for x in r]
        verified = 4 / 3 * (solved[i] - sum(solved) / 4)
        advantages.append([sum(centred[t:]) + verified for t in range(len(r))])
    pooled = [x for a in advantages for x in a]
    mean, variance = statistics.fmean(pooled), statistics.variance(pooled)
    expected = torch.zeros(4, 3)
    for i, a in enumerate(advantages):
        expected[i, : len(a)] = torch.tensor([(x - mean) / math.sqrt(variance + 1e-8) for x in a])
    torch.testing.assert_close(prime(implicit, torch.tensor(solved), mask, ONE_GROUP), expected, rtol=1e-4, atol=1e-5)


def test_prime_an_implicit_reward_of_nothing_leaves_the_verifier():
    solved, mask = torch.tensor([1.0, 0.0, 0.0, 0.0]), everywhere(4, 2)
    found = prime(torch.zeros(4, 2), solved, mask, ONE_GROUP)
    alone = whiten(spread(group_relative(solved, ONE_GROUP, baseline="loo", scale="none"), mask, place="all"), mask)
    torch.testing.assert_close(found, alone)


def test_oprl_steps_and_episodes_are_compared_apart_and_added():
    # Two episodes of two and of one step; step rewards are pooled over the group, and added to the episode's.
    steps, mask = torch.tensor([[0.2, 0.4], [0.3, torch.nan]]), torch.tensor([[True, True], [True, False]])
    groups, outcome = torch.zeros(2, dtype=torch.long), torch.tensor([1.0, 0.0])
    episode = group_relative(outcome, groups, baseline="unbiased", scale="none")
    step = group_relative(steps, groups, mask=mask, pool="all", scale="none")
    written = torch.tensor([[True, False, True], [True, True, False]])
    spans = Spans.of([[(0, 2), (2, 3)], [(0, 2)]])
    found = spread(episode[:, None] + step, written, spans, place="all")
    # Episode ±1; steps less their pooled mean 0.3.
    torch.testing.assert_close(found, torch.tensor([[0.9, 0.0, 1.1], [-1.0, -1.0, 0.0]]))
    silent = group_relative(torch.zeros(2, 2), groups, mask=mask, pool="all", baseline="unbiased", scale="none")
    assert (silent == 0).all()


def test_oprl_pooled_step_baseline_counts_the_others_steps():
    steps, mask = torch.tensor([[0.2, 0.4], [0.9, 0.0]]), torch.tensor([[True, True], [True, False]])
    groups = torch.zeros(2, dtype=torch.long)
    found = group_relative(steps, groups, mask=mask, pool="all", baseline="unbiased", scale="none")
    # Three steps; the first row owns two of them, the second one: factors 3/1 and 3/2.
    torch.testing.assert_close(found, torch.tensor([[3 * (0.2 - 0.5), 3 * (0.4 - 0.5)], [1.5 * (0.9 - 0.5), 0.0]]))


def test_decs_redundant_tokens_are_worse_than_necessary_ones_at_the_same_place():
    limit, bonus = 100, 0.1
    length = torch.tensor([60, 60, 40])
    redundant = torch.zeros(3, limit, dtype=torch.bool)
    redundant[0, 20:50] = True
    rewards = torch.where(redundant, 1 + bonus * (1 - length[:, None] / limit), 1 + bonus)
    assert float(rewards[0, 20]) == pytest.approx(1.04)
    assert float(rewards[0, 0]) == pytest.approx(1.1)
    # The values reach over the padding, so that a finished rollout is still compared; then the mask applies.
    found = group_relative(rewards, torch.zeros(3, dtype=torch.long), pool="position", eps=1e-6)
    found = torch.where(torch.arange(limit) < length[:, None], found, 0)
    assert (found[0, 20:50] < 0).all()
    assert (found[1, 20:50] > 0).all()
    assert (found[2, 20:40] > 0).all()
    assert (found[2, 40:] == 0).all()
    assert (found[:, :20] == 0).all()
    sigma = statistics.stdev([1.04, 1.1, 1.1])
    assert float(found[0, 30]) == pytest.approx((1.04 - 3.24 / 3) / (sigma + 1e-6), rel=1e-4)


def test_openthinkimg_worked_example():
    found = group_relative(torch.tensor([2.0, 1.0, 1.0, 0.0]), ONE_GROUP, eps=1e-4)
    torch.testing.assert_close(found, torch.tensor([1.2246, 0.0, 0.0, -1.2246]), atol=5e-5, rtol=0)


def test_rlfr_sequence_scores_are_min_max_with_a_threshold():
    scores = torch.tensor([[2.0, 6.0, 4.0, torch.nan], [5.0, 5.0, 5.0, 5.0]])
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    found = rescale(scores, mask, threshold=0.4)
    assert found.tolist() == [[0.0, 1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert rescale(scores, mask, bilateral=True, threshold=0.4)[0].tolist() == [-1.0, 1.0, 0.0, 0.0]
    assert rescale(scores, mask, power=2.0)[0].tolist() == [0.0, 1.0, 0.25, 0.0]
    assert rescale(scores, mask, top=1)[0].tolist() == [0.0, 1.0, 0.0, 0.0]
    assert rescale(scores - 10, mask)[0].tolist() == [0.0, 1.0, 0.5, 0.0]


def test_rlfr_released_form_divides_by_the_second_smallest_of_the_padded_row():
    scores, mask = torch.tensor([[3.0, 1.0, 5.0, 9.0]]), torch.tensor([[True, True, True, False]])
    # With the padding's 0, the second smallest is 1 and the largest 5; without padding it is 3, and 1 falls below 0.
    assert rescale(scores, mask, form="second-smallest")[0].tolist() == [0.5, 0.0, 1.0, 0.0]
    assert rescale(scores[:, :3], mask[:, :3], form="second-smallest")[0].tolist() == [0.0, -1.0, 1.0]


def test_bad_normalisations_are_named():
    with pytest.raises(ValueError, match="need one shape"):
        whiten(torch.zeros(2), everywhere(2))
    with pytest.raises(ValueError, match="eps must be positive"):
        unit_returns(torch.zeros(1, 1), everywhere(1, 1), eps=0.0)
    with pytest.raises(ValueError, match="form is one of"):
        rescale(torch.zeros(1, 1), everywhere(1, 1), form="max")
    with pytest.raises(ValueError, match="threshold"):
        rescale(torch.zeros(1, 1), everywhere(1, 1), threshold=-1.0)
