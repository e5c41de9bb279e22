import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.credit import (
    grounded_rewards,
    progress,
    redistribute,
    renormalize,
    returns,
    subgoal_bonus,
    subgoal_potential,
)


def everywhere(*shape):
    return torch.ones(*shape, dtype=torch.bool)


@st.composite
def importances(draw):
    n, s = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    numbers = st.lists(st.integers(-40, 40), min_size=s, max_size=s)
    scores = torch.tensor(draw(st.lists(numbers, min_size=n, max_size=n))).double() / 4
    flags = st.lists(st.booleans(), min_size=s, max_size=s)
    totals = torch.tensor(draw(st.lists(st.integers(-9, 9), min_size=n, max_size=n))).double()
    return scores, torch.tensor(draw(st.lists(flags, min_size=n, max_size=n))), totals


@settings(max_examples=100, deadline=None)
@given(importances(), st.sampled_from([1.0, 0.9]), st.sampled_from([1.0, 0.01]))
def test_revibranch_the_discounted_sum_is_the_return(data, gamma, temperature):
    scores, mask, totals = data
    found = redistribute(totals, torch.where(mask, scores, torch.nan), mask, temperature=temperature, gamma=gamma)
    kept = torch.where(mask.any(1), totals, 0)
    first = torch.where(mask & (mask.cumsum(1) == 1), returns(found, mask, gamma=gamma), 0).sum(1)
    torch.testing.assert_close(first, kept, atol=1e-9, rtol=1e-9)
    assert (found[~mask] == 0).all()


def test_revibranch_equal_scores_share_equally_and_a_cold_softmax_pays_the_best():
    assert redistribute(torch.tensor([6.0]), torch.full((1, 3), 7.0), everywhere(1, 3)).tolist() == [[2.0, 2.0, 2.0]]
    scores = torch.tensor([[0.1, 0.9, 0.8]])
    cold = redistribute(torch.tensor([6.0]), scores, everywhere(1, 3), temperature=1e-3)
    torch.testing.assert_close(cold, torch.tensor([[0.0, 6.0, 0.0]]))
    warm = redistribute(torch.tensor([1.0]), torch.tensor([[0.0, 1.0]]), everywhere(1, 2))
    torch.testing.assert_close(warm, torch.tensor([[1 / (1 + 2.718281828), 2.718281828 / (1 + 2.718281828)]]))


def test_revibranch_oracle_importance_learns_a_decisive_step_in_fewer_episodes():
    """Twenty binary choices of which the eighth decides; tabular, one learning step per episode."""

    def episodes(importance):
        generator = torch.Generator().manual_seed(1)
        values = torch.zeros(20, 2)
        for episode in range(1, 2001):
            noisy = torch.rand(20, generator=generator) < 0.5
            actions = torch.where(noisy, torch.randint(0, 2, (20,), generator=generator), values.argmax(1))
            outcome = actions[[7]].float()
            rewards = redistribute(outcome, importance, everywhere(1, 20), temperature=0.01)[0]
            steps = torch.arange(20)
            values[steps, actions] += 0.1 * (rewards - values[steps, actions])
            if (values[7, 1] - values[7, 0]) > 0.5 and (values[:, 1] - values[:, 0]).abs().sum() < 1.5:
                return episode
        return 2001

    oracle = torch.zeros(1, 20)
    oracle[0, 7] = 1.0
    terminal = torch.zeros(1, 20)
    terminal[0, 19] = 1.0
    assert 5 * episodes(oracle) < episodes(terminal)


def test_ppr_worked_example():
    process = torch.tensor([[0.2, 0.8, torch.nan], [0.2, 0.8, torch.nan]])
    found = renormalize(process.nan_to_num(0.0), torch.tensor([0.0, 1.0]), everywhere(2, 3))
    torch.testing.assert_close(found, torch.tensor([[-0.8, -0.2, 0.0], [0.2, 0.8, 1.0]]))


def test_ppr_useless_turns_raise_a_lost_return_only_without_the_shift():
    for center, sign in ((0.0, 1), (1.0, -1)):
        short, long = (
            renormalize(torch.full((1, s), 0.3), torch.zeros(1), everywhere(1, s), center=center).sum() for s in (2, 9)
        )
        assert sign * float(long - short) > 0


def test_igpo_the_outcome_stands_in_for_the_last_turn_alone():
    found = renormalize(
        torch.tensor([[0.2, 0.8, 0.5], [0.4, 9.0, 9.0]]),
        torch.tensor([1.0, 0.0]),
        torch.tensor([[True, True, True], [True, False, False]]),
        center=None,
    )
    torch.testing.assert_close(found, torch.tensor([[0.2, 0.8, 1.0], [0.0, 0.0, 0.0]]))


def test_ppr_one_turn_keeps_its_outcome_and_unscored_turns_are_left_out():
    mask = torch.tensor([[True, False, False], [False, True, True], [False, False, False]])
    process = torch.tensor([[9.0, 9.0, 9.0], [torch.nan, 0.5, 9.0], [1.0, 1.0, 1.0]])
    found = renormalize(process, torch.tensor([0.7, 1.0, 1.0]), mask)
    torch.testing.assert_close(found, torch.tensor([[0.7, 0.0, 0.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.0]]))


