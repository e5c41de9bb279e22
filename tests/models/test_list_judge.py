"""Judges that go through a list: points of a rubric, subgoals of a task, and how good such judges are."""

import contextlib
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from guerdon import Abstain, Context, Rollouts
from guerdon.algebra import gate
from guerdon.core.protocols import TokenLogprobs
from guerdon.credit import group_relative, progress, subgoal_bonus, subgoal_potential
from guerdon.data import carry_over, chain, upper, within
from guerdon.models import achieved, agreement, checklist, listed, marks, tally
from guerdon.rewards import likelihood
from guerdon.shaping import normalize, target_length

# Reading a judge


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("[1, 0, 1]", [True, False, True]),
        ("as for [1], it is there\n['yes', 'no', 'TRUE']", [True, False, True]),
        ("1. yes\n2) No.\n\n3: yes", [True, False, True]),
        ([True, 0, "yes"], [True, False, True]),
    ],
    ids=["ones", "words", "lines", "values"],
)
def test_marks_as_judges_write_them(reply, expected):
    assert marks(reply, 3) == expected


@pytest.mark.parametrize(
    "reply", ["", "[1, 0]", "[1, 0, 2]", "yes", "1. yes\n2. perhaps\n3. no", [1, 0], "[]"], ids=repr
)
def test_what_holds_no_marks_of_the_list_abstains(reply):
    with pytest.raises(Abstain, match="gave no 3 marks"):
        marks(reply, 3)


@given(st.text(alphabet="[]10,yesno \n.", max_size=30), st.integers(1, 4))
def test_any_reply_is_as_many_marks_as_asked_for_or_an_abstention(reply, count):
    with contextlib.suppress(Abstain):
        assert len(marks(reply, count)) == count


def test_lists_as_models_write_them():
    assert listed("Sure:\n- pick up the key\n* unlock the door\n- pick up the key") == [
        "pick up the key",
        "unlock the door",
    ]
    assert listed('["a", "b "]') == ["a", "b"]
    for nothing in ("no list", "[1, 2]", "[broken"):
        with pytest.raises(Abstain, match="there is no list"):
            listed(nothing)


# Rubrics


def words(questions):
    """A judge for whom a point is met if its word is in the reply."""
    return [str([int(point in q["reply"].split()) for point in q["points"]]) for q in questions]


def test_a_share_of_the_points_or_all_of_them():
    batch = Rollouts(["?"] * 3, ["a b", "<think>a b c</think>a", ""], {"points": [["a", "b"], '["a", "b"]', ["a"]]})
    share = checklist(judge=words).score(batch)
    assert share.read(math.nan).tolist() == [1.0, 0.5, 0.0]
    assert share.parts["models.checklist"].details["met"] == [[True, True], [True, False], [False]]
    assert checklist(judge=words, credit="all").score(batch).read(math.nan).tolist() == [1.0, 0.0, 0.0]


def test_rows_without_points_or_with_other_marks_abstain():
    batch = Rollouts(["?"] * 4, ["a"] * 4, {"points": [[], "a", [1], ["a", "b"]]})
    scores = checklist(judge=lambda questions: ["[1]"] * len(questions)).score(batch)
    assert scores.abstained.all()
    assert scores.reasons[1] == "points is not a list of texts: 'a'"
    assert scores.reasons[3] == "the judge gave no 2 marks: '[1]'"
    short = checklist(judge=lambda questions: []).score(batch)
    assert short.reasons[3] == "the judge gave 0 replies to 1 questions"


