"""Credit from the rewards of completed states: gains, turning points, granularities, branches."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.credit import branch_extremes, granular_relative, group_relative, progress, turning_points, turning_steps


@st.composite
def tables(draw, ties=True):
    n, t = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    entries = st.integers(-4, 4) if ties else st.floats(-4, 4)
    rows = st.lists(entries, min_size=t + 2, max_size=t + 2)
    values = torch.tensor(draw(st.lists(rows, min_size=n, max_size=n)), dtype=torch.float64)
    known = draw(st.lists(st.lists(st.booleans(), min_size=t, max_size=t), min_size=n, max_size=n))
    return values[:, :-1], values[:, -1], torch.tensor(known)


def both(table, final=None, **options):
    return tuple(part(table, final=final, **options) for part in (turning_points, turning_steps))


def sign(x):
    return (x > 0) - (x < 0)


def oracle(table, final, known, balance, consistent=True, main="gain"):
    """The sheet of TurningPoint-GRPO, step by step; points are ranked by what the turn itself is to be paid."""
    n, t = len(known), len(known[0])
    gains = [[table[i][k + 1] - table[i][k] if known[i][k] else 0.0 for k in range(t)] for i in range(n)]
    points = []
    for i in range(n):
        s = [sign(gain) * sign(final[i] - table[i][0]) for gain in gains[i]]
        for k in range(t):
            goes_on = not consistent or sign(gains[i][k]) * sign(final[i] - table[i][k + 1]) > 0
            if known[i][k] and goes_on and s[k] > 0 and (k == 0 or s[k - 1] < 0):
                points.append((gains[i][k] if main == "whole" else final[i] - table[i][k], i, k))
    up = sorted((p for p in points if p[0] > 0), key=lambda p: (-p[0], p[1], p[2]))
    down = sorted((p for p in points if p[0] < 0), key=lambda p: (p[0], p[1], p[2]))
    if balance and up and down:
        keep = min(len(up), len(down))
        up, down = up[:keep], down[:keep]
    whole = [[(final[i] - table[i][0]) * known[i][k] for k in range(t)] for i in range(n)]
    rewards = whole if main == "whole" else gains
    for reward, i, k in up + down:
        rewards[i][k] = reward + (rewards[i][k] if main == "whole" else 0)
    return rewards, {(i, k) for _, i, k in up + down}


def test_a_turning_point_is_paid_what_it_led_to():
    table, final = torch.tensor([[0.5, 0.4, 0.6, 0.7]]), torch.tensor([0.75])
    rewards, turning = both(table, final)
    torch.testing.assert_close(rewards, torch.tensor([[-0.1, 0.35, 0.1]]))
    assert turning.tolist() == [[False, True, False]]
    torch.testing.assert_close(
        turning_points(torch.tensor([[0.5, 0.6, 0.7]])),
        torch.tensor([[0.2, 0.1]]),  # the first step turns it if the rest goes on
    )


@settings(max_examples=300, deadline=None)
@given(tables(), st.booleans(), st.booleans(), st.sampled_from(["gain", "whole"]))
def test_turning_points_are_their_definition(data, balance, consistent, main):
    table, final, known = data
    options = {"balance": balance, "consistent": consistent, "main": main}
    rewards, turning = both(table, final, mask=known, **options)
    expected, points = oracle(table.tolist(), final.tolist(), known.tolist(), **options)
    torch.testing.assert_close(rewards, torch.tensor(expected, dtype=torch.float64))
    assert {tuple(p) for p in turning.nonzero().tolist()} == points


@settings(max_examples=100, deadline=None)
@given(tables(ties=False))
def test_gains_telescope_where_nothing_turns_and_the_last_step_never_does(data):
    table, _, known = data
    rewards, turning = both(table)
    assert not turning[:, -1].any()
    still = ~turning.any(1)
    torch.testing.assert_close(rewards.sum(1)[still], (table[:, -1] - table[:, 0])[still])
    gains = progress(table, torch.ones_like(known))
    assert bool((rewards.abs() >= gains.abs() - 1e-12).all())
    assert bool((rewards * gains >= 0).all())


def test_as_many_turns_for_the_better_as_for_the_worse():
    """Four rows turn, three of them up; the one that is paid most is kept beside the one that turns down."""
    table = torch.tensor([[0.5, 0.4, 0.5], [0.5, 0.4, 0.6], [0.5, 0.3, 0.4], [0.5, 0.6, 0.5]])  # R_f − R₁ below
    final = torch.tensor([0.6, 1.0, 0.7, 0.2])
    rewards, turning = both(table, final)
    assert turning.tolist() == [[False, False], [False, True], [False, False], [False, True]]
    torch.testing.assert_close(rewards[:, 1], torch.tensor([0.1, 0.6, 0.1, -0.4]))
    assert turning_steps(table, final=final, balance=False)[:, 1].all()


def test_the_release_s_variants_by_hand():
    """The second step turns up and is soon undone; the whole is +0.2 and leads where asked to."""
    table, final = torch.tensor([[0.5, 0.4, 0.9, 0.6]]), torch.tensor([0.7])
    assert not turning_steps(table, final=final).any()
    rewards, turning = both(table, final, consistent=False)
    assert turning.tolist() == [[False, True, False]]
    torch.testing.assert_close(rewards, torch.tensor([[-0.1, 0.3, -0.3]]))
    rewards, _ = both(table, final, consistent=False, main="whole")
    torch.testing.assert_close(rewards, torch.tensor([[0.2, 0.7, 0.2]]))
    torch.testing.assert_close(turning_points(table, final=final, main="whole"), torch.full((1, 3), 0.2))
    undone = turning_points(torch.tensor([[0.5, 0.4, 0.9, 0.6]]), final=torch.tensor([0.3]), consistent=False)
    torch.testing.assert_close(undone, torch.tensor([[-0.2, 0.5, -0.6]]))  # the first and the last go its way: down
    nothing_led_to = turning_points(torch.tensor([[0.0, 5.0, 2.0, 3.0]]), final=torch.tensor([2.0]), consistent=False)
    assert nothing_led_to.tolist() == [[2.0, -3.0, 1.0]]  # the last step turns, and R_f − R₂ = 0 takes nothing from it
    lost = turning_points(table, final=torch.tensor([torch.nan]), main="whole")
    assert lost.tolist() == [[0.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match="main must be one of gain, whole"):
        turning_points(table, main="sum")


def test_a_rise_within_a_fall_is_no_turning_point():
    """The last step goes up and the sample further up, but below where it began."""
    turning = turning_steps(torch.tensor([[0.9, 0.2, 0.4]]), final=torch.tensor([0.5]))
    assert not turning.any()


def test_what_is_not_known_is_not_read():
    table = torch.tensor([[0.5, torch.nan, 0.6, 0.7]])
    known = torch.tensor([[False, False, True]])
    rewards, turning = both(table, torch.tensor([0.75]), mask=known)
    torch.testing.assert_close(rewards, torch.tensor([[0.0, 0.0, 0.1]]))
    assert turning.tolist() == [[False, False, False]]
    rewards, turning = both(torch.tensor([[0.5, 0.4, 0.6]]), torch.tensor([torch.nan]))
    torch.testing.assert_close(rewards, torch.tensor([[-0.1, 0.2]]))
    assert not turning.any()


def test_granularities_are_compared_each_in_its_own_unit_and_added():
    tables = torch.tensor([[1.0, 2, 3, 4], [2.0, 1, 4, 3]])[..., None]
    groups = torch.zeros(4, dtype=torch.long)
    found = granular_relative(tables, groups)[:, 0]
    torch.testing.assert_close(found, torch.tensor([-1.549, -1.549, 1.549, 1.549]), atol=1e-3, rtol=0)
    scaled = granular_relative(tables * torch.tensor([1.0, 1000.0])[:, None, None], groups)[:, 0]
    torch.testing.assert_close(scaled, found, atol=1e-4, rtol=0)
    assert granular_relative(torch.ones(2, 4, 3), groups).tolist() == [[0.0] * 3] * 4


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(2, 6), st.integers(1, 4), st.integers(0, 1000))
def test_granular_credit_is_a_sum_of_z_scores(k, n, t, seed):
    generator = torch.Generator().manual_seed(seed)
    tables = torch.randn(k, n, t, generator=generator, dtype=torch.float64)
    groups = torch.randint(2, (n,), generator=generator)
    mask = torch.rand(k, n, t, generator=generator) < 0.8
    found = granular_relative(torch.where(mask, tables, torch.nan), groups, mask=mask)
    for i in range(n):
        for j in range(t):
            expected = 0.0
            for view in range(k):
                rows = [r for r in range(n) if groups[r] == groups[i] and mask[view, r, j]]
                if i not in rows or len(rows) < 2:
                    continue
                values = [float(tables[view, r, j]) for r in rows]
                mean = sum(values) / len(values)
                std = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
                expected += (float(tables[view, i, j]) - mean) / (std + 1e-8)
            assert float(found[i, j]) == pytest.approx(expected, abs=1e-9)


def test_the_best_branch_is_kept_if_good_and_the_worst_if_bad():
    scores = torch.tensor([0.9, 0.1, -0.2, -0.8, 0.3, 0.4, -0.4, 0.0, 0.2, -0.5, 9.0, 9.0, 0.5])
    branches = torch.tensor([0] * 5 + [1] * 5 + [2] * 2 + [3])
    found = branch_extremes(scores, branches)
    assert found.nonzero().flatten().tolist() == [0, 3, 10, 12]
    torch.testing.assert_close(found[[0, 3, 10, 12]], torch.tensor([0.9, -0.8, 5.0, 0.5]))
    assert float(found[9]) == 0  # −0.5 is not below −0.5


def test_branches_that_abstained_are_never_kept():
    scores = torch.tensor([torch.nan, 0.7, -0.9, torch.nan])
    found = branch_extremes(scores, torch.tensor([0, 0, 0, 1]), mask=torch.tensor([False, True, True, False]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.7, -0.9, 0.0]))
    assert branch_extremes(torch.zeros(0), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_differences_within_a_branch_group_hold_no_variance_of_the_prefix():
    """r = prefix + suffix, sd 1 each: within branches the variance is that of the suffix alone, half of the pool's."""
    generator = torch.Generator().manual_seed(0)
    prefix, suffix = torch.randn(4000, 1, generator=generator), torch.randn(4000, 5, generator=generator)
    rewards = (prefix + suffix).flatten()
    within = group_relative(rewards, torch.arange(4000).repeat_interleave(5), scale="none")
    pooled = group_relative(rewards, torch.zeros(20000, dtype=torch.long), scale="none")
    ratio = float((within**2).sum() / (20000 * 4 / 5) / pooled.var())
    assert ratio == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    "call",
    [
        lambda: turning_points(torch.zeros(3)),
        lambda: turning_points(torch.zeros(2, 3), final=torch.zeros(3)),
        lambda: turning_points(torch.zeros(2, 3), mask=torch.ones(2, 3, dtype=torch.bool)),
        lambda: granular_relative(torch.zeros(2, 3), torch.zeros(3)),
        lambda: granular_relative(torch.zeros(2, 3, 1), torch.zeros(2)),
        lambda: branch_extremes(torch.zeros(2), torch.zeros(3)),
        lambda: branch_extremes(torch.zeros(2), torch.zeros(2), best=-1.0),
    ],
    ids=["table", "final", "mask", "tables", "groups", "branches", "thresholds"],
)
def test_shapes_and_options_that_do_not_fit_are_named(call):
    with pytest.raises(ValueError, match=r"must|above"):
        call()
