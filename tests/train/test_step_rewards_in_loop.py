"""Runs that learn from rewards of steps: subgoals that a judge marks, and an outcome that is taken apart."""

import math
import re
import statistics

import judging
import numpy as np
import pytest
import torch
from stopping import equal, last, metrics, stopped

from guerdon import Context, Rollouts
from guerdon.core.errors import RecipeError
from guerdon.models import decomposed_return, subgoal_rewards
from guerdon.train import recipe as recipes
from guerdon.train.language import loop
from guerdon.train.run import Run

WITH_3 = {"part": "format.regex", "pattern": "3", "match": "search"}
OUTCOME = {**WITH_3, "name": "outcome"}
CUT = {"at": "separator", "separator": "1", "until": None}
KEEP = {"checkpoint_every": 2, "rollouts_every": 1, "rollouts": 64}


@pytest.fixture
def build(tiny):
    """`build(reward=…, method=…)`: the tiny recipe, with functions of the tests."""

    def made(**changes):
        data = tiny(keep=KEEP, max_abstain=0.5).data()
        return recipes.from_data(data | changes, allow_import=True)

    return made


def train(recipe, folder):
    return loop.train(recipe, folder, allow_import=True)


def beside(part):
    """A reward of steps that only credit reads: at no weight in the whole."""
    return {"of": {"reduce": part, "how": "last"}, "weight": 0}


def by_steps(credit):
    """GRPO with a chain of credit for the part 'steps' alone."""
    return {
        "preset": "grpo",
        "kl": {"coefficient": 0.0},
        "sampling": {"group": 4},
        "credit": {"sum": {"steps": credit}},
    }


def samples(folder):
    """The kept rollouts of each step."""
    return [sample for _, sample in Run(folder).rollouts()]


def steps_of(text):
    """The steps of a completion: each ends behind a run of 1 that something stands before, or at the end."""
    return re.findall("1*[^1]+1*|1+", text)


def on_tokens(data, row, text, values):
    """One value per step on the tokens of the step; a token without a character belongs to the step before it."""
    ends, found, said = np.cumsum([len(step) for step in steps_of(text)]), np.zeros(data.ids.shape[1]), 0
    for t in torch.nonzero(data.mask[row]).flatten().tolist():
        said += int(data.ids[row, t]) >= 3  # 0 to 2 are special, and no character of the text
        if said:
            found[t] = values[next(k for k, end in enumerate(ends) if said <= end)]
    return found


# CALM: subgoals


def subgoals(**options):
    return {"part": "models.subgoal_rewards", "judge": "judging.achieved", "cut": CUT, "name": "steps", **options}


GOALS = {"subgoals": ["7", "8"], "weights": [1.0, 0.5]}


def paid(text, pay):
    """What each step earns: w of the goals in it, unless one is paid before; as a potential, of Σ w = 1.5."""
    done, found = set(), []
    for step in steps_of(text):
        here = {goal for goal in "78" if goal in step}
        found.append(sum({"7": 1.0, "8": 0.5}[goal] for goal in (here if pay == "always" else here - done)))
        done |= here
    return [x / 1.5 for x in found] if pay == "potential" else found


def against_group(outcomes):
    """(R − mean) / (σ + 1e-4) over the rollouts that have a score; 0 for those without."""
    there = [x for x in outcomes if x is not None]
    sigma = statistics.stdev(there) if len(there) > 1 else 0.0
    return [0.0 if x is None or not sigma else (x - statistics.fmean(there)) / (sigma + 1e-4) for x in outcomes]


