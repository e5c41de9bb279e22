import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.core.spans import Spans
from guerdon.credit import grounded_rewards, group_relative, length_relative, min_form, returns, scans, spread, whiten


def everywhere(*shape):
    return torch.ones(*shape, dtype=torch.bool)


@st.composite
def episodes(draw):
    """Rewards and values in eighths, with gaps, ends of episodes and values behind the rows."""
    n, t = draw(st.integers(1, 4)), draw(st.integers(1, 9))

    def table(entries):
        return torch.tensor(draw(st.lists(st.lists(entries, min_size=t, max_size=t), min_size=n, max_size=n)))

    numbers, flags = st.integers(-16, 16), st.booleans()
    behind = torch.tensor(draw(st.lists(numbers, min_size=n, max_size=n))) / 8
    return table(numbers).double() / 8, table(numbers).double() / 8, table(flags), table(flags), behind.double()


def by_hand(rewards, values, mask, ends, behind, kind, gamma, lam, gaps):
    """The recursions of the definition, one step at a time."""
    found = torch.zeros(rewards.shape, dtype=torch.float64)
    for i in range(len(rewards)):
        later, value, worst, seen = float(behind[i]), float(behind[i]), math.inf, False
        if kind == "gae":
            later = 0.0
        for t in reversed(range(rewards.shape[1])):
            if not mask[i, t]:
                if gaps == "reset" and seen:
                    later, value, worst = 0.0, 0.0, math.inf
                continue
            if ends[i, t]:
                later, value, worst = 0.0, 0.0, math.inf
            seen = True
            reward = float(rewards[i, t])
            if kind == "gae":
                later = reward + gamma * value - float(values[i, t]) + gamma * lam * later
            elif kind == "sum":
                later = reward + gamma * later
            else:
                later = worst = min(reward, worst)
            value = float(values[i, t])
            found[i, t] = later
    return found


@settings(max_examples=200, deadline=None)
@given(
    episodes(),
    st.sampled_from(["sum", "min", "gae"]),
    st.sampled_from([1.0, 0.9, 0.3, 0.0]),
    st.sampled_from([1.0, 0.95, 0.0]),
    st.sampled_from(["skip", "reset"]),
    st.booleans(),
)
def test_every_recursion_is_its_definition(data, kind, gamma, lam, gaps, several):
    rewards, values, mask, ends, behind = data
    ends = ends if several else torch.zeros_like(ends)
    if kind == "min":
        gamma, behind = 1.0, torch.zeros_like(behind)
    options = {"gamma": gamma, "gaps": gaps}
    if kind != "min":
        options["bootstrap"] = behind
    if kind == "gae":
        options |= {"lam": lam, "values": torch.where(mask, values, torch.nan)}
    if several:
        options["ends"] = ends
    found = returns(torch.where(mask, rewards, torch.nan), mask, kind=kind, **options)
    torch.testing.assert_close(found, by_hand(rewards, values, mask, ends, behind, kind, gamma, lam, gaps))


@pytest.mark.parametrize("decay", [1.0, 0.999, 0.9405, 0.5, 0.01])
@pytest.mark.parametrize("holes", [False, True])
def test_long_rows_are_exact_to_float32(decay, holes):
    generator = torch.Generator().manual_seed(3)
    rewards, values = (torch.randn(5, 700, generator=generator) for _ in range(2))
    mask = torch.arange(700) < torch.tensor([[700], [512], [513], [1], [0]])
    if holes:
        mask = mask & (torch.rand(5, 700, generator=generator) < 0.7)
    found = returns(rewards, mask, kind="gae", gamma=1.0, lam=decay, values=values)
    none = torch.zeros(5, 700, dtype=torch.bool)
    expected = by_hand(rewards, values, mask, none, torch.zeros(5), "gae", 1.0, decay, "skip")
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


def test_rows_do_not_depend_on_how_many_are_worked_on_at_once(monkeypatch):
    rewards, mask = torch.randn(7, 9, dtype=torch.float64), torch.rand(7, 9) < 0.8
    whole = returns(rewards, mask, gamma=0.9)
    monkeypatch.setattr(scans, "CACHED", 20)
    assert torch.equal(returns(rewards, mask, gamma=0.9), whole)