def test_unigenbench_from_test_points_to_its_table():
    """Five points over three prompts; the row whose list has the wrong length is skipped, against a count by hand."""
    kinds = [["Style", "Layout - 2D"], ["Layout - 2D", "Layout - 3D"], ["Style"]]
    points = [["oil", "left"], ["left", "behind"], ["ink"]]
    batch = Rollouts(["?"] * 3, ["oil left", "behind", "ink"], {"points": points})

    def judge(questions):
        return [*words(questions)[:2], "[1, 1]"]

    scores = checklist(judge=judge).score(batch)
    assert scores.abstained.tolist() == [False, False, True]
    table = tally(kinds, scores.parts["models.checklist"].details["met"])
    assert table == {"Style": (1, 1), "Layout": (2, 3), "Layout - 2D": (1, 2), "Layout - 3D": (1, 1)}
    with pytest.raises(ValueError, match="row 0 has 1 names and 2 marks"):
        tally([["Style"]], [[True, False]])


class Listener:
    """A model of letters: after 'key' the token 'b' has .8, after 'lock' .4, otherwise .2; 'a' and 'c' always .5."""

    def logprobs(self, prompts, completions, *, temperature=1.0):
        rows = []
        for prompt, text in zip(prompts, completions, strict=True):
            chance = next((p for word, p in (("key", 0.8), ("lock", 0.4)) if word in prompt), 0.2)
            rows.append([math.log(chance if letter == "b" else 0.5) for letter in text])
        width = max(map(len, rows))
        logp = np.array([row + [math.nan] * (width - len(row)) for row in rows])
        rank = np.where(logp < math.log(0.3), 50.0, 2.0)
        return TokenLogprobs(logp, np.isfinite(logp), np.zeros_like(logp), rank, logp, {})


def test_dro_from_reasonings_and_a_rubric_to_advantages_and_the_next_round():
    """R3 and the length of the answer alone, gated by hard rubric points; then the filter and what is carried over.

    Prompt p: tokens a, b, c of which only b varies: R3 = log p(b) − log p(b | masked). Prompt q: b is never likely.
    """
    thoughts = ["a key", "a lock", "the key", "hm"]
    answers = ["x y", "x y", "z y", "x y y y"]
    texts = [f"<think>{thought}</think>{answer}" for thought, answer in zip(thoughts, answers, strict=True)]
    batch = Rollouts(
        ["p"] * 4 + ["q"] * 2,
        [*texts, "<think>hm</think>x y", "<think>ah</think>x y"],
        {"answer": ["abc"] * 6, "points": [["x"]] * 6, "words": [2] * 6},
    )
    rubric = checklist(judge=words, credit="all")
    reflection = likelihood.reflection(after="</think>")
    size = target_length(
        target="words", curve="deviation", weight=0.1, wrong="same", apply="alone", unit="words", within="reply",
        floor=-math.inf, wrong_floor=-math.inf,
    )  # fmt: skip
    inside = reflection + (reflection >> size)
    reward = gate(rubric, then=inside >> normalize("range", over="group"), otherwise=-0.5)
    scores = reward.score(batch, Context(models={"reference": Listener()}))

    r3 = [math.log(p / 0.2) for p in (0.8, 0.4, 0.8, 0.2)]
    raw = np.array(r3) + 0.1 * -np.array([0, 0, 0, 2 / 2])  # the third fails its rubric, the fourth is twice too long
    place = (raw - raw.min()) / (raw.max() - raw.min())
    expected = [place[0], place[1], -0.5, place[3], 0.5, 0.5]
    assert scores.read(math.nan) == pytest.approx(expected)
    advantages = group_relative(torch.as_tensor(scores.read(0.0)), torch.as_tensor(batch.groups))
    own = np.array(expected[:4])
    assert advantages[:4].tolist() == pytest.approx(((own - own.mean()) / (own.std(ddof=1) + 1e-4)).tolist())
    assert advantages[4:].tolist() == [0.0, 0.0]
    assert int(advantages.argmin()) == 2, "the best reasoning of all does not pay for an answer that is rejected"

    here = Context(batch, models={"reference": Listener()})
    reach = within(of="worst_rank", statistic="min", high=10)
    feasible = within(of="models.checklist", statistic="mean", low=0.5)
    kept = chain((feasible, reach, upper(of="spread", drop=0.0))).keep(scores, here)
    assert kept.tolist() == [True, False], "no reasoning on q brings its worst token under rank 10"
    assert not within(of="models.checklist", statistic="mean", low=0.8).keep(scores, here)[0]
    chosen = carry_over(["p"], [f"old{i}" for i in range(10)], rng=np.random.default_rng(0))
    assert len(chosen) == 2


