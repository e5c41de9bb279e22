import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon import Context, Rollouts, Scores, shaping
from guerdon.core.spans import Spans
from guerdon.credit import (
    best_of,
    cut_at,
    delta_rewards,
    group_relative,
    locate,
    potential_advantages,
    progress,
    prover_quality,
    regret,
    repetition_slope,
    returns,
    spread,
    step_potential,
)


def everywhere(*shape):
    return torch.ones(*shape, dtype=torch.bool)


def row(*numbers):
    return torch.tensor([numbers], dtype=torch.float64)


@st.composite
def curves(draw):
    """Potentials in sixteenths on rows of unequal length."""
    n, s = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    numbers = st.lists(st.integers(0, 16), min_size=s + 1, max_size=s + 1)
    phi = torch.tensor(draw(st.lists(numbers, min_size=n, max_size=n))).double() / 16
    lengths = torch.tensor(draw(st.lists(st.integers(0, s), min_size=n, max_size=n)))
    return phi, torch.arange(s) < lengths[:, None]


@settings(max_examples=100, deadline=None)
@given(curves())
def test_progress_telescopes(data):
    phi, mask = data
    known = torch.cat([everywhere(len(mask), 1), mask], 1)
    found = progress(torch.where(known, phi, torch.nan), mask)
    end = phi.gather(1, mask.sum(1, keepdim=True))[:, 0]
    torch.testing.assert_close(found.sum(1), end - phi[:, 0])


@settings(max_examples=150, deadline=None)
@given(curves(), st.integers(0, 5), st.sampled_from([0.0, 0.1]), st.sampled_from([0.0, 0.7, 1.0]))
def test_looking_ahead_is_its_definition(data, lookahead, tolerance, decay):
    phi, mask = data
    expected = torch.zeros(mask.shape, dtype=torch.float64)
    for i in range(len(phi)):
        count = int(mask[i].sum())
        changes = [float(phi[i, j + 1] - phi[i, j]) for j in range(count)]
        for j in range(count):
            for k in range(j, min(j + lookahead, count - 1) + 1):
                if changes[k] != 0 and abs(changes[k]) >= tolerance:
                    expected[i, j] = changes[k] * decay ** (k - j)
                    break
    found = progress(phi, mask, lookahead=lookahead, tolerance=tolerance, decay=decay)
    torch.testing.assert_close(found, expected)


@settings(max_examples=50, deadline=None)
@given(curves(), st.sampled_from([0.5, 0.9, 1.0]))
def test_a_shaped_return_differs_from_the_plain_one_by_the_first_potential(data, gamma):
    phi, mask = data
    closed = torch.cat([phi[:, :1], torch.where(mask & ~last(mask), phi[:, 1:], 0)], 1)  # 0 where the episode ends
    found = returns(progress(closed, mask, gamma=gamma), mask, gamma=gamma)
    torch.testing.assert_close(found, torch.where(mask, -closed[:, :-1], 0))


def last(mask):
    return mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)


def test_pav_worked_example():
    base = row(0.50, 0.55)
    four, many = (float(progress(best_of(base, k), everywhere(1, 1))) for k in (4, 32))
    assert four == pytest.approx(0.0215, abs=5e-5)
    assert 1e-10 < many < 3e-10
    low = row(0.05, 0.10)
    found = [float(progress(best_of(low, k), everywhere(1, 1))) for k in (4, 32)]
    assert found == pytest.approx([0.158, 0.159], abs=5e-4)
    assert float(progress(low, everywhere(1, 1))) == pytest.approx(0.05)


def test_pav_effective_reward_is_the_outcome_and_the_progress_of_the_prover():
    values, outcome, alpha = row(0.2, 0.5, 0.4, 1.0), row(0.0, 0.0, 1.0), 3.0
    found = returns(outcome + alpha * progress(values, everywhere(1, 3)), everywhere(1, 3))
    torch.testing.assert_close(found, row(1.0 + 3 * 0.8, 1.0 + 3 * 0.5, 1.0 + 3 * 0.6))


def test_pav_under_the_policy_as_its_own_prover_the_gradient_is_reinforce_s():
    # Two binary choices, all four leaves enumerated; the score function of the first choice is ±1 at p = ½.
    leaves, first = [0.0, 1.0, 0.0, 0.0], [-1.0, -1.0, 1.0, 1.0]
    values = torch.tensor([[0.25, 0.5, leaves[0]], [0.25, 0.5, leaves[1]], [0.25, 0.0, 0.0], [0.25, 0.0, 0.0]])
    credit = returns(progress(values, everywhere(4, 2)), everywhere(4, 2))[:, 0]
    plain = sum(f * r for f, r in zip(first, leaves, strict=True))
    assert float((torch.tensor(first) * credit).sum()) == pytest.approx(plain)