def test_returns_are_constants_in_float32_or_wider():
    rewards = torch.full((1, 3), 0.1, dtype=torch.bfloat16, requires_grad=True)
    found = returns(rewards, everywhere(1, 3))
    assert not found.requires_grad
    assert found.dtype == torch.bfloat16
    assert returns(torch.ones(1, 3, dtype=torch.long), everywhere(1, 3)).tolist() == [[3.0, 2.0, 1.0]]
    assert returns(torch.zeros(0, 3), everywhere(0, 3)).shape == (0, 3)
    assert returns(torch.zeros(2, 0), everywhere(2, 0)).shape == (2, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.5}, "gamma and lam lie in"),
        ({"kind": "gae"}, "values are for kind='gae', and it needs them"),
        ({"values": torch.zeros(1, 2)}, "values are for kind='gae'"),
        ({"lam": 0.9}, "lam is for kind='gae'"),
        ({"kind": "min", "gamma": 0.9}, "a minimum is not discounted"),
        ({"kind": "softmin", "gaps": "reset"}, "takes no ends, no reset"),
        ({"kind": "max"}, "kind is one of"),
        ({"bootstrap": torch.zeros(2)}, r"bootstrap must be \(1,\)"),
        ({"ends": torch.zeros(1, 3, dtype=torch.bool)}, r"ends must be \(1, 2\)"),
    ],
    ids=["gamma", "no values", "values", "lam", "min", "softmin", "kind", "bootstrap", "ends"],
)
def test_arguments_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        returns(torch.zeros(1, 2), everywhere(1, 2), **options)


def test_pure_worked_example():
    rewards = torch.tensor([[0.9, 0.8, -0.6]], dtype=torch.float64)
    weights = min_form(rewards, everywhere(1, 3)) / rewards
    exponents = [math.exp(-r / 0.1) for r in (0.9, 0.8, -0.6)]
    torch.testing.assert_close(weights[0], torch.tensor([e / sum(exponents) for e in exponents], dtype=torch.float64))
    assert float(min_form(rewards, everywhere(1, 3)).sum()) == pytest.approx(-0.599998, abs=1e-6)


def test_pure_many_good_steps_do_not_pay_for_one_bad_one():
    rewards = torch.tensor([[0.5] * 10 + [-0.9]])
    here = everywhere(1, 11)
    assert float(returns(rewards, here)[0, 0]) == pytest.approx(4.1)
    assert float(returns(rewards, here, kind="softmin")[0, 0]) == pytest.approx(-0.9, abs=1e-4)
    assert returns(rewards, here, kind="min")[0].tolist() == pytest.approx([-0.9] * 11)


def test_pure_what_follows_the_worst_step_gets_nothing():
    found = returns(torch.tensor([[0.9, -0.9, 0.9]]), everywhere(1, 3), kind="softmin")
    torch.testing.assert_close(found, torch.tensor([[-0.9, -0.9, 0.0]]), atol=1e-5, rtol=0)


def test_pure_a_hot_minimum_is_the_mean():
    rewards = torch.tensor([[1.0, 2.0, 9.0, torch.nan]])
    found = min_form(rewards, torch.tensor([[True, True, True, False]]), temperature=1e6)
    assert float(found.sum()) == pytest.approx(4.0, rel=1e-4)


def test_pure_a_minimum_over_tokens_is_taken_over_the_scored_ones_only():
    scored = torch.tensor([[False, True, False, True]])
    found = returns(torch.tensor([[0.0, 0.7, 0.0, 0.4]]), scored, kind="min")
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.4, 0.0, 0.4]]))


def test_pure_equal_rewards_per_token_leave_nothing_however_a_text_is_cut():
    lengths = torch.tensor([[4, 6, 0], [1, 2, 7], [5, 0, 0]])
    found = length_relative(0.1 * lengths, lengths, torch.zeros(3, dtype=torch.long), mask=lengths > 0)
    torch.testing.assert_close(found, torch.zeros(3, 3), atol=1e-6, rtol=0)