def test_spa_fused_rewards():
    attributed = torch.tensor([[0.1, 0.3, 0.6, torch.nan]])
    executed = torch.tensor([[True, False, False, False]])
    mask = torch.tensor([[True, True, True, False]])
    found = grounded_rewards(attributed, executed, mask, alpha=2.0, beta=0.5)
    torch.testing.assert_close(found, torch.tensor([[0.2 + 0.5, 0.6, 1.2 + 0.5, 0.0]]))
    released = grounded_rewards(attributed, executed, mask, remaining=True)
    torch.testing.assert_close(released, torch.tensor([[2 * 0.6, 1 * 0.3, 0.0, 0.0]]))


def test_calm_a_subgoal_is_paid_once_so_that_a_loop_is_not_farmed():
    reached = torch.zeros(1, 6, 2, dtype=torch.bool)
    reached[0, [0, 2, 4], 0] = True  # picks the key up, again and again
    reached[0, 5, 1] = True
    weights = torch.tensor([1.0, 3.0])
    assert subgoal_bonus(reached, everywhere(1, 6), weights=weights)[0].tolist() == [1.0, 0, 0, 0, 0, 3.0]
    often = subgoal_bonus(reached, everywhere(1, 6), weights=weights, once=False)
    assert often[0].tolist() == [1.0, 0, 1.0, 0, 1.0, 3.0]
    environment = torch.tensor([[0.0, 0, 0, 0, 0, 10.0]])
    assert (environment + subgoal_bonus(reached, everywhere(1, 6))).sum() == 12.0


def test_calm_as_a_potential():
    reached = torch.tensor([[[True, False], [False, False], [True, True]], [[True, True], [True, True], [True, True]]])
    mask = torch.tensor([[True, True, True], [False, False, False]])
    potential = subgoal_potential(reached, mask)
    assert potential.tolist() == [[0.0, 0.5, 0.5, 1.0], [0.0] * 4]
    found = progress(potential, mask, gamma=0.9)
    torch.testing.assert_close(found[0], torch.tensor([0.45, -0.05, 0.4]))


def test_calm_in_a_key_door_world_a_perfect_judge_saves_episodes():
    """A corridor of 15 cells: the key at its left end opens the door at its right end; tabular Q-learning."""

    def episodes(shaped):
        generator = torch.Generator().manual_seed(0)
        values, solved = torch.zeros(15, 2, 2), 0
        for episode in range(1, 1001):
            place, key = 7, 0
            for _ in range(40):
                known = bool(values[place, key, 0] != values[place, key, 1])
                explore = not known or bool(torch.rand((), generator=generator) < 0.2)
                drawn = int(torch.randint(0, 2, (), generator=generator))
                action = drawn if explore else int(values[place, key].argmax())
                after = min(max(place + 2 * action - 1, 0), 14)
                taken = int(key or after == 0)
                finished = bool(taken and after == 14)
                reward = float(finished)
                if shaped:
                    reached = torch.tensor([[[taken > key, finished]]])
                    reward += float(subgoal_bonus(reached, everywhere(1, 1)))
                ahead = 0.0 if finished else 0.95 * float(values[after, taken].max())
                values[place, key, action] += 0.5 * (reward + ahead - float(values[place, key, action]))
                place, key = after, taken
                if finished:
                    solved += 1
                    break
            if solved == 10:
                return episode
        return 1001

    assert 2 * episodes(shaped=True) < episodes(shaped=False)


def test_calm_an_all_negative_judge_is_accurate_and_worthless():
    truth = torch.arange(100) < 5
    said = torch.zeros(100, dtype=torch.bool)
    assert float((truth == said).float().mean()) == pytest.approx(0.95)
    assert float(2 * (truth & said).sum() / (truth.sum() + said.sum())) == 0.0


def test_bad_attributions_are_named():
    with pytest.raises(ValueError, match="gamma in"):
        redistribute(torch.zeros(1), torch.zeros(1, 1), everywhere(1, 1), gamma=0.0)
    with pytest.raises(ValueError, match=r"total must be \(1,\)"):
        redistribute(torch.zeros(2), torch.zeros(1, 1), everywhere(1, 1))
    with pytest.raises(ValueError, match=r"outcome must be \(1,\)"):
        renormalize(torch.zeros(1, 1), torch.zeros(2), everywhere(1, 1))
    with pytest.raises(ValueError, match=r"achieved must be \(n, s, m\)"):
        subgoal_bonus(everywhere(1, 1), everywhere(1, 1))
    with pytest.raises(ValueError, match="weights must be"):
        subgoal_bonus(everywhere(1, 1, 2), everywhere(1, 1), weights=torch.ones(3))
    with pytest.raises(ValueError, match="no subgoals"):
        subgoal_potential(everywhere(1, 1, 0), everywhere(1, 1))