@pytest.mark.parametrize("pay", ["once", "always", "potential"])
def test_calm_a_run_pays_each_subgoal_where_it_is_first_achieved(build, tmp_path, learned, pay):
    """r'ₜ = rₜ + Σ_g w_g 1[g]: the outcome against its group, plus what is paid from each step on."""
    method = by_steps(["credit.progress", "credit.returns"] if pay == "potential" else "credit.returns")
    method["credit"]["sum"]["outcome"] = "credit.group_relative"
    train(build(reward=[OUTCOME, beside(subgoals(**GOALS, pay=pay))], method=method), tmp_path / "run")
    handed_on = 0
    for data, sample in zip(learned, samples(tmp_path / "run"), strict=True):
        texts, scored = sample["completion"], [bool(text) or pay == "potential" for text in sample["completion"]]
        outcomes = [x if there else None for x, there in zip(sample["part.outcome"], scored, strict=True)]
        own = [x for i in range(0, len(texts), 4) for x in against_group(outcomes[i : i + 4])]
        for i, text in enumerate(texts):
            bonus = paid(text, pay)
            shown = np.cumsum([0.0, *bonus]) if pay == "potential" else bonus
            np.testing.assert_allclose(sample["part.steps"][i], shown, atol=1e-6)
            later = [sum(bonus[k:]) for k in range(len(bonus))]
            steps = on_tokens(data, i, text, later) if bonus else 0.0
            expected = np.where(data.mask[i], own[i] + steps, 0.0)
            np.testing.assert_allclose(data.advantages[i], expected, atol=1e-5)
            handed_on += len(set(later)) > 1
    assert handed_on > 1
    assert [row["steps.achieved"] for row in sample["details"]] == [
        [[goal for goal in "78" if goal in step] for step in steps_of(text)] for text in texts
    ]


def test_calm_a_policy_learns_to_achieve_its_subgoals(build, tmp_path):
    """From what a judge pays alone: of two subgoals it first achieves one at every second time, then nearly both."""
    reward = beside(subgoals(subgoals=["7", "8"]))
    fast = {"learning_rate": 0.03}
    train(build(reward=reward, method=by_steps("credit.returns"), steps=12, optimizer=fast), tmp_path / "run")
    done = [statistics.fmean(("7" in t) + ("8" in t) for t in x["completion"]) for x in samples(tmp_path / "run")]
    assert done[0] < 0.8
    assert statistics.fmean(done[-3:]) > 1.2


def test_calm_a_subgoal_that_is_repeated_is_not_farmed():
    batch = Rollouts(["?"], ["71;71;71"])
    totals = {
        pay: subgoal_rewards(judge=judging.achieved, subgoals=("7", "8"), pay=pay, cut={**CUT, "separator": ";"})
        .score(batch)
        .read(math.nan)[0]
        .tolist()
        for pay in ("once", "always", "potential")
    }
    assert totals == {"once": [1, 0, 0], "always": [1, 1, 1], "potential": [0, 0.5, 0.5, 0.5]}


def test_calm_what_a_judge_does_not_say_is_no_zero():
    """From a step on that was not judged, it is not known what is first; a list that cannot be read is not judged."""

    def judge(questions):
        return ["?" if "?" in q["step"] else str([int(goal in q["step"]) for goal in q["subgoals"]]) for q in questions]

    texts, lists = ["7;?;8", "7;8", "7", ""], {"subgoals": [["7", "8"], "To do:\n1. 8\n2. 7\n3. 9", "none", ["7"]]}
    cut = {**CUT, "separator": ";"}
    scores = subgoal_rewards(judge=judge, cut=cut).score(Rollouts(["?"] * 4, texts, lists))
    assert scores.to_columns()["score"] == [[1.0, None, None], [1.0, 1.0], [None], []]
    assert scores.reasons == {
        0: "step 1: the judge gave no 2 marks: '?'",
        2: "subgoals is not a list of texts: 'none'",
    }
    scores = subgoal_rewards(judge=judge, cut=cut, pay="potential").score(Rollouts(["?"] * 4, texts, lists))
    assert scores.to_columns()["score"] == [
        [0.0, 0.5, None, None], pytest.approx([0.0, 1 / 3, 2 / 3]), [None, None], [0.0],
    ]  # fmt: skip
    always = subgoal_rewards(judge=judge, cut=cut, pay="always").score(Rollouts(["?"] * 4, texts, lists))
    assert always.to_columns()["score"][0] == [1.0, None, 1.0]


