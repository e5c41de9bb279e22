"""Generative scorers: how concise a solution is, and how good a turn."""

import contextlib
import math

import pytest
import torch
from hypothesis import given, strategies as st

from guerdon import Abstain, Rollouts, reward
from guerdon.algebra import product
from guerdon.credit import renormalize
from guerdon.models import ConcisenessHead, concise, demonstrations, discriminative, judged_turns, points, rated

PAIR = {"problem": "1+1?", "concise": "2", "redundant": "2. So 2.", "concise_score": 0.9, "redundant_score": 0.3}


# Conciseness


def test_crm_keeps_the_pairs_that_tell_apart():
    records = [PAIR, {**PAIR, "redundant_score": 0.5}, {**PAIR, "concise_score": 0.6}]
    assert discriminative(records) == [PAIR]
    assert discriminative(records, concise=0.6, redundant=0.5) == records
    with pytest.raises(ValueError, match="redundant must be below concise"):
        discriminative(records, concise=0.2)


def test_crm_is_taught_to_answer_with_the_score_it_is_asked_for():
    taught = demonstrations([PAIR])
    assert [record["completion"] for record in taught] == ["0.9", "0.3"]
    assert [rated(record["completion"]) for record in taught] == [0.9, 0.3]
    assert "Problem:\n1+1?\n\nSolution:\n2. So 2." in taught[1]["prompt"]
    with pytest.raises(ValueError, match="a conciseness is in"):
        demonstrations([{**PAIR, "concise_score": 1.2}])


@pytest.mark.parametrize(
    ("reply", "score"), [("0.8", 0.8), ("Score: 1.0", 1.0), ("from 0.1 to 1.0: 0.55.", 0.55), ("1", 1.0)]
)
def test_crm_replies_end_with_their_score(reply, score):
    assert rated(reply) == score


@pytest.mark.parametrize("reply", ["", "good", "0.05", "10", "1.2", "1/3", "-1"])
def test_crm_replies_without_a_score_abstain(reply):
    with pytest.raises(Abstain, match="gave no number"):
        rated(reply)


@given(st.text(max_size=40))
def test_crm_replies_give_a_score_in_range_or_abstain(reply):
    with contextlib.suppress(Abstain):
        assert 0.1 <= rated(reply) <= 1.0


@reward(range=(0, 1), lane="batch")
def outcome(right):
    return [float(r) for r in right]


def test_crf_worked_number():
    """R_o = 1, α = .2, c = .8, s = 1, d = .5: 1.24; R_o = 0: 0."""
    scorer = concise(scorer=lambda questions: ["0.8"] * len(questions))
    whole = product(outcome(), 1 + 0.2 * (1.0 + 0.5) * scorer)
    scores = whole.score(Rollouts(["Q"] * 2, ["z", "z"], {"right": [1, 0]}))
    assert scores.read(math.nan) == pytest.approx([1.24, 0.0])


def test_crm_scorer_is_asked_about_problem_and_solution():
    asked = []

    def scorer(questions):
        asked.extend(questions)
        return ["0.5", 0.7, "no idea"]

    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "What?"}]
    batch = Rollouts(["P", chat, "P"], ["one", [{"role": "assistant", "content": "two"}], "three"])
    scores = concise(scorer=scorer).score(batch)
    assert scores.read(math.nan)[:2].tolist() == [0.5, 0.7]
    assert "gave no number" in scores.reasons[2]
    assert "Problem:\nWhat?\n\nSolution:\ntwo" in asked[1]
    short = concise(scorer=lambda questions: []).score(batch)
    assert short.reasons[0] == "the scorer gave 0 replies to 3 questions"


def test_crm_small_head_learns_how_much_is_said_twice():
    """Features: the share of repeated words. Trained by squared error, it ranks as its labels."""
    share = torch.linspace(0, 1, 16)[:, None]
    labels = 1 - 0.8 * share[:, 0]
    torch.manual_seed(0)
    head = ConcisenessHead(1)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(200):
        loss = ((head(share) - labels) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = head(share).detach()
    assert loss.item() < 3e-3
    assert (found.diff() < 0).all()
    assert ((found > 0.1) & (found < 1)).all()


# Turns


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("<final_score>3,4</final_score>", 0.75),
        ("<final_score> 0 , 5 </final_score>", 0.0),
        ("<final_score>1,2</final_score><final_score>2,2</final_score>", 1.0),
    ],
)
def test_ppr_points_are_a_share(reply, score):
    assert points(reply) == score


@pytest.mark.parametrize("inside", ["5,4", "-1,4", "1,0", "3", "1,2,3", "nan,4", "1,inf", "a,b"])
def test_ppr_points_that_are_none_abstain(inside):
    with pytest.raises(Abstain, match="gave no points"):
        points(f"<final_score>{inside}</final_score>")


@given(st.text(alphabet="<final_score>/,0123456789.e-", max_size=60))
def test_ppr_points_are_in_range_or_abstain(reply):
    with contextlib.suppress(Abstain):
        assert 0.0 <= points(reply) <= 1.0


CHAT = [
    {"role": "assistant", "content": "search"},
    {"role": "tool", "content": "found"},
    {"role": "assistant", "content": "again"},
    {"role": "assistant", "content": "answer"},
]


def test_ppr_judges_all_turns_but_the_last():
    asked = []

    def judge(questions):
        asked.extend(questions)
        return ["<final_score>1,5</final_score>", "<final_score>4,5</final_score>"]

    scores = judged_turns(judge=judge).score(Rollouts(["Q"], [CHAT]))
    assert scores.read(math.nan)[0] == pytest.approx([0.2, 0.8])
    assert scores.spans.rows() == [[(0, 6), (6, 12)]]
    assert asked == [
        {"prompt": "Q", "before": [], "turn": "search"},
        {"prompt": "Q", "before": CHAT[:2], "turn": "again"},
    ]


def test_ppr_worked_numbers():
    """(r_p, r_o): (.2, 0) = −.8, (.8, 0) = −.2, (.2, 1) = .2, (.8, 1) = .8, by way of credit's ReNorm."""
    judge = lambda questions: ["<final_score>1,5</final_score>", "<final_score>4,5</final_score>"]  # noqa: E731
    scores = judged_turns(judge=judge).score(Rollouts(["Q"], [CHAT]))
    with_answer = torch.nn.functional.pad(torch.as_tensor(scores.read(0.0)), (0, 1))
    there = torch.ones(1, 3, dtype=torch.bool)
    for won, expected in ((0.0, [-0.8, -0.2, 0.0]), (1.0, [0.2, 0.8, 1.0])):
        normed = renormalize(with_answer, torch.tensor([won]), there)
        assert normed[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_ppr_unreadable_judgements_abstain_and_empty_turns_get_0_unasked():
    silent = [{"role": "assistant", "content": ""}, *CHAT[1:]]
    replies = iter(["hm", "<final_score>1,2</final_score>", "<final_score>1,1</final_score>"])
    scores = judged_turns(judge=lambda questions: [next(replies) for _ in questions]).score(
        Rollouts(["Q"] * 3, [CHAT, silent, "text"])
    )
    assert scores.usable.tolist() == [False, True, False]
    assert scores.reasons == {0: "turn 0: the judge gave no points out of a maximum: 'hm'"}
    assert scores.read(9.0).tolist() == [[9.0, 0.5], [0.0, 1.0], [9.0, 9.0]]
    assert scores.mask.tolist() == [[True, True], [True, True], [False, False]]
