"""What a batch's scores do to training, abstentions most of all."""

import numpy as np
import pytest

from guerdon.core import Rollouts, Scores, Tokens, TooManyAbstentions
from guerdon.train import presets
from guerdon.train.language.evaluation import wilson
from guerdon.train.scoring import Abstentions, credited, informative


def batch(groups, **options):
    return Rollouts(["p"] * len(groups), ["c"] * len(groups), groups=np.asarray(groups), **options)


def scores(values):
    return Scores.of(values, reasons={i: f"reason {i % 2}" for i, v in enumerate(values) if v is None})


def test_abstained_rollouts_get_exactly_no_advantage_and_do_not_move_the_others():
    with_gap = credited(presets.grpo, batch([0, 0, 0, 1, 1]), scores([1.0, None, 0.0, 1.0, 0.0]))
    without = credited(presets.grpo, batch([0, 0, 1, 1]), scores([1.0, 0.0, 1.0, 0.0]))
    assert with_gap[1] == 0.0
    np.testing.assert_array_equal(with_gap[[0, 2, 3, 4]], without)


def test_kl_in_the_reward_is_taken_off_before_credit():
    logp, ref_logp = np.log([[0.5, 0.5], [0.5, 0.5]]), np.log([[0.25, 0.5], [0.5, 0.5]])
    written = np.array([[True, True], [True, False]])
    tokens = Tokens(np.zeros((2, 2), int), written, written, logp=logp, ref_logp=ref_logp)
    method = presets.load("reinforce", kl={"coefficient": 0.1, "kind": "k1", "place": "reward"})
    advantages = credited(method, batch([0, 0], tokens=tokens), scores([1.0, 1.0]))
    np.testing.assert_allclose(advantages, [1 - 0.1 * np.log(2), 1.0], rtol=1e-6)


def test_a_group_teaches_if_any_of_it_has_an_advantage():
    rollouts = batch([5, 5, 2, 2, 5])
    np.testing.assert_array_equal(
        informative(rollouts, np.array([0.0, 0, 0, 0, 0.3])), [True, True, False, False, True]
    )


def test_training_stops_when_a_batch_abstains_whole_and_says_why():
    kept = Abstentions().plus(scores([1.0] * 100))
    kept.check(0.2)
    with pytest.raises(TooManyAbstentions) as stopped:
        kept.plus(scores([None] * 3)).check(0.2)
    assert "2 × reason 0" in str(stopped.value)
    assert "1 × reason 1" in str(stopped.value)


def test_training_stops_when_the_last_batches_abstain_too_much_and_not_for_long_ago():
    seen = Abstentions()
    for _ in range(5):
        seen = seen.plus(scores([1.0, 1.0, 1.0, 1.0, None]))
        seen.check(0.2)
    with pytest.raises(TooManyAbstentions, match="6 of the last 25"):
        seen.plus(scores([1.0, 1.0, 1.0, None, None])).check(0.2)
    for _ in range(5):
        seen = seen.plus(scores([1.0] * 5))
    assert seen.counts[0] == (0, 5)
    assert seen.share == pytest.approx(5 / 50)
    assert Abstentions.restored(seen.state()) == seen


def test_wilson_is_the_set_of_proportions_that_a_z_test_does_not_reject():
    for right, n in ((0, 10), (3, 10), (10, 10), (512, 1024)):
        low, high = wilson(right, n)
        grid = np.linspace(1e-6, 1 - 1e-6, 200_001)
        accepted = grid[np.abs(right / n - grid) <= 1.959964 * np.sqrt(grid * (1 - grid) / n)]
        assert low == pytest.approx(accepted.min(), abs=2e-5)
        assert high == pytest.approx(accepted.max(), abs=2e-5)
    assert wilson(0, 0) == (0.0, 1.0)