def test_calm_turns_are_shown_with_what_came_of_them():
    asked = []

    def judge(questions):
        asked.extend(questions)
        return ["yes" if "key" in q["after"][0]["content"] else "no" for q in questions]

    said = [("look", "a hall"), ("take", "you have a key")]
    chat = [m for a, b in said for m in ({"role": "assistant", "content": a}, {"role": "tool", "content": b})]
    scores = subgoal_rewards(judge=judge, subgoals=("a key",)).score(Rollouts(["go"], [chat]))
    assert scores.read(math.nan).tolist() == [[0.0, 1.0]]
    assert asked[1] == {
        "prompt": "go", "before": chat[:2], "step": "take", "after": chat[3:], "subgoals": ["a key"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subgoals": []}, "distinct texts, at least one"),
        ({"subgoals": ["7", "7"]}, "distinct texts, at least one"),
        ({"subgoals": ["7"], "weights": [1.0, 2.0]}, "one positive number for each of 1 subgoals"),
        ({"subgoals": ["7"], "weights": [-1.0]}, "one positive number for each of 1 subgoals"),
        ({"weights": [1.0]}, "weights are of subgoals that are named here"),
        ({"subgoals": ["7"], "pay": "twice"}, "did you mean 'once'|is not a choice"),
        ({"subgoals": ["7"], "cut": {"at": "lines"}}, "is not a choice"),
        ({"subgoals": ["7"], "judge": "judging.nobody"}, "there is no part 'judging.nobody'"),
    ],
)
def test_calm_what_cannot_be_is_said_before_any_work(build, options, message):
    with pytest.raises(RecipeError, match=f"models.subgoal_rewards.*(?:{message})|(?:{message})"):
        build(reward=beside(subgoals(**options)), method=by_steps("credit.returns"))


# LaRe: a return taken apart


def taken_apart(**options):
    return {
        "part": "models.decomposed_return", "factors": "judging.digits", "outcome": WITH_3, "cut": CUT, "name": "steps",
        **options,
    }  # fmt: skip


def read(text):
    """The factors of each step: whether it has a 3, how many even digits, a quarter of its length."""
    return [[float("3" in s), float(sum(c in "02468" for c in s)), len(s) / 4] for s in steps_of(text)]


def test_lare_a_run_learns_step_rewards_from_outcomes_and_is_paid_by_them(build, tmp_path, learned):
    """L = meanᵢ (Rᵢ/Tᵢ − meanₜ rₜ)², rₜ = w·zₜ + b from w = b = 0: Adam's first step is −η g / (|g| + 1e-8)."""
    rate = 0.01
    reward = [OUTCOME, beside(taken_apart(hidden=[], samples=None, learning_rate=rate))]
    train(build(reward=reward, method=by_steps(["credit.spread", "credit.returns"])), tmp_path / "run")
    first, second = samples(tmp_path / "run")
    rows = [(read(t), r) for t, r in zip(first["completion"], first["part.outcome"], strict=True) if t]
    slope = np.zeros(4)
    for factors, outcome in rows:
        mean = np.append(np.mean(factors, 0), 1.0)  # of the factors, and of the 1 that b belongs to
        slope += -2 * outcome / len(factors) * mean / len(rows)
    loss = statistics.fmean((outcome / len(factors)) ** 2 for factors, outcome in rows)
    assert metrics(tmp_path / "run")[0]["models.decomposed_return/loss"] == pytest.approx(loss, rel=1e-5)
    weights = -rate * slope / (np.abs(slope) + 1e-8)
    assert weights.any()
    for data, sample, w in zip(learned, (first, second), (np.zeros(4), weights), strict=True):
        for i, text in enumerate(sample["completion"]):
            values = [float(np.dot(w[:3], z) + w[3]) for z in read(text)]
            np.testing.assert_allclose(sample["part.steps"][i], values, atol=1e-7)
            # At the last token of its step, and so from each token on what the steps that are not over are worth.
            later = [sum(values[k:]) for k in range(len(values))]
            expected = on_tokens(data, i, text, later) if text else np.zeros(data.ids.shape[1])
            np.testing.assert_allclose(data.advantages[i], expected, atol=1e-6)
    assert (learned[0].advantages == 0).all()
    assert learned[1].advantages.abs().max() > 0