# Subgoals

GOALS = ["pick up the key", "unlock the door"]


def shown(place, key):
    return f"A corridor. You are at {place}. You carry {'a key' if key else 'nothing'}."


def reader(flips=(0.0, 0.0), rng=None):
    """A judge of transitions who reads the two texts, and says yes by mistake, or no, with these chances."""

    def judge(questions):
        replies = []
        for q in questions:
            truth = [
                "a key" in q["after"] and "a key" not in q["before"],
                "at 14." in q["after"] and "at 14." not in q["before"] and "a key" in q["before"],
            ]
            said = (
                [bool(rng.random() < flips[0]) if not t else bool(rng.random() >= flips[1]) for t in truth]
                if rng
                else truth
            )
            replies.append("\n".join(f"{i + 1}. {'yes' if x else 'no'}" for i, x in enumerate(said)))
        return replies

    return judge


def corridor(judge, *, potential=False, most=501):
    """Episodes until ten were solved. The key lies at the left end, the door at the right; tabular Q-learning."""
    draw = random.Random(0)
    values, solved = {}, 0
    goals = listed("The task in steps:\n1. pick up the key\n2. unlock the door")
    assert goals == GOALS
    for episode in range(1, most):
        place, key, done = 7, 0, torch.zeros(1, 0, 2, dtype=torch.bool)
        for _ in range(40):
            left, right = (values.get((place, key, action), 0.0) for action in (0, 1))
            explore = left == right or draw.random() < 0.2
            action = draw.randrange(2) if explore else int(right > left)
            after = min(max(place + 2 * action - 1, 0), 14)
            taken = int(key or after == 0)
            finished = bool(key and after == 14)
            reward = float(finished)
            if judge is not None:
                step = {"before": shown(place, key), "action": ("left", "right")[action], "after": shown(after, taken)}
                done = torch.cat([done, torch.as_tensor(achieved([[step]], goals, judge=judge).reached)], 1)
                there = torch.ones(1, done.shape[1], dtype=torch.bool)
                if potential:
                    reward += float(progress(subgoal_potential(done, there), there, gamma=0.95)[0, -1])
                else:
                    reward += float(subgoal_bonus(done, there)[0, -1])
            ahead = 0.0 if finished else 0.95 * max(values.get((after, taken, a), 0.0) for a in (0, 1))
            old = values.get((place, key, action), 0.0)
            values[place, key, action] = old + 0.5 * (reward + ahead - old)
            place, key = after, taken
            if finished:
                solved += 1
                break
        if solved == 10:
            return episode
    return most


def test_calm_from_textual_transitions_to_fewer_episodes():
    """A judge who reads both texts saves several-fold.

    One who sees subgoals where there are none misleads as a bonus, and much less as a potential, which leaves the best
    policy the best.
    """
    sparse = corridor(None)
    assert 3 * corridor(reader()) < sparse
    assert 10 * corridor(reader(), potential=True) < sparse
    mistaken = [corridor(reader((0.02, 0.1), np.random.default_rng(0)), potential=x) for x in (False, True)]
    assert 3 * mistaken[1] < mistaken[0]