def test_pav_prover_quality_is_variance_and_covariance():
    prover = torch.tensor([[0.2, 0.6], [0.5, 0.5], [0.9, torch.nan]])
    policy = torch.tensor([[0.1, 0.3], [0.0, 1.0], [0.4, torch.nan]])
    mask = torch.tensor([[True, True], [True, True], [True, False]])
    variance, alignment = prover_quality(prover, policy, mask)
    assert float(variance) == pytest.approx((0.2**2 + 0.0) / 2)
    assert float(alignment) == pytest.approx((0.2 * 0.1 + 0.0) / 2)


def test_pav_a_middling_prover_tells_steps_apart_where_the_extremes_do_not():
    policy = torch.tensor([[0.05, 0.1]], dtype=torch.float64)
    gains = [float(sum(prover_quality(best_of(policy, k), policy, everywhere(1, 2)))) for k in (1, 4, 64)]
    assert gains[1] > gains[0] > gains[2]


def test_mrt_worked_example():
    found = progress(row(0.10, 0.25, 0.40, 0.35, 0.75), everywhere(1, 4))
    torch.testing.assert_close(found, row(0.15, 0.15, -0.05, 0.40))
    assert float(found.sum()) == pytest.approx(0.65)


def test_mrt_regret_of_known_curves():
    tokens = torch.tensor([0.0, 1000.0, 8000.0])
    curves_ = torch.stack([torch.ones(3), torch.zeros(3), tokens / 8000])
    assert regret(curves_, tokens, budget=8000).tolist() == pytest.approx([0.0, 1.0, 0.5])
    # Cut at half the budget, the rising line averages a quarter; beyond its end it stays at 1.
    assert regret(curves_[2:], tokens, budget=4000).tolist() == pytest.approx([0.75])
    assert regret(curves_[2:], tokens, budget=16000).tolist() == pytest.approx([0.25])
    assert regret(torch.tensor([[0.5]]), torch.tensor([100.0]), budget=10, best=0.9).tolist() == pytest.approx([0.4])


def test_mrt_cumulative_regret_and_the_baseline_of_stopping():
    accuracy = row(0.10, 0.25, 0.40)
    torch.testing.assert_close((1 - accuracy).cumsum(1), row(0.9, 1.65, 2.25))
    # Rollouts that go on are compared with the reward of stopping at the same prefix.
    going_on, stopping = torch.tensor([1.0, 0.0]), torch.tensor([0.25, 0.25])
    found = group_relative(going_on - stopping, torch.zeros(2, dtype=torch.long), baseline="none", scale="none")
    assert found.tolist() == [0.75, -0.25]


def test_igpo_worked_example():
    found = progress(row(0.1, 0.3, 0.25, 0.6), everywhere(1, 3))
    torch.testing.assert_close(found, row(0.2, -0.05, 0.35))
    assert float(found.sum()) == pytest.approx(0.5)


def test_igpo_a_group_of_failures_still_teaches_and_tokens_have_their_turn_s_return():
    # Two rollouts of two turns and an answer; all answers wrong, turns differ.
    gains = progress(torch.tensor([[0.1, 0.5, 0.6], [0.1, 0.2, 0.1]]), everywhere(2, 2))
    rewards = torch.cat([gains, torch.zeros(2, 1)], 1)
    groups = torch.zeros(2, dtype=torch.long)
    assert group_relative(torch.zeros(2), groups).tolist() == [0.0, 0.0]
    advantages = group_relative(rewards, groups, pool="all", eps=0.0)
    pooled = [0.4, 0.1, 0.0, 0.1, -0.1, 0.0]
    mean = sum(pooled) / 6
    sigma = math.sqrt(sum((x - mean) ** 2 for x in pooled) / 5)
    torch.testing.assert_close(advantages.flatten(), torch.tensor([(x - mean) / sigma for x in pooled]))
    forward = returns(advantages, everywhere(2, 3), gamma=0.5)
    written = torch.tensor([[True, False, True, True]] * 2)
    tokens = spread(forward, written, Spans.of([[(0, 2), (2, 3), (3, 4)]] * 2), place="all")
    first = (pooled[0] - mean + 0.5 * (pooled[1] - mean) + 0.25 * (pooled[2] - mean)) / sigma
    assert tokens[0].tolist() == pytest.approx([first, 0.0, float(forward[0, 1]), float(forward[0, 2])])