def test_pure_baseline_is_what_the_others_earn_per_token():
    rewards = torch.tensor([[1.0, 2.0], [0.5, torch.nan], [4.0, -1.0], [9.0, 9.0]])
    lengths = torch.tensor([[3, 5], [2, 100], [1, 7], [1, 1]])
    mask = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    found = length_relative(rewards, lengths, torch.tensor([0, 0, 0, 1]), mask=mask)
    rates = [(0.5 + 3.0) / (2 + 8), (3.0 + 3.0) / (8 + 8), (3.0 + 0.5) / (8 + 2)]
    expected = [
        [1.0 - 3 * rates[0], 2.0 - 5 * rates[0]],
        [0.5 - 2 * rates[1], 0.0],
        [4.0 - 1 * rates[2], -1.0 - 7 * rates[2]],
        [0.0, 0.0],
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_pure_with_verifiable_rewards_is_a_sum_of_parts():
    # Two rollouts of two steps of two tokens; min-form rewards less the others' rate, and solved − 1 at the last token.
    steps, written = torch.tensor([[0.8, -0.5], [0.6, 0.7]]), everywhere(2, 4)
    groups, solved = torch.zeros(2, dtype=torch.long), torch.tensor([0.0, 1.0])
    spans = Spans.of([[(0, 2), (2, 4)]] * 2)
    lengths = torch.full((2, 2), 2)
    credit = length_relative(min_form(steps, everywhere(2, 2), temperature=1e-3), lengths, groups)
    verified = group_relative(solved - 1, groups, baseline="loo", scale="none")
    found = returns(spread(credit, written, spans) + spread(verified, written), written)
    # The minima −0.5 and 0.6 (on the second and on the first step), the others' rates 0.15 and −0.125 per token.
    expected = [[-2.1, -2.1, -1.8, -1.8], [2.1, 2.1, 1.25, 1.25]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_pure_pays_for_leaving_the_reference_and_trains_no_separator():
    written, separator = everywhere(1, 4), torch.tensor([[False, True, False, True]])
    steps, spans = torch.tensor([[0.2, -0.4]]), Spans.of([[(0, 2), (2, 4)]])
    kl = torch.tensor([[0.5, 0.0, 1.0, 2.0]])
    rewards = spread(min_form(steps, everywhere(1, 2), temperature=1e-3), written, spans) - 1e-3 * kl
    found = torch.where(separator, 0, returns(rewards, written))
    torch.testing.assert_close(found, torch.tensor([[-0.4 - 0.0035, 0.0, -0.4 - 0.003, 0.0]]))


def test_spa_fused_rewards_stand_at_the_end_of_turns_and_the_penalty_on_all_tokens():
    written = torch.tensor([[True, True, False, True]])
    turns = grounded_rewards(torch.tensor([[0.4, 0.6]]), torch.tensor([[False, False]]), everywhere(1, 2))
    values = torch.tensor([[0.1, 0.2, 9.0, 0.3]])
    rewards = spread(turns, written, Spans.of([[(0, 3), (3, 4)]])) - 0.1 * torch.tensor([[1.0, 2.0, 7.0, 3.0]])
    found = returns(rewards, written, kind="gae", lam=0.5, values=values)
    # δ over the written tokens: −0.1 + 0.2 − 0.1, (0.4 − 0.2) + 0.3 − 0.2, (0.6 + 0.5 − 0.3) − 0.3
    deltas = [0.0, 0.3, 0.5]
    expected = [deltas[0] + 0.5 * (deltas[1] + 0.5 * deltas[2]), deltas[1] + 0.5 * deltas[2], 0.0, deltas[2]]
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_vl_dac_worked_example():
    here = everywhere(1, 2)
    found = returns(torch.tensor([[0.0, 1.0]]), here, kind="gae", gamma=0.9, lam=0.95, values=torch.zeros(1, 2))
    torch.testing.assert_close(found, torch.tensor([[0.855, 1.0]]))
    one = returns(torch.tensor([[2.0]]), everywhere(1, 1), kind="gae", gamma=0.9, values=torch.tensor([[0.5]]))
    assert one.tolist() == [[1.5]]


def test_vl_dac_every_token_of_a_step_has_the_step_s_advantage():
    rewards, values = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.5, 0.1, 0.4]])
    ends = torch.tensor([[False, True, False]])
    behind = torch.tensor([0.3])
    steps = returns(
        rewards, everywhere(1, 3), kind="gae", gamma=0.9, lam=0.95, values=values, ends=ends, bootstrap=behind
    )
    second = 0.0 - 0.1
    first = 1.0 + 0.9 * 0.1 - 0.5 + 0.9 * 0.95 * second
    third = 2.0 + 0.9 * 0.3 - 0.4
    torch.testing.assert_close(steps, torch.tensor([[first, second, third]]))
    written = torch.tensor([[True, True, False, True, True]])
    scaled = whiten(steps, everywhere(1, 3))
    found = spread(scaled, written, Spans.of([[(0, 3), (3, 4), (4, 5)]]), place="all")
    torch.testing.assert_close(found[0], torch.stack([scaled[0, k] for k in (0, 0, 0, 1, 2)]) * written[0])


def test_igpo_credit_does_not_cross_observations_when_it_resets():
    rewards = torch.tensor([[0.0, 0.3, 7.0, 0.0, 1.0]])
    written = torch.tensor([[True, True, False, True, True]])
    assert returns(rewards, written, gaps="reset")[0].tolist() == pytest.approx([0.3, 0.3, 0.0, 1.0, 1.0])
    assert returns(rewards, written)[0].tolist() == pytest.approx([1.3, 1.3, 0.0, 1.0, 1.0])