def test_lare_a_stopped_run_goes_on_bit_for_bit(build, tmp_path, monkeypatch):
    reward = [OUTCOME, beside(taken_apart(hidden=[8], samples=2, updates=3, learning_rate=0.01))]
    recipe = build(reward=reward, method=by_steps(["credit.spread", "credit.returns"]), steps=3)
    train(recipe, tmp_path / "whole")
    stopped(monkeypatch, train, recipe, tmp_path / "stopped", after=2)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    whole, again = (last(tmp_path / name) for name in ("whole", "stopped"))
    assert equal(whole.weights, again.weights)
    [one], [other] = ([x for k, x in c.reward.items() if "decomposed" in k] for c in (whole, again))
    assert one["updates"] == other["updates"] == 3
    assert equal(one["weights"], other["weights"])


def test_lare_the_reward_comes_to_stand_where_the_outcome_is_made(build, tmp_path):
    """Right is what has a 3 somewhere: it is learned that a step with one is worth 1, and the policy learns from it."""
    reward = [OUTCOME, beside(taken_apart(hidden=[], updates=12, learning_rate=0.03))]
    train(build(reward=reward, method=by_steps(["credit.spread", "credit.returns"]), steps=16), tmp_path / "run")
    kept = samples(tmp_path / "run")
    worth = {True: [], False: []}
    for sample in kept[-5:]:
        for text, values in zip(sample["completion"], sample["part.steps"], strict=True):
            for step, value in zip(steps_of(text), values, strict=True):
                worth["3" in step].append(value)
    with_it, without = (statistics.fmean(worth[x]) for x in (True, False))
    assert with_it > 0.7
    assert abs(without) < 0.3
    right = [statistics.fmean(sample["part.outcome"]) for sample in kept]
    assert statistics.fmean(right[-3:]) > statistics.fmean(right[:3]) + 0.3


def leaf(**options):
    outcome = {"part": "math.answer"}
    cut = {**CUT, "separator": ";"}
    return decomposed_return(
        judging.digits, outcome=outcome, cut=cut, **{"hidden": (4,), "learning_rate": 0.01} | options
    )


def test_lare_rollouts_without_an_outcome_or_factors_teach_nothing():
    """The same weights, bit for bit, as without them."""
    texts = ["3;2;#3", "4;4", "3;#4", "", "2;3"]
    answers = ["3", "4", None, "3", "3"]
    weights = []
    for rows in ([0, 1, 2, 3, 4], [0, 1, 4]):
        learner, context = leaf(samples=2, updates=3), Context(step=1)
        batch = Rollouts(["?"] * len(rows), [texts[i] for i in rows], {"answer": [answers[i] for i in rows]})
        learner.update(batch, learner.score(batch, context).parts[learner.name], context)
        weights.append(learner.state_dict()["weights"])
    assert equal(*weights)
    learner = leaf()
    batch = Rollouts(["?"], ["3"], {"answer": [None]})
    assert learner.update(batch, learner.score(batch).parts[learner.name], Context(step=1)) == {}
    assert learner.state_dict() == {}


