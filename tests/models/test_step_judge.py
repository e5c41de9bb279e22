"""PPR whole: judged turns, ReNorm as an expression and as credit, generalised advantages on the tokens, the loss."""

import math

import numpy as np
import pytest
import torch

from guerdon import Rollouts, reward
from guerdon.algebra import broadcast
from guerdon.core import Spans
from guerdon.credit import renormalize, returns, spread
from guerdon.models import agreement, judged_turns
from guerdon.objectives import policy_gradient
from guerdon.rewards import text
from guerdon.shaping import center, pin_last


def episode(*turns):
    """Searches, each answered by what was found, and an answer."""
    chat = []
    for turn in turns[:-1]:
        chat += [{"role": "assistant", "content": f"<search>{turn}</search>"}, {"role": "tool", "content": "found"}]
    return [*chat, {"role": "assistant", "content": f"<answer>{turns[-1]}</answer>"}]


def principled(asked=None):
    """A judge for whom a search for the river is worth 4 of 5 points, and another one 1 of 5."""

    def judge(questions):
        if asked is not None:
            asked.extend(questions)
        share = [4 if "Rhine" in question["turn"] else 1 for question in questions]
        return [f"1. It asks for what is missing.\n<final_score>{points},5</final_score>" for points in share]

    return judge


def ppr(judge, mu=1.0, **options):
    """r̂ₜ = pₜ + r_o − μ before the last turn, r_o at the last: μ comes off all but the last, where p is 0 as well."""
    outcome, judged = text.exact(within="answer_tag"), judged_turns(judge=judge, last="unasked", **options)
    return (judged >> center(mu) >> pin_last()) + broadcast(outcome, over=judged)


def test_ppr_from_turns_to_rewards():
    """(r_p, r_o): (.2, 0) = −.8, (.8, 0) = −.2, (.2, 1) = .2, (.8, 1) = .8; the last turn has the outcome, unjudged."""
    asked = []
    batch = Rollouts(
        ["Where does the Rhine end?"] * 3,
        [episode("cheese", "the Rhine", "Bern"), episode("cheese", "the Rhine", "Rotterdam"), episode("Rotterdam")],
        {"answer": ["Rotterdam"] * 3},
    )
    scores = ppr(principled(asked)).score(batch)
    assert scores.to_columns()["score"] == [
        pytest.approx([-0.8, -0.2, 0.0]), pytest.approx([0.2, 0.8, 1.0]), pytest.approx([1.0])
    ]  # fmt: skip
    assert [question["turn"] for question in asked] == ["<search>cheese</search>", "<search>the Rhine</search>"] * 2
    assert [len(question["before"]) for question in asked] == [0, 2] * 2

    judged = judged_turns(judge=principled(), last="unasked").score(batch)
    by_credit = renormalize(
        torch.as_tensor(judged.read(0.0)), torch.tensor([0.0, 1.0, 1.0]).double(), torch.as_tensor(judged.mask)
    )
    assert by_credit.numpy() == pytest.approx(scores.read(0.0))


def test_ppr_useless_searches_lower_a_lost_return_and_raise_it_without_the_shift():
    batch = Rollouts(["?"] * 3, [episode(*["cheese"] * k, "Bern") for k in (1, 2, 5)], {"answer": ["Rotterdam"] * 3})
    shifted, plain = (ppr(principled(), mu).score(batch).read(0.0).sum(1) for mu in (1.0, 0.0))
    assert shifted.tolist() == pytest.approx([-0.8, -1.6, -4.0])
    assert plain.tolist() == pytest.approx([0.2, 0.4, 1.0])