def test_igpo_released_form_is_centred_per_position():
    rewards = torch.tensor([[0.2, 0.0, 1.0], [0.4, 0.0, 0.0]])
    found = group_relative(
        returns(rewards, everywhere(2, 3)), torch.zeros(2, dtype=torch.long), pool="position", scale="none"
    )
    torch.testing.assert_close(found, torch.tensor([[0.4, 0.5, 0.5], [-0.4, -0.5, -0.5]]))


def test_vsrm_worked_example():
    options = {"lookahead": 4, "decay": 0.7, "tolerance": 1e-5}
    torch.testing.assert_close(progress(row(0.2, 0.2, 0.6, 0.6), everywhere(1, 3), **options), row(0.28, 0.40, 0.0))
    torch.testing.assert_close(progress(row(0.0, 0.0, 0.0, 1.0), everywhere(1, 3), **options), row(0.49, 0.70, 1.0))
    assert progress(row(0.4, 0.4, 0.4), everywhere(1, 2), **options).tolist() == [[0.0, 0.0]]
    assert progress(row(1.0, 0.0), everywhere(1, 1), **options).tolist() == [[-1.0]]


def test_vsrm_a_change_further_than_four_moves_is_not_shared():
    found = progress(row(0, 0, 0, 0, 0, 0, 1), everywhere(1, 6), lookahead=4)
    torch.testing.assert_close(found, row(0.0, 0.7**4, 0.7**3, 0.7**2, 0.7, 1.0))


def test_vsrm_cuts_a_thought_at_its_turns_and_pays_each_cut():
    opening, turn = "x" * 1010 + ". ", "Wait, " + "y" * 500 + ". "
    text = opening + "so Hmm" + "z" * 395 + ". " + turn + turn + "But no."
    spans = cut_at([text])
    # 'so' is not a word to cut at; the end of the sentence before 'Hmm' is the first place beyond 1000 characters.
    first = len(opening) - 1
    second = text.index("Wait") - 1
    third = text.index("Wait", second + 10) - 1
    assert spans.rows() == [
        [
            (0, first),
            (first, second),
            (second, third),
            (third, text.index("But") - 1),
            (text.index("But") - 1, len(text)),
        ]
    ]
    assert cut_at(["Wait. " * 3]).rows() == [[(0, 18)]]
    assert cut_at([""]).rows() == [[]]
    with pytest.raises(ValueError, match="words must not be empty"):
        cut_at(["x"], [""])


def test_vsrm_a_cut_stays_at_its_word_where_the_sentence_began_too_early():
    text = "ab. cd Wait ef"
    assert cut_at([text], first=5, gap=1).rows() == [[(0, 7), (7, 14)]]
    assert cut_at([text], first=1, gap=1).rows() == [[(0, 3), (3, 14)]]
    assert cut_at([text], first=1, gap=1, sentences=False).rows() == [[(0, 7), (7, 14)]]
    assert cut_at([text], first=8, gap=1).rows() == [[(0, 14)]]


def test_spae_worked_example():
    accuracy, confidence = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5]), torch.tensor([1.0, 1.0, 0.0, 0.0, 0.5])
    assert step_potential(accuracy, confidence).tolist() == pytest.approx([1.0, -1.0, 0.0, 0.5, 0.125])


def test_spae_advantage_of_each_step_is_its_definition():
    phi, mask = torch.tensor([[0.2, 0.95, 0.6, torch.nan]]), torch.tensor([[True, True, True, False]])
    found = potential_advantages(torch.tensor([2.0]), phi, mask, damped=0.25, weight=2.0, limit=0.5)
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.5 + 2 * 0.5, 2.0 - 2 * 0.35, 0.0]]))


def test_spae_checking_after_the_answer_is_found_earns_less():
    lean, checking = [0.3, 0.6, 0.95], [0.3, 0.6, 0.95] + [0.95] * 10
    phi = torch.tensor([lean + [0.0] * 10, checking])
    mask = torch.arange(13) < torch.tensor([[3], [13]])
    found = potential_advantages(torch.ones(2), phi, mask)
    torch.testing.assert_close(found[0, :3], found[1, :3])
    assert (found[1, 3:] < found[1, :3].min()).all()