def test_lare_factors_are_verified():
    batch = Rollouts(["?"] * 2, ["3;2", "44"], {"answer": ["3", "4"]})

    def scored(factors):
        return decomposed_return(factors, cut={**CUT, "separator": ";"}).score(batch)

    scores = scored(lambda steps: [[1.0, math.nan if s["step"] == "2" else 0.0] for s in steps])
    assert scores.reasons == {0: "step 1: its factors are not finite numbers"}
    assert scores.to_columns()["score"] == [[0.0, None], [0.0]]
    assert scored(lambda steps: ["word"] * len(steps)).abstained_rows == [0, 1]
    for factors, why in (
        (lambda steps: [[1.0]], "factors gave 1 lists of numbers for 3 steps"),
        (lambda steps: [[1.0] * len(s["step"]) for s in steps], "factors are as many numbers for each step"),
        (lambda steps: [[]] * len(steps), "factors are as many numbers for each step"),
        (lambda steps: 1 / 0, "ZeroDivisionError"),
    ):
        scores = scored(factors)
        assert scores.abstained_rows == [0, 1]
        assert why in scores.reasons[0]


def test_lare_sampled_steps_are_learned_from_as_the_whole_rollout_is():
    """20 fixed rewards of which 5 are drawn: the corrected loss is the whole one's in the mean, the plain one's above.

    By the variance of a mean of 5 of 20: σ² / 5 · (1 − 5 / 20), σ² with 20 − 1.
    """
    rewards, many = np.random.default_rng(0).normal(size=20).astype(np.float32), 1000
    batch = Rollouts(["?"] * many, [";".join("3" * 20)] * many)
    found = {}
    for unbiased in (True, False):
        learner = decomposed_return(
            lambda steps: np.tile(rewards, many)[:, None], outcome={"part": "text.length", "unit": "words"},
            cut={**CUT, "separator": ";"}, hidden=(), samples=5, unbiased=unbiased,
        )  # fmt: skip
        scores = learner.score(batch).parts[learner.name]
        learner.update(batch, scores, Context(step=0))
        weights = {"layers.0.weight": torch.ones(1, 1), "layers.0.bias": torch.zeros(1)}
        state = learner.state_dict() | {"weights": weights}
        losses = []
        for step in (1, 2, 1):
            learner.load_state_dict(state)
            losses.append(learner.update(batch, scores, Context(step=step))["loss"])
        assert losses[0] == losses[2] != losses[1]  # each training step draws anew, and the same again
        found[unbiased] = losses[0]
    whole = float(1 / 20 - rewards.mean()) ** 2  # the text is one word
    spread = float(rewards.var(ddof=1)) / 5 * (1 - 5 / 20)
    assert found[True] == pytest.approx(whole, abs=0.15 * spread)
    assert found[False] == pytest.approx(whole + spread, abs=0.15 * spread)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"updates": 0}, "wants updates, samples and the widths of hidden of at least 1"),
        ({"samples": 0}, "wants updates, samples and the widths of hidden of at least 1"),
        ({"hidden": [0]}, "wants updates, samples and the widths of hidden of at least 1"),
        ({"learning_rate": 0.0}, "a learning_rate above 0"),
        ({"outcome": {"part": "math.steps"}}, "an outcome is one score per rollout"),
        ({"cut": {"at": "separator", "separator": ""}}, "separator is empty"),
        ({"factors": "judging.nothing"}, "there is no part 'judging.nothing'"),
    ],
)
def test_lare_what_cannot_be_is_said_before_any_work(build, options, message):
    with pytest.raises(RecipeError, match=message):
        build(reward=beside(taken_apart(**options)), method=by_steps("credit.returns"))


def test_lare_functions_are_named_only_where_imports_are_allowed(build):
    recipe = build(reward=beside(taken_apart()), method=by_steps("credit.returns"))
    assert recipes.from_data(recipe.data(), allow_import=True) == recipe
    with pytest.raises(RecipeError, match=r"factors: there is no part 'judging\.digits'"):
        recipes.from_data(recipe.data())
