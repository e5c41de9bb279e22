import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from guerdon.credit import group_relative
from guerdon.data import history_spread, learning_impact, post_saturation, reflection_share, success_pair
from guerdon.objectives import kl_penalty, policy_gradient


def test_one_shot_ranks_the_prompt_that_was_learned_first():
    history = np.array([[0, 0, 0], [0, 0.5, 1], [1, 1, 1]])
    spread = history_spread(history)
    assert spread == pytest.approx([0, math.sqrt(1 / 6), 0])
    assert round(spread[1], 3) == 0.408
    assert np.argsort(-spread, kind="stable").tolist() == [1, 0, 2]


def test_one_shot_lim_of_the_mean_curve_is_1():
    history = np.array([[0.1, 0.3, 0.5], [0.3, 0.5, 0.9], [0.2, 0.4, 0.7]])
    mean = [0.2, 0.4, 0.7]
    impact = learning_impact(history)
    assert impact[2] == pytest.approx(1.0)
    apart = sum((a - b) ** 2 for a, b in zip([0.1, 0.3, 0.5], mean, strict=True))
    assert impact[0] == pytest.approx(1 - apart / sum((1 - b) ** 2 for b in mean))


def test_epochs_in_which_a_prompt_was_not_sampled_do_not_count():
    history = np.array([[0.0, math.nan, 1.0], [0.5, 0.5, 0.5]])
    mask = np.array([[True, False, True], [True, True, True]])
    assert history_spread(history, mask) == pytest.approx([0.5, 0.0])
    mean = np.array([0.25, 0.5, 0.75])
    expected = 1 - (0.25**2 + 0.25**2) / ((1 - mean[0]) ** 2 + (1 - mean[2]) ** 2)
    assert learning_impact(history, mask)[0] == pytest.approx(expected)


def test_a_prompt_that_was_never_sampled_comes_last_and_one_always_solved_like_all_first():
    history, mask = np.array([[math.nan, math.nan], [1.0, 1.0]]), np.array([[False, False], [True, True]])
    assert history_spread(history, mask).tolist() == [0.0, 0.0]
    assert learning_impact(history, mask).tolist() == [-math.inf, 1.0]


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_padding_never_changes_a_rank_and_nothing_is_nan(p, e, more, seed):
    rng = np.random.default_rng(seed)
    history, mask = rng.integers(0, 9, (p, e)) / 8, rng.random((p, e)) < 0.7
    padded = np.concatenate([np.where(mask, history, math.nan), np.full((p, more), 7.0)], 1)
    there = np.concatenate([mask, np.zeros((p, more), bool)], 1)
    for score in (history_spread, learning_impact):
        plain = score(history, mask)
        assert not np.isnan(plain).any()
        assert score(padded, there) == pytest.approx(plain)


def test_one_shot_generalises_after_saturation():
    found = post_saturation(np.array([0.3, 1.0, 0.9, 1.0, 1.0]), np.array([0.36, 0.5, 0.5, 0.625, 0.75]))
    assert found == (3, 4, 0.125)
    assert post_saturation(np.array([1.0, 0.5]), np.array([0.1, 0.9])) == (None, 1, 0.0)
    assert post_saturation(np.array([1.0, 1.0]), np.array([0.9, 0.1])) == (0, 0, 0.0)


def test_one_shot_groups_of_a_copied_prompt_are_not_one_large_group():
    """128 copies × 8: the mean advantage of a right rollout is near that over all 1024, each by itself is not."""
    generator = torch.Generator().manual_seed(0)
    rewards = (torch.rand(1024, generator=generator) < 0.5).double()
    groups = torch.arange(1024) // 8
    each, whole = (group_relative(rewards, g, ddof=0, eps=0.0) for g in (groups, torch.zeros_like(groups)))
    right = rewards == 1
    assert each[right].mean().item() == pytest.approx(whole[right].mean().item(), abs=0.1)
    assert whole[right].std() == pytest.approx(0.0, abs=1e-9)
    assert each[right].std() > 0.2


def test_one_shot_loss_is_policy_gradient_and_kl_less_entropy():
    """PG + .001 · k3 − .001 · H, each a mean over tokens; the entropy bonus is a negative penalty."""
    generator = torch.Generator().manual_seed(0)
    logp, ref_logp, entropy = (-torch.rand(3, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    entropy, mask, advantages = -entropy, torch.ones(3, 4, dtype=torch.bool), torch.tensor([1.0, -0.5, 0.2])
    penalty = 0.001 * kl_penalty(logp, ref_logp, mask=mask) - 0.001 * entropy
    loss, _ = policy_gradient(logp, logp, advantages, mask, kl=penalty)
    apart = ref_logp - logp
    expected = -advantages.mean() + 0.001 * (apart.exp() - apart - 1).mean() - 0.001 * entropy.mean()
    assert loss.item() == pytest.approx(expected.item())


def test_one_shot_counts_outputs_that_look_again():
    texts = [
        "Let me recheck.",
        "RECALCULATING the sum",
        "unrecheckable",
        "I think",
        [{"role": "assistant", "content": "rethink"}],
    ]
    assert reflection_share(texts) == 3 / 5
    assert reflection_share([]) is None
    with pytest.raises(ValueError, match="words are empty"):
        reflection_share(texts, words=())


def test_wgrpo_pairs_one_hardly_solved_with_one_hardly_failed():
    """G = 8, c = 2: p in [1/8, 2/8] and [6/8, 7/8], the rarest outcome first."""
    successes = np.array([0, 2, 1, 4, 6, 7, 8])
    assert success_pair(successes, np.full(7, 8)) == (2, 5)
    pools = {"hard": np.array([1, 1, 0, 1, 1, 1, 1], bool), "easy": np.array([1, 1, 1, 1, 1, 0, 1], bool)}
    assert success_pair(successes, np.full(7, 8), **pools) == (1, 4)
    assert success_pair(successes, np.full(7, 8), rare=1, **pools) == (None, None)


def test_wgrpo_does_not_pair_what_was_not_probed_or_never_varies():
    assert success_pair(np.array([0, 0, 8]), np.array([0, 8, 8])) == (None, None)
    assert success_pair(np.array([1]), np.array([1])) == (None, None)
    assert success_pair(np.array([1]), np.array([2])) == (0, 0)
    assert success_pair(np.zeros(0, int), np.zeros(0, int)) == (None, None)


def test_wgrpo_draws_among_equally_rare_ones():
    found = {success_pair(np.array([1, 1, 1]), np.full(3, 8), rng=np.random.default_rng(s)).hard for s in range(40)}
    assert found == {0, 1, 2}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: history_spread(np.array([0.5])), r"history \(1,\)"),
        (lambda: learning_impact(np.array([[8.0]])), "between 0 and 1"),
        (lambda: learning_impact(np.array([[math.nan]])), "between 0 and 1"),
        (lambda: post_saturation(np.zeros(0), np.zeros(0)), "e ≥ 1"),
        (lambda: success_pair(np.array([3]), np.array([2])), "between 0 and attempts"),
        (lambda: success_pair(np.array([1]), np.array([2]), rare=0), "rare must be at least 1"),
        (lambda: success_pair(np.array([1]), np.array([2, 2])), r"one shape \(p,\)"),
    ],
    ids=["shape", "range", "nan", "empty", "counts", "rare", "attempts"],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
