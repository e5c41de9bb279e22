"""Groups that play tournaments before a judge of pairs, from verdicts to advantages."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon import Abstain, Rollouts, reward
from guerdon.credit import group_relative
from guerdon.models import preferred, tournament
from guerdon.objectives import policy_gradient
from guerdon.shaping import clip as clipped, normalize


def batch(*groups):
    """Rollouts whose completion is their quality."""
    prompts = [f"q{g}" for g, members in enumerate(groups) for _ in members]
    return Rollouts(prompts, [str(x) for members in groups for x in members])


def better(asked=None, bias=0.0):
    """A judge who scores both sides by what is written there, the first with a bias, and notes what it was asked."""

    def judge(questions):
        if asked is not None:
            asked.append([(q["prompt"], q["first"], q["second"]) for q in questions])
        return [(float(q["first"]) + bias, float(q["second"])) for q in questions]

    return judge


def advantages(scores, rollouts, **options):
    return group_relative(torch.as_tensor(scores.read(0.0)), torch.as_tensor(rollouts.groups), **options)


def test_arenarl_from_trajectories_to_advantages():
    """N = 4, a perfect judge: rewards 1, 2/3, 1/3, 0, A = (1.162, .387, −.387, −1.162) by 2 (N − 1) pairs, twice."""
    rollouts, asked = batch([2, 8, 6, 4], [1, 2, 3, 4]), []
    scores = tournament(judge=better(asked)).score(rollouts)
    assert scores.read(math.nan) == pytest.approx([0, 1, 2 / 3, 1 / 3, 0, 1 / 3, 2 / 3, 1])
    assert advantages(scores, rollouts, eps=1e-6).tolist() == pytest.approx(
        [-1.162, 1.162, 0.387, -0.387, -1.162, -0.387, 0.387, 1.162], abs=1e-3
    )
    assert len(asked) == 3, "the games against the anchor, the semi-finals and the final, of both groups at once"
    assert [len(round_) for round_ in asked] == [2 * 2 * 3, 2 * 2 * 2, 2 * 2 * 1]
    assert {prompt for prompt, *_ in asked[0][:3]} == {"q0"}
    assert ("q0", "8", "2") in asked[0]
    assert ("q0", "2", "8") in asked[0]
    assert sum(scores.parts["models.tournament"].details["games"]) == 2 * 2 * 6


@pytest.mark.parametrize("schedule", ["elimination", "anchor", "round_robin", "swiss", "double_elimination"])
def test_arenarl_a_biased_judge_changes_nothing_in_both_orders(schedule):
    rollouts = batch([3, 9, 1, 6, 5])
    fair = tournament(judge=better(), schedule=schedule).score(rollouts).read(math.nan)
    biased = tournament(judge=better(bias=100.0), schedule=schedule)
    assert biased.score(rollouts).read(math.nan).tolist() == fair.tolist()
    one = tournament(judge=better(bias=100.0), schedule=schedule, orders="one").score(rollouts)
    assert one.read(math.nan).tolist() != fair.tolist()


def test_arenarl_a_policy_learns_what_the_judge_prefers():
    """A softmax over five replies, sampled in groups of 8; the judge prefers the larger, and is sometimes wrong."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    logits = torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=1.0)

    def noisy(questions):
        return [float(q["first"]) - float(q["second"]) + rng.logistic(scale=0.5) for q in questions]

    for _ in range(40):
        drawn = torch.multinomial(logits.softmax(0).detach(), 8, replacement=True, generator=generator)
        rollouts = batch(drawn.tolist())
        scores = tournament(judge=noisy).score(rollouts)
        logp = logits.log_softmax(0)[drawn][:, None]
        loss, _ = policy_gradient(
            logp, logp.detach(), advantages(scores, rollouts, eps=1e-6).float(), torch.ones(8, 1, dtype=torch.bool)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(logits.detach().softmax(0)[4]) > 0.9


def said(table):
    """A judge that answers in words, by who is shown."""
    names = {1.0: "Image 1 is better", -1.0: "Image 2 is better", 0.0: "It is a tie"}

    def judge(questions):
        return [f"Well.\n<answer>{names[table[q['first'], q['second']]]}</answer>" for q in questions]

    return judge


def test_pref_grpo_from_verdicts_to_advantages():
    """0 > 1, 0 > 2, 1 = 2: w = (1, .25, .25), A = (1.155, −.577, −.577); close scores z-scored are (1, 0, −1)."""
    rollouts = batch("abc")
    judge = said({("a", "b"): 1.0, ("a", "c"): 1.0, ("b", "c"): 0.0})
    scores = tournament(judge=judge, schedule="win_rate", orders="one").score(rollouts)
    assert scores.read(math.nan).tolist() == [1.0, 0.25, 0.25]
    assert advantages(scores, rollouts, eps=1e-8).tolist() == pytest.approx([1.155, -0.577, -0.577], abs=1e-3)
    pointwise = torch.tensor([0.701, 0.700, 0.699], dtype=torch.float64)
    illusory = group_relative(pointwise, torch.zeros(3, dtype=torch.long), eps=1e-8)
    assert illusory.tolist() == pytest.approx([1.0, 0.0, -1.0], abs=1e-4)


def test_pref_grpo_a_judge_of_dimensions_is_weighed_and_asked_once():
    """(w_o · overall + w_d · mean over dimensions) / (w_o + w_d) with w_o = 1, w_d = .5, against the definition."""
    asked = []
    verdicts = {
        ("a", "b"): {"overall": 1.0, "light": -1.0, "form": 0.0},
        ("a", "c"): {"overall": 1.0, "light": 1.0, "form": 1.0},
        ("b", "c"): {"overall": -1.0, "light": 1.0, "form": 0.0},
    }

    def judge(questions):
        asked.extend((q["first"], q["second"]) for q in questions)
        return [verdicts[q["first"], q["second"]] for q in questions]

    leaf = tournament(
        judge=judge, schedule="win_rate", orders="one", aspects={"overall": 1.0, "light": 0.25, "form": 0.25}
    )
    scores = leaf.score(batch("abc"))
    assert asked == [("a", "b"), ("a", "c"), ("b", "c")]
    wins = {"overall": [1, 0, 0.5], "light": [0.5, 1, 0], "form": [0.75, 0.5, 0.25]}
    expected = [(wins["overall"][i] + 0.5 * (wins["light"][i] + wins["form"][i]) / 2) / 1.5 for i in range(3)]
    assert scores.read(math.nan) == pytest.approx(expected)
    assert scores.parts["models.tournament"].details["games"] == [6, 6, 6]


@reward(range=(-10, 10), lane="batch")
def similarity(image_text):
    return list(image_text)


def test_pref_grpo_advantages_of_two_rewards_are_summed_by_weight_and_clamped():
    """.4 of the judge's and .6 of the other's, each standardised by group, clamped to ±1."""
    judge = said({("a", "b"): 1.0, ("a", "c"): 1.0, ("b", "c"): 0.0})
    preference = tournament(judge=judge, schedule="win_rate", orders="one") >> normalize(over="group", ddof=1)
    total = 0.4 * preference + 0.6 * (similarity() >> normalize(over="group", ddof=1))
    rollouts = Rollouts(["?"] * 3, ["a", "b", "c"], {"image_text": [9.0, 5.0, 1.0]})
    expected = np.array([0.4 * 1.1547 + 0.6, 0.4 * -0.57735, 0.4 * -0.57735 - 0.6])
    assert total.score(rollouts).read(math.nan) == pytest.approx(expected, abs=1e-4)
    bounded = (total >> clipped(low=-0.7, high=0.7)).score(rollouts)
    assert bounded.read(math.nan) == pytest.approx(expected.clip(-0.7, 0.7), abs=1e-4)


def test_verdicts_that_cannot_be_read_are_asked_for_again_and_then_abstain():
    calls = []

    def judge(questions):
        calls.append(len(questions))
        return [None if q["first"] == "c" or len(calls) == 1 else 1.0 for q in questions]

    rollouts = batch("ab", "cd")
    scores = tournament(judge=judge, orders="one", schedule="win_rate", tries=3).score(rollouts)
    assert calls == [2, 2, 1]
    assert scores.read(math.nan)[:2].tolist() == [1.0, 0.0]
    assert scores.reasons == dict.fromkeys((2, 3), "no verdict: the judge preferred neither and called no tie: None")
    alone = tournament(judge=judge).score(batch("a"))
    assert alone.reasons == {0: "alone in its group: there is nothing to compare it with"}
    short = tournament(judge=lambda questions: []).score(batch("ab"))
    assert short.reasons[0] == "the judge gave 0 verdicts on 2 pairs"
    mute = tournament(judge=lambda questions: [1.0] * len(questions), aspects={"light": 1.0}).score(batch("ab"))
    assert mute.reasons[1] == "no verdict: the judge said nothing of 'light': 1.0"
    assert len(tournament(judge=judge).score(Rollouts([], []))) == 0


def test_options_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="tries must be at least 1"):
        tournament(judge=better(), tries=0)
    with pytest.raises(ValueError, match="aspects need positive weights"):
        tournament(judge=better(), aspects={"light": 0.0})
    with pytest.raises(ValueError, match="schedule is one of"):
        tournament(judge=better(), schedule="league")


@pytest.mark.parametrize(
    "verdict",
    ["Image 1 is better", "<answer>Image 3 is better</answer>", "<answer>1 is better, 2 is better</answer>",
     "<answer></answer>", None, math.nan, (1.0,), (math.inf, 1.0)],
    ids=str,
)  # fmt: skip
def test_what_is_no_verdict_abstains(verdict):
    with pytest.raises(Abstain, match="preferred neither"):
        preferred(verdict)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=3), st.booleans(), st.integers(0, 10**6))
def test_any_verdicts_end_in_scores_or_reasons(groups, both, seed):
    rng = np.random.default_rng(seed)
    leaf = tournament(
        judge=lambda questions: [None if rng.random() < 0.3 else float(rng.integers(-1, 2)) for _ in questions],
        orders="both" if both else "one",
    )
    scores = leaf.score(batch(*groups))
    values = scores.read(math.nan)
    assert ((values >= 0) & (values <= 1))[scores.valid].all()
    assert set(scores.reasons) == set(np.flatnonzero(~scores.valid).tolist())