def test_calm_picking_and_dropping_is_farmed_only_if_subgoals_pay_again():
    """Four times the key is taken and dropped; then the door. The judge sees each transition by itself."""
    steps = [(1, 0, 0, 1), (0, 1, 0, 0)] * 4 + [(13, 1, 14, 1)]
    episode = [{"before": shown(a, k), "after": shown(b, c)} for a, k, b, c in steps]
    seen = achieved([episode], GOALS, judge=reader())
    there, reached = torch.as_tensor(seen.mask), torch.as_tensor(seen.reached)
    assert subgoal_bonus(reached, there)[0].tolist() == [1.0] + [0.0] * 7 + [1.0]
    assert float(subgoal_bonus(reached, there, once=False).sum()) == 5.0
    # As a potential Φ = #done / m, what is paid telescopes: Σ Φ' − Φ = 1, whatever was repeated.
    assert float(progress(subgoal_potential(reached, there), there).sum()) == pytest.approx(1.0)


def test_calm_a_judge_with_known_error_rates_is_found_out():
    """Over 4000 transitions with 5 % positives: precision is tp / (tp + fp) of the rates, and F1 follows."""
    rng = np.random.default_rng(1)
    positive = rng.random(4000) < 0.05
    episodes = [[{"before": shown(1, 0), "after": shown(0 if p else 2, int(p))} for p in positive]]
    seen = achieved(episodes, GOALS, judge=reader((0.02, 0.1), rng))
    truth = np.stack([positive, np.zeros(4000, bool)], 1)[None]
    found = agreement(seen.reached, truth, seen.mask)
    precision = 0.05 * 0.9 / (0.05 * 0.9 + 0.95 * 0.02)
    assert found.precision[0] == pytest.approx(precision, abs=0.06)
    assert found.recall[0] == pytest.approx(0.9, abs=0.05)
    assert found.f1[0] == pytest.approx(2 * precision * 0.9 / (precision + 0.9), abs=0.05)
    assert found.f1[1] == 0.0
    assert found.judged.tolist() == [4000, 4000]


def test_calm_an_all_negative_judge_has_accuracy_95_and_f1_0():
    seen = achieved([[{"after": "x"}] * 100], ["g"], judge=lambda questions: ["no"] * len(questions))
    found = agreement(seen.reached, (np.arange(100) < 5)[None, :, None], seen.mask)
    assert (found.accuracy[0], found.precision[0], found.recall[0], found.f1[0]) == (0.95, 0.0, 0.0, 0.0)


def test_transitions_that_cannot_be_judged_are_masked_and_say_why():
    replies = iter(["yes", "perhaps", "no"])
    seen = achieved([[{}, {}], [{}]], ["g"], judge=lambda questions: [next(replies) for _ in questions])
    assert seen.mask.tolist() == [[True, False], [True, False]]
    assert seen.reached[..., 0].tolist() == [[True, False], [False, False]]
    assert seen.reasons == {(0, 1): "the judge gave no 1 marks: 'perhaps'"}
    assert achieved([], ["g"], judge=None).reached.shape == (0, 0, 1)
    with pytest.raises(ValueError, match="subgoals are empty"):
        achieved([], [], judge=None)
    with pytest.raises(ValueError, match="one for each episode"):
        achieved([[{}]], [["g"], ["h"]], judge=None)
    with pytest.raises(ValueError, match="0 replies to 1 questions"):
        achieved([[{}]], ["g"], judge=lambda questions: [])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_agreement_is_that_of_scikit_learn(pairs):
    said, truth = (np.array(column)[:, None] for column in zip(*pairs, strict=True))
    found = agreement(said, truth)
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth[:, 0], said[:, 0], average="binary", pos_label=True, zero_division=0
    )
    expected = [accuracy_score(truth[:, 0], said[:, 0]), precision, recall, f1]
    assert [float(x[0]) for x in found[:4]] == pytest.approx(expected)


def test_agreement_of_shapes_that_do_not_fit_is_refused_and_of_nothing_is_0():
    with pytest.raises(ValueError, match="need one shape"):
        agreement(np.zeros((2, 1), bool), np.zeros((2, 2), bool))
    nothing = agreement(np.zeros((2, 1), bool), np.ones((2, 1), bool), np.zeros(2, bool))
    assert [float(x[0]) for x in nothing] == [0.0] * 5
