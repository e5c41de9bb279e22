"""`team_spirit` and `gain`: the game's arithmetic, written out player by player and step by step."""

import itertools

import numpy as np
import pytest
import torch

from guerdon import Context, Rollouts, Scores
from guerdon.shaping import gain, pin_last, team_spirit


def match(teams, groups=None):
    return Context(Rollouts(["m"] * len(teams), [""] * len(teams), {"team": teams}, groups=groups))


def test_team_spirit_is_its_definition():
    rng = np.random.default_rng(0)
    rewards, teams, groups = rng.normal(size=(9, 4)), list("aabbbaabb"), [0] * 5 + [1] * 4
    expected = np.zeros_like(rewards)
    for i, step in itertools.product(range(9), range(4)):
        mates = [rewards[j, step] for j in range(9) if groups[j] == groups[i] and teams[j] == teams[i]]
        others = [rewards[j, step] for j in range(9) if groups[j] == groups[i] and teams[j] != teams[i]]
        expected[i, step] = 0.7 * rewards[i, step] + 0.3 * np.mean(mates) - np.mean(others)
    shared = team_spirit()(Scores(rewards), match(teams, groups)).read(np.nan)
    np.testing.assert_allclose(shared, expected, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mirrored_teams_sum_to_zero(share):
    rewards = np.random.default_rng(1).normal(size=6)
    shared = team_spirit(share=share)(Scores(rewards), match(list("aaabbb"))).read(np.nan)
    assert shared.sum() == pytest.approx(0, abs=1e-12)


def test_what_both_teams_collect_together_is_worth_nothing():
    quiet = team_spirit()(Scores.of([0.0, 0.0, 0.0, 0.0]), match(list("aabb"))).read(np.nan)
    colluding = team_spirit()(Scores.of([5.0, 5.0, 5.0, 5.0]), match(list("aabb"))).read(np.nan)
    np.testing.assert_allclose(colluding, quiet)


def test_who_needs_a_score_that_is_not_there_abstains():
    scores = Scores.of([1.0, None, 2.0, 3.0], reasons={1: "no camera"})
    shared = team_spirit()(scores, match(list("aabb"), [0, 0, 1, 1]))
    assert shared.abstained.tolist() == [True, True, False, False]
    assert shared.reasons[0] == "row 1, of the same match: no camera"
    alone = team_spirit(share=0.0)(scores, match(list("aabb"), [0, 0, 1, 1]))
    assert alone.abstained.tolist() == [False, True, False, False]


def test_team_spirit_keeps_gradients():
    rewards = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    shared = team_spirit(share=0.5)(Scores(rewards), match(list("aab"))).read(0.0)
    shared[0].backward()
    assert rewards.grad.tolist() == pytest.approx([0.75, 0.25, -1.0])


def test_gain_telescopes_whatever_lies_between():
    potential = np.random.default_rng(2).normal(size=(3, 12))
    changes = gain(gamma=0.97)(Scores(potential), Context()).read(np.nan)
    assert (changes[:, 0] == 0).all()
    total = (0.97 ** np.arange(11) * changes[:, 1:]).sum(1)
    np.testing.assert_allclose(total, 0.97**11 * potential[:, -1] - potential[:, 0])


def test_going_in_circles_earns_nothing_unless_losses_are_forgiven():
    circle = Scores(np.array([[0.0, 0.8, 0.0, 0.8, 0.0, 0.8, 0.0]]))
    assert gain(gamma=1.0)(circle, Context()).read(0.0).sum() == pytest.approx(0)
    assert gain(gamma=0.99)(circle, Context()).read(0.0).sum() < 0
    assert gain(gamma=1.0, losses=0.5)(circle, Context()).read(0.0).sum() == pytest.approx(1.2)


def test_gain_skips_padding_and_passes_abstentions_on():
    mask = np.array([[True, False, True, True]])
    scores = Scores(np.array([[1.0, 9.0, 3.0, 4.0]]), mask=mask)
    assert gain(gamma=1.0)(scores, Context()).read(-1.0).tolist() == [[0.0, -1.0, 2.0, 1.0]]
    lost = Scores(np.array([[1.0, 2.0, 4.0]]), valid=np.array([[True, False, True]]), reasons={0: "lost"})
    assert gain()(lost, Context()).abstained.tolist() == [[False, True, True]]


def test_gain_leaves_the_best_policy_of_a_small_game_as_it_is():
    """A corridor with a prize at its end: every plan of six moves is ranked as without F, where Φ ends at 0."""
    gamma, prize, length = 0.9, 3, 6
    plans = list(itertools.product((-1, 1, 0), repeat=length))
    potentials, returns = np.zeros((len(plans), length + 1)), np.zeros(len(plans))
    for row, plan in enumerate(plans):
        place = 0
        potentials[row, 0] = 0.3
        for t, move in enumerate(plan):
            place = min(max(place + move, 0), prize)
            potentials[row, t + 1] = 0.3 + 0.9 * place
            returns[row] += gamma**t * (place == prize)
    shaped = (pin_last()(Scores(potentials), Context()), Scores(potentials))
    ended, open_ended = (
        returns + (gamma ** np.arange(length) * gain(gamma=gamma)(s, Context()).read(0.0)[:, 1:]).sum(1) for s in shaped
    )
    np.testing.assert_allclose(ended - returns, -0.3)
    assert np.ptp(open_ended - returns) > 0.1  # without the 0 at the end, it pays to end near


def test_options_that_cannot_be_meant():
    for wrong in (lambda: gain(gamma=1.1), lambda: gain(losses=-1), lambda: team_spirit(share=1.5)):
        with pytest.raises(ValueError, match="got"):
            wrong()
