"""Scores of several views and parts, and Hi-GRPO: two stages with rewards and advantages of their own."""

import numpy as np
import pytest
import torch

from guerdon import Rollouts
from guerdon.credit import group_relative, returns
from guerdon.objectives import policy_gradient
from guerdon.rewards import recorded, views


def test_hi_grpo_worked_number():
    low = (
        views.pooled(column="hps").named("preference")
        + views.pooled(column="unified", low=3, high=15).named("unified") * (1 / 3)
        + recorded.value(column="consistency", high=3) * (1 / 3)
        + views.components() * 0.5
    )
    columns = {
        "hps": [[0.1, 0.3, 0.2]],
        "unified": [[12, 7, 3]],
        "consistency": [2.4],
        "components": [[(1, 1.0), (1, 0.5), (1, 0.0)]],
    }
    assert low(["a chair"], [""], **columns) == pytest.approx([5.85])


def test_hi_grpo_the_best_view_counts_whatever_their_order():
    seen = np.random.default_rng(0).random(6).tolist()
    part = views.pooled()
    blank = (["?"] * 2, [""] * 2)
    assert part(*blank, views=[seen, seen[::-1]]) == [max(seen)] * 2
    assert views.pooled(how="min")(*blank, views=[seen, seen[::-1]]) == [min(seen)] * 2
    assert views.pooled(how="mean")(*blank, views=[seen, [0.5]]) == pytest.approx([sum(seen) / 6, 0.5])


def test_views_are_scored_together_and_what_is_not_scored_abstains():
    calls = []

    def scorer(shown, asked):
        calls.append((shown, asked))
        return [len(view) / 10 for view in shown]

    part = views.pooled(scorer=scorer)
    assert part(["p", "q", "r"], [""] * 3, views=[["a", "abc"], [], ["abcde"]]) == [0.3, None, 0.5]
    assert calls == [(["a", "abc", "abcde"], ["p", "p", "r"])]
    plain = views.pooled()
    assert plain(["?"] * 3, [""] * 3, views=[[0.2, None], [0.2, 1.5], "none"]) == [None] * 3
    with pytest.raises(ValueError, match="low below high"):
        views.pooled(low=1.0, high=0.0)


def test_what_cannot_be_rendered_has_the_lowest_score():
    def render(thing):
        if thing is None:
            raise ValueError("nothing to be seen")
        return [thing, thing]

    part = views.pooled(render=render, scorer=lambda seen, _: seen, low=-1.0, column="mesh")
    assert part(["?"] * 2, [""] * 2, mesh=[None, 0.5]) == [-1.0, 0.5]


def test_a_scorer_that_leaves_views_out_makes_all_abstain():
    part = views.pooled(scorer=lambda seen, _: seen[:-1])
    scores = part.score(Rollouts(["?"] * 2, [""] * 2, {"views": [[0.1, 0.2], [0.3]]}))
    assert scores.reasons == dict.fromkeys(range(2), "the scorer gave 2 numbers for 3 views")


def test_mme_3dr_classes_count_by_their_shares_and_all_of_them():
    classes, scores = ["a", "b", "a"], [1.0, 0.0, 0.5]
    assert views.by_class(np.mean, classes, scores, shares={"a": 3, "b": 1})["all"] == pytest.approx(0.5625)
    for shares in ({"a": 1}, {"a": 1, "b": 1, "c": 1}):
        with pytest.raises(ValueError, match="classes must be all of"):
            views.by_class(np.mean, classes, scores, shares=shares)


def test_parts_that_are_not_there_are_not_whole_either():
    blank = (["?"], [""])
    assert views.components()(*blank, components=[[(0, 1.0), (1, 0.5)]]) == [0.75]
    for wrong in ([], None, [(2, 0.5)], [(1, 1.5)], [(1,)]):
        assert views.components()(*blank, components=[wrong]) == [None]


def stage_advantages(high, low, groups, lam):
    """Per stage of its own reward, the first with λ times the second's: a discounted return over two stages."""
    rewards = torch.stack([high, low], 1)
    both = returns(rewards, torch.ones_like(rewards, dtype=torch.bool), gamma=lam)
    return group_relative(both, groups, pool="position", ddof=0, eps=1e-4)


def test_hi_grpo_stages_by_hand():
    high, low = torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.tensor([5.0, 1.0, 1.0, 1.0])
    groups = torch.zeros(4, dtype=torch.long)
    for lam in (0.0, 1.0):
        found = stage_advantages(high, low, groups, lam).numpy()
        for stage, reward in ((0, (high + lam * low).numpy()), (1, low.numpy())):
            assert found[:, stage] == pytest.approx((reward - reward.mean()) / (reward.std() + 1e-4), rel=1e-4)
    assert stage_advantages(high, 100 * low, groups, 0.0)[:, 0].equal(stage_advantages(high, low, groups, 0.0)[:, 0])
    assert not stage_advantages(torch.ones(4), torch.ones(4), groups, 1.0).any()


def test_hi_grpo_two_stages_are_learned_together():
    """A plan of 2 choices and a refinement of 2, by the sum of the two stages' losses: coarse waits for fine."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.zeros(2, 2, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=0.5)
    groups = torch.arange(64) // 8
    for _ in range(60):
        logp = logits.log_softmax(-1)
        choice = torch.multinomial(logp.exp().detach(), 64, replacement=True, generator=generator).T
        taken = torch.stack([logp[stage][choice[:, stage]] for stage in range(2)], 1)
        high = 0.5 * (choice[:, 0] == 0)  # plan 0 looks a little better at first
        low = (choice[:, 0] == 1).float() * (0.5 + choice[:, 1])  # only plan 1 can be refined
        advantages = stage_advantages(high.float(), low, groups, 1.0)
        loss = sum(
            policy_gradient(
                taken[:, [s]], taken[:, [s]].detach(), advantages[:, [s]], torch.ones(64, 1, dtype=torch.bool)
            )[0]
            for s in range(2)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert logits.softmax(-1)[:, 1].min() > 0.9


def test_mme_3dr_measures_are_distances_of_sets():
    """KD and FD per class from vectors: 0 for the same objects, and larger for those moved further."""
    from guerdon.rewards.distribution import frechet_distance, kernel_distance

    rng = np.random.default_rng(0)
    reference = rng.normal(size=(50, 8))
    near, far = reference + 0.1, reference + 1.0
    for distance in (frechet_distance, lambda x, y: kernel_distance(x, y, kernel="polynomial")):
        assert distance(reference, reference).item() == pytest.approx(0, abs=1e-9)
        assert distance(near, reference).item() < distance(far, reference).item()
