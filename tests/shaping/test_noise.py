"""Flipped scores: the noise of a verifier, and what a policy learns under it."""

import numpy as np
import pytest

from guerdon import Context, Rollouts, Scores
from guerdon.rewards import recorded
from guerdon.shaping import clip, flip


def batch(groups, size=4, step=0):
    prompts = [f"q{g}" for g in range(groups) for _ in range(size)]
    return Context(Rollouts(prompts, [""] * len(prompts)), step=step, training=True)


def test_flip_turns_whole_groups_and_the_share_is_the_rate():
    context = batch(2000, 2)
    given = np.tile([1.0, 0.25], 2000)
    shaped = flip(rate=0.4, seed=3)(Scores.of(given), context).read(np.nan).reshape(-1, 2)
    flipped = shaped[:, 0] == 0.0
    assert np.array_equal(shaped[flipped], np.tile([0.0, 0.75], (flipped.sum(), 1)))
    assert np.array_equal(shaped[~flipped], np.tile([1.0, 0.25], ((~flipped).sum(), 1)))
    assert abs(flipped.mean() - 0.4) < 4 * np.sqrt(0.24 / 2000)


def test_noisy_rewards_flipping_twice_restores_the_reward():
    scores = Scores.of([1.0, 0.0, 0.5, 0.25])
    twice = flip(rate=1.0)(flip(rate=1.0)(scores, batch(1)), batch(1))
    assert np.array_equal(twice.read(np.nan), scores.read(np.nan))
    assert np.array_equal(flip(rate=0.0)(scores, batch(1)).read(np.nan), scores.read(np.nan))


def test_flip_depends_on_seed_step_and_prompt_and_on_nothing_else():
    def drawn(context, **options):
        return flip(rate=0.5, **options)(Scores.of([1.0] * len(context.rollouts)), context).read(np.nan)

    first = drawn(batch(64))
    assert np.array_equal(first, drawn(batch(64)))
    assert not np.array_equal(first, drawn(batch(64), seed=1))
    assert not np.array_equal(first, drawn(batch(64, step=1)))
    assert np.array_equal(drawn(batch(64), redraw="never"), drawn(batch(64, step=9), redraw="never"))
    rows = np.arange(256)[::-1]
    whole = batch(64).rollouts
    turned = drawn(Context(whole.select(rows)))
    assert np.array_equal(turned, first[rows])


def test_flip_keeps_abstentions_and_maps_the_range():
    shaped = flip(rate=1.0, low=-1.0)(Scores.of([1.0, None, -0.5, 0.0]), batch(1))
    assert shaped.abstained.tolist() == [False, True, False, False]
    assert shaped.read(9.0).tolist() == [-1.0, 9.0, 0.5, 0.0]
    assert flip(rate=0.5).range((0.0, 3.0)) == (-2.0, 3.0)


@pytest.mark.parametrize(("options", "why"), [({"rate": 1.5}, "rate"), ({"low": 2.0}, "low"), ({"redraw": "x"}, "re")])
def test_flip_refuses(options, why):
    with pytest.raises(ValueError, match=why):
        flip(**options)


@pytest.mark.parametrize(("rate", "right"), [(0.0, True), (0.3, True), (0.5, None), (0.7, False)])
def test_noisy_rewards_bandit_learns_below_one_half_and_unlearns_above(rate, right):
    """REINFORCE on two arms of which the first is right, by the expected gradient of a group of two unlike arms."""
    shaper, logit = flip(rate=rate, seed=5), 0.0
    rng = np.random.default_rng(0)
    path = []
    for step in range(1500):
        context = Context(Rollouts(["q"] * 8, [""] * 8, ids=[f"q{step}"] * 8), step=step)
        chance = 1 / (1 + np.exp(-logit))
        arms = rng.random(8) < chance
        paid = shaper(Scores.of(arms.astype(float)), context).read(0.0)
        logit += 0.1 * float(((paid - paid.mean()) * (arms - chance)).mean())
        logit = float(np.clip(logit, -4, 4))
        path.append(chance)
    end = float(np.mean(path[-100:]))
    if right is None:
        assert 0.2 < end < 0.8
    else:
        assert (end > 0.9) == right
        assert (end < 0.1) == (not right)


def test_noisy_rewards_calibration_helps_low_scores_only():
    from guerdon.algebra import gate, product

    model = recorded.value(column="learned").named("learned")
    valid = recorded.value(column="format").named("format")
    pattern = recorded.value(column="pattern").named("pattern")
    checked = product(model, valid)
    reward = gate(checked, then=checked, above=0.5, inclusive=True, otherwise=(checked + 0.1 * pattern) >> clip(high=1))
    rows = {"learned": [0.4, 0.6, 0.9, 0.5], "format": [1.0, 1.0, 0.0, 1.0], "pattern": [0.5, 0.5, 0.5, 1.0]}
    assert reward(["q"] * 4, [""] * 4, **rows) == pytest.approx([0.45, 0.6, 0.05, 0.5])
