"""Bonuses and penalties by what share of a group does something: Pixel Reasoner and VisionThink."""

import numpy as np
import pytest

from guerdon import Context, Rollouts, Scores
from guerdon.algebra import gate, product
from guerdon.shaping import clip, curiosity, pool


def bonus(used, **options):
    context = Context(Rollouts(["q"] * len(used), [""] * len(used)))
    return curiosity(**options)(Scores.of(used), context).read(np.nan)


def test_pixel_reasoner_worked_numbers():
    assert bonus([1.0] + [0.0] * 7).tolist() == pytest.approx([0.175] + [0.0] * 7)
    assert 0.5 * bonus([1.0] + [0.0] * 7)[0] == pytest.approx(0.0875)
    assert 0.5 * bonus([2.0, 1.0] + [0.0] * 6)[:3] == pytest.approx([0.025, 0.025, 0.0])
    assert bonus([1.0] * 3 + [0.0] * 5).tolist() == [0.0] * 8
    released = 0.25 / 2 * bonus([1.0] + [0.0] * 7, kind="ratio")
    assert released.tolist() == pytest.approx([0.25 * 0.175 / (2 * 0.125)] + [0.0] * 7)
    assert released[0] == pytest.approx(0.175)


def test_curiosity_pays_by_group_and_does_not_count_abstentions():
    batch = Context(Rollouts(["p"] * 5 + ["q"] * 2, [""] * 7))
    shaped = curiosity(target=0.5)(Scores.of([1.0, 0.0, 0.0, 0.0, None, 0.0, 0.0]), batch)
    assert shaped.read(-1.0).tolist() == [0.25, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0]
    assert bonus([0.0] * 4, kind="ratio").tolist() == [0.0] * 4


def test_a_groups_bonus_is_bounded_so_that_trying_does_not_beat_being_right():
    for many in range(9):
        used = [1.0] * many + [0.0] * (8 - many)
        assert 0.5 * bonus(used).sum() <= 0.5 * 8 * 0.3**2 / 4 + 1e-12
        assert 0.25 / 2 * bonus(used, kind="ratio").max() < 1.0


@pytest.mark.parametrize("options", [{"kind": "sum"}, {"target": 0.0}, {"target": 1.5}])
def test_curiosity_refuses(options):
    with pytest.raises(ValueError, match=r"kind|target"):
        curiosity(**options)


def pixel_reasoner(recorded, weight=0.5, most=1):
    correct = recorded("correct", range=(0.0, 1.0))
    count = recorded("operations", range=(0.0, 100.0))
    return correct + weight * (count >> curiosity()) + 0.05 * ((most - count) >> clip(high=0))


def test_pixel_reasoner_reward_is_the_sum_of_its_terms(recorded, scored):
    operations = [3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    paid = scored(pixel_reasoner(recorded), correct=[0.0, 1.0] + [0.0] * 6, operations=operations)
    assert paid[0] == pytest.approx(0.0875 - 0.1)
    assert paid[1:3] == [1.0, 0.0]


def climb(reward, scored, accuracy, steps, rate, start=0.3, group=16, seed=0, columns=None):
    """REINFORCE with the group's mean as the baseline on one choice: whether to use the tool."""
    rng, logit, path = np.random.default_rng(seed), float(np.log(start / (1 - start))), []
    for _ in range(steps):
        chance = 1 / (1 + np.exp(-logit))
        used = rng.random(group) < chance
        right = rng.random(group) < np.where(used, accuracy[1], accuracy[0])
        paid = np.array(scored(reward, correct=right.astype(float), operations=used.astype(float)))
        logit += rate * float(((paid - paid.mean()) * (used - chance)).mean())
        logit = float(np.clip(logit, -5, 5))
        path.append(chance)
    return float(np.mean(path[-100:]))


def test_pixel_reasoner_bonus_keeps_a_worse_tool_in_use_that_would_die_out(recorded, scored):
    accuracy = (0.5, 0.45)
    without = climb(pixel_reasoner(recorded, weight=0.0), scored, accuracy, 500, 4.0)
    with_bonus = climb(pixel_reasoner(recorded), scored, accuracy, 500, 4.0)
    assert without < 0.1
    assert 0.15 < with_bonus < 0.35


def visionthink(recorded, theta=0.2, penalty=0.1):
    correct, used = recorded("correct", range=(0.0, 1.0)), recorded("operations", range=(0.0, 1.0))
    direct = 1 - used
    seldom = (product(correct, direct) >> pool()) - theta * (correct >> pool())
    charged = gate(seldom, then=used, above=-1e-9, otherwise=direct)
    return correct - penalty * gate(correct >> pool(), then=charged, above=0.0)


def test_visionthink_worked_numbers(recorded, scored):
    def paid(direct, high, wrong=0):
        used = [0.0] * direct + [1.0] * high + [0.0, 1.0] * wrong
        right = [1.0] * (direct + high) + [0.0, 0.0] * wrong
        return scored(visionthink(recorded), correct=right, operations=used)

    mostly_direct = paid(10, 6)
    assert mostly_direct == pytest.approx([1.0] * 10 + [0.9] * 6)
    mostly_high = paid(1, 9)
    assert mostly_high == pytest.approx([0.9] + [1.0] * 9)
    assert paid(1, 4, wrong=2) == pytest.approx([1.0] + [0.9] * 4 + [0.0, -0.1] * 2)  # r = θ: calls pay
    assert scored(visionthink(recorded), correct=[0.0] * 4, operations=[0.0, 1.0, 0.0, 1.0]) == [0.0] * 4


def test_visionthink_threshold_decides_which_habit_survives(recorded, scored):
    assert climb(visionthink(recorded, theta=0.0), scored, (0.7, 0.7), 500, 6.0, start=0.5) < 0.15
    assert climb(visionthink(recorded, theta=1.1), scored, (0.7, 0.7), 500, 6.0, start=0.5) > 0.85


def test_visionthink_a_lucky_guess_and_a_needless_call_do_not_pay(recorded, scored):
    easy = scored(visionthink(recorded), correct=[1.0] * 8, operations=[0.0] * 7 + [1.0])
    assert easy[-1] < easy[0]
    hard = scored(visionthink(recorded), correct=[1.0] * 10 + [0.0] * 6, operations=[0.0] + [1.0] * 9 + [0.0] * 6)
    assert hard[0] < hard[1]
    assert hard[-1] == pytest.approx(-0.1)