def test_ppr_from_rewards_of_turns_to_the_gradient():
    """GAE with a critic over the written tokens, what was found being passed over; against the recursion, by hand."""
    batch = Rollouts(["?"], [episode("cheese", "the Rhine", "Rotterdam")], {"answer": ["Rotterdam"]})
    scores = ppr(principled()).score(batch)
    # Two tokens for each turn, two for what was found after the first two.
    written = torch.tensor([[1, 1, 0, 0, 1, 1, 0, 0, 1, 1]], dtype=torch.bool)
    spans = Spans.of([[(0, 4), (4, 8), (8, 10)]])
    rewards = spread(torch.as_tensor(scores.read(0.0)), written, spans)
    assert rewards[0].tolist() == pytest.approx([0, 0.2, 0, 0, 0, 0.8, 0, 0, 0, 1.0])
    values = torch.where(written, torch.linspace(0.1, 1.0, 10, dtype=torch.float64), torch.nan)
    advantages = returns(rewards, written, kind="gae", gamma=0.9, lam=0.8, values=values)

    own = [t for t in range(10) if written[0, t]]
    expected, ahead, value_ahead = {}, 0.0, 0.0
    for t in reversed(own):
        delta = float(rewards[0, t]) + 0.9 * value_ahead - float(values[0, t])
        ahead = expected[t] = delta + 0.9 * 0.8 * ahead
        value_ahead = float(values[0, t])
    assert advantages[0].tolist() == pytest.approx([expected.get(t, 0.0) for t in range(10)])

    logp = torch.where(written, -1.0, torch.nan).double().requires_grad_()
    loss, _ = policy_gradient(logp, logp, advantages, written)
    loss.backward()
    assert logp.grad[0].tolist() == pytest.approx([-expected.get(t, 0.0) / 6 for t in range(10)])


def test_turns_with_text_outside_of_their_tags_get_0_unasked():
    loose = episode("the Rhine", "the Rhine", "Rotterdam")
    loose[0] = {"role": "assistant", "content": "Well: <search>the Rhine</search>"}
    asked = []
    leaf = judged_turns(judge=principled(asked), last="unasked", tags=("think", "search"))
    scores = leaf.score(Rollouts(["?"], [loose]))
    assert scores.read(math.nan)[0].tolist() == [0.0, 0.8, 0.0]
    assert len(asked) == 1
    with pytest.raises(ValueError, match="tags are names"):
        judged_turns(judge=principled(), tags=("<think>",))


@pytest.mark.parametrize(
    ("last", "expected"), [("left_out", [[0.2]]), ("unasked", [[0.2, 0.0]]), ("judged", [[0.2, 0.8]])]
)
def test_the_last_turn_is_left_out_or_0_or_judged(last, expected):
    leaf = judged_turns(judge=principled(), last=last)
    assert leaf.score(Rollouts(["?"], [episode("cheese", "Rhine")])).read(math.nan).tolist() == expected


@reward(range=(0, 1), lane="batch")
def won(outcome):
    return list(outcome)


def test_ppr_a_turn_whose_judgement_cannot_be_read_abstains_and_nothing_else_does():
    replies = iter(["no idea", "<final_score>4,5</final_score>"])
    judged = judged_turns(judge=lambda questions: [next(replies) for _ in questions], last="unasked")
    total = (judged >> center(1.0) >> pin_last()) + broadcast(won(), over=judged)
    scores = total.score(Rollouts(["?"], [episode("a", "b", "c")], {"outcome": [1.0]}))
    assert scores.valid.tolist() == [[False, True, True]]
    assert scores.read(9.0)[0].tolist() == pytest.approx([9.0, 0.8, 1.0])


def test_ppr_accuracy_of_a_judges_good_and_bad_calls():
    """As on NVProcessBench: a call is good above ½, over the turns that could be judged; three of four are right."""
    replies = iter(["4,5", "1,5", "3,5", "?", "2,5"])
    leaf = judged_turns(judge=lambda asked: [f"<final_score>{next(replies)}</final_score>" for _ in asked])
    scores = leaf.score(Rollouts(["?"], [episode(*"abcdef")]))
    good = np.array([True, False, False, True, False])
    found = agreement((scores.read(0.0) > 0.5)[0][:, None], good[:, None], np.asarray(scores.valid)[0])
    assert float(found.accuracy[0]) == 0.75
    assert int(found.judged[0]) == 4
