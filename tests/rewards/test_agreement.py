"""Votes: the majority of a group, and of the same question in other words (Co-Reward)."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from guerdon import Rollouts
from guerdon.core.errors import Abstain
from guerdon.credit import group_relative
from guerdon.objectives import kl_penalty, policy_gradient
from guerdon.rewards import agreement, math


def boxed(answers):
    return [f"So \\boxed{{{answer}}}." if answer else "I do not know." for answer in answers]


def cross(first, second, **options):
    """The rewards on either side."""
    view = ["x"] * len(first) + ["x'"] * len(second)
    said = boxed([*first, *second])
    paid = agreement.contrastive(**options)(["?"] * len(view), said, pair=["a"] * len(view), view=view)
    return paid[: len(first)], paid[len(first) :]


def test_co_reward_worked_numbers():
    assert cross("445", "554") == ([0.0, 0.0, 1.0], [0.0, 0.0, 1.0])
    assert agreement.majority()(["?"] * 3, boxed("445")) == [1.0, 1.0, 0.0]


def test_co_reward_without_answers():
    assert cross(["", ""], ["", ""]) == ([0.0, 0.0], [0.0, 0.0])
    assert cross(["4", ""], ["", ""]) == ([None, 0.0], [0.0, 0.0])
    assert agreement.majority()(["?"] * 2, boxed(["", ""])) == [0.0, 0.0]


def test_co_reward_where_both_sides_agree_it_is_the_plain_majority():
    first, second = "4457", "4744"
    own = [agreement.majority()(["?"] * 4, boxed(side)) for side in (first, second)]
    assert list(cross(first, second)) == own


def test_co_reward_collapse_to_one_answer_is_harder_and_not_impossible():
    assert cross("1111", "1111") == ([1.0] * 4, [1.0] * 4)
    assert cross("1111", "4455") == ([0.0] * 4, [0.0] * 4)  # a habit of one wording alone is not paid
    assert agreement.majority()(["?"] * 4, boxed("1111")) == [1.0] * 4


def test_votes_are_by_value_or_by_text_and_the_first_of_equals_wins():
    first, second = ["1/2", "3"], ["0.5", "\\frac{1}{2}", "3"]
    assert cross(first, second)[0] == [1.0, 0.0]
    assert cross(["0.5", "3"], second, compare="text")[0] == [1.0, 0.0]
    assert cross(["1/2", "3"], second, compare="text")[0] == [0.0, 0.0]
    assert cross("45", "54")[0] == [0.0, 1.0]
    assert cross("45", "54")[1] == [0.0, 1.0]


@given(
    st.lists(st.sampled_from(["", "4", "5", "6"]), min_size=1, max_size=8),
    st.lists(st.sampled_from("456"), min_size=1, max_size=8),
)
def test_co_reward_is_its_definition(first, second):
    def vote(answers):
        given_ = [answer for answer in answers if answer]
        return max(dict.fromkeys(given_), key=given_.count) if given_ else None

    wanted = [float(a == vote(second)) if a else 0.0 for a in first]
    assert cross(first, second, compare="text")[0] == wanted


def test_a_pair_has_two_views():
    part = agreement.contrastive()
    with pytest.raises(Abstain, match="two views, this one has 1"):
        part.evaluate(boxed("44"), ["a", "a"], ["x", "x"])
    scores = part.score(Rollouts(["?"] * 3, boxed("444"), {"pair": ["a", "a", "b"], "view": ["x", "y", "x"]}))
    assert scores.read(-1.0).tolist() == [1.0, 1.0, -1.0]


def test_co_reward_diagnostics_are_in_the_details():
    batch = Rollouts(["?"] * 6, boxed("445554"), {"pair": ["a"] * 6, "view": ["x"] * 3 + ["y"] * 3})
    details = agreement.contrastive().score(batch).details
    assert details["label"] == ["5", "5", "5", "4", "4", "4"]
    assert details["agreed"] == [False] * 6
    assert details["answer"] == list("445554")
    votes = math.answer()(["?"] * 6, boxed(details["label"]), answer=[5] * 6)  # vote accuracy, where the truth is known
    assert votes == [1.0] * 3 + [0.0] * 3


def test_co_reward_loss_is_the_sum_over_both_sides():
    """Advantages are in each question's own group; one batch of both is the mean of the two losses."""
    prompts = ["x"] * 3 + ["x'"] * 3
    columns = {"pair": ["a"] * 6, "view": ["x"] * 3 + ["y"] * 3}
    scores = agreement.contrastive().score(Rollouts(prompts, boxed("445554"), columns))
    paid = torch.tensor(scores.read(0.0))
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    advantages = group_relative(paid, groups, eps=0.0)
    expected = (paid - 1 / 3) / (1 / 3) ** 0.5
    assert torch.allclose(advantages, expected)
    torch.manual_seed(0)
    old, new, reference = (torch.randn(6, 4, dtype=torch.double) * 0.1 for _ in range(3))
    mask = torch.ones(6, 4, dtype=torch.bool)

    def loss(rows):
        gap = reference[rows] - new[rows]
        ratio = (new[rows] - old[rows]).exp()
        a = advantages[rows][:, None]
        per_token = -torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a) + 0.005 * (gap.exp() - gap - 1)
        return per_token.mean()

    kl = 0.005 * kl_penalty(new, reference, kind="k3")
    whole, _ = policy_gradient(new, old, advantages, mask, kl=kl)
    assert whole == pytest.approx(float(loss(slice(0, 3)) + loss(slice(3, 6))) / 2)


def test_pair_agreement_drops_ties():
    found = agreement.pair_agreement(
        np.array([0.9, 0.2, 0.5, 0.1]), np.array([0.1, 0.8, 0.5, 0.0]), np.array([0, 0, 1, 1])
    )
    assert (found.share, found.ties, found.pairs) == (pytest.approx(1 / 3), 1, 3)
    assert agreement.pair_agreement(np.zeros(2), np.zeros(2), np.zeros(2)).share is None
    for bad in (np.array([2]), np.array([0, 1])):
        with pytest.raises(ValueError, match="choice"):
            agreement.pair_agreement(np.zeros(1), np.zeros(1), bad)