def test_spae_diagnostics_are_where_the_potential_saturates():
    phi, mask = torch.tensor([[0.2, 0.95, 0.1, 0.92], [0.1, 0.2, 0.3, 0.4]]), everywhere(2, 4)
    saturated = locate(phi, mask, above=0.9)
    assert saturated.tolist() == [1, -1]
    right_to_wrong = (saturated >= 0) & (torch.tensor([0.0, 0.0]) == 0)
    assert right_to_wrong.tolist() == [True, False]


def test_pav_search_ranks_beams_by_value_and_progress():
    values, prover, alpha = torch.tensor([0.5, 0.45, 0.5]), torch.tensor([0.6, 0.7, 0.5]), 2.0
    before = torch.full((3,), 0.5)
    scores = values + alpha * progress(torch.stack([before, prover], 1), everywhere(3, 1))[:, 0]
    assert scores.tolist() == pytest.approx([0.7, 0.85, 0.5])


def test_clip_delta_worked_example():
    scores = Scores(row(0.9, 0.8, 0.95, 0.3))
    context = Context(Rollouts([""], [""]))
    clipped = shaping.clip(high=0.0)(shaping.center(0.85)(scores, context), context).read(0.0)
    torch.testing.assert_close(clipped, row(0.0, -0.05, 0.0, -0.55))
    found = delta_rewards(row(0.9, 0.8, 0.95, 0.3), everywhere(1, 4))
    torch.testing.assert_close(found, row(0.1, -0.15, 0.95, 0.0))
    torch.testing.assert_close(returns(found, everywhere(1, 4)), row(0.9, 0.8, 0.95, 0.0))
    both = delta_rewards(clipped, everywhere(1, 4))
    torch.testing.assert_close(both, row(0.05, -0.05, 0.0, 0.0))


@pytest.mark.parametrize("repeats", [1, 5, 20])
def test_clip_delta_repeating_a_good_step_pays_in_raw_scores_only(repeats):
    scores = row(0.9, 0.7, 0.8)[0]

    def slope(shape):
        return repetition_slope(shape, scores, step=0, copies=repeats)

    assert slope(lambda p, mask: p) == pytest.approx(0.9)
    assert slope(lambda p, mask: (p - 0.85).clamp(max=0)) == pytest.approx(0.0)
    assert slope(delta_rewards) == pytest.approx(0.0, abs=1e-12)


def test_clip_delta_probe_repeats_a_step_behind_itself():
    seen = []
    repetition_slope(lambda p, mask: seen.append((p, mask)) or p, row(0.1, 0.2, 0.3)[0], step=1, copies=2)
    ((scores, mask),) = seen
    expected = row(0.1, 0.2, 0.3), row(0.1, 0.2, 0.2, 0.3), row(0.1, 0.2, 0.2, 0.2, 0.3)
    for m, numbers in enumerate(expected):
        assert torch.equal(scores[m][mask[m]], numbers[0])
    with pytest.raises(ValueError, match="step 3 is one of"):
        repetition_slope(delta_rewards, torch.zeros(3), step=3)


@settings(max_examples=50, deadline=None)
@given(curves())
def test_delta_leaves_each_step_its_own_score_and_the_last_to_the_outcome(data):
    phi, mask = data
    scores = torch.where(mask, phi[:, 1:], torch.nan)
    found = returns(delta_rewards(scores, mask), mask)
    torch.testing.assert_close(found, torch.where(mask & ~last(mask), phi[:, 1:], 0))


def test_bad_potentials_are_named():
    with pytest.raises(ValueError, match="one column more"):
        progress(torch.zeros(1, 3), everywhere(1, 3))
    with pytest.raises(ValueError, match="row 0 has a step behind a missing one"):
        delta_rewards(torch.zeros(1, 3), torch.tensor([[True, False, True]]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        best_of(torch.tensor([1.5]))
    with pytest.raises(ValueError, match="tokens must rise"):
        regret(torch.zeros(1, 2), torch.tensor([2.0, 2.0]), budget=5)
    with pytest.raises(ValueError, match="one threshold"):
        locate(torch.zeros(1, 2), everywhere(1, 2))
    with pytest.raises(ValueError, match="one per row of mask"):
        potential_advantages(torch.zeros(2), torch.zeros(1, 2), everywhere(1, 2))
