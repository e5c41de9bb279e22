"""What a score has cost in KL: each number of an evaluation is its definition, worked out by hand or one by one."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from stopping import stopped

from guerdon.core import Rollouts, Tokens
from guerdon.core.errors import RecipeError
from guerdon.train.language import evaluation, frontier, loop
from guerdon.train.report.curves import frontier as drawn, number
from guerdon.train.run import Run

ODD = {"part": "format.regex", "pattern": "[13579]", "match": "search"}


def entropy(chances):
    return -sum(p * math.log(p) for p in chances if p)


def kl_of_two(b, a):
    """KL of a coin of b to one of a."""
    return sum(x * math.log(x / y) for x, y in ((b, a), (1 - b, 1 - a)) if x)


def economy(rewards, start=None, kl=None):
    rewards = np.array(rewards, float)
    start = rewards if start is None else np.array(start, float)
    kl = np.zeros(rewards.shape) if kl is None else np.array(kl, float)
    return frontier.economy(np.nan_to_num(rewards), kl, np.nan_to_num(start), ~np.isnan(rewards), ~np.isnan(start))


def test_bon_asymptotics_regret_is_the_kl_beyond_the_least_that_has_the_reward():
    """Two prompts of which a quarter and three quarters of the answers were right: the least over all pairs of odds."""
    start, now = [[0, 0, 0, 1], [1, 1, 1, 0]], [[0, 1, 1, 1], [1, 1, 1, 0]]
    found = economy(now, start, kl=[[0.3, 0.5, 0.7, 0.9], [0.1, 0.1, 0.1, 0.1]])
    assert found["reward"] == 0.75
    assert found["kl"] == pytest.approx(0.35)
    best = min((kl_of_two(b, 1 / 4) + kl_of_two(1.5 - b, 3 / 4)) / 2 for b in np.linspace(0.5, 1, 20001)[:-1])
    assert found["regret"] == pytest.approx(0.35 - best, abs=1e-7)
    assert best < kl_of_two(0.75, 1 / 4) / 2  # one λ for all prompts, not each as far as it went


def test_a_reward_no_better_than_at_the_start_costs_nothing_and_one_out_of_reach_has_no_price():
    start = [[0, 0, 0, 1], [0, 0, 0, 0]]
    assert economy(start, start, kl=np.full((2, 4), 0.25))["regret"] == 0.25
    assert economy([[0, 0, 0, 0], [0, 0, 0, 0]], start, kl=np.full((2, 4), 0.25))["regret"] == 0.25
    assert economy([[1, 1, 1, 1], [0, 0, 0, 1]], start)["regret"] is None
    assert economy([[1, 1, 1, 1], [0, 0, 0, 0]], start)["regret"] is None  # only by never doing anything else
    assert economy([[1, 1, 1, 0], [0, 0, 0, 0]], start)["regret"] == pytest.approx(-kl_of_two(3 / 4, 1 / 4) / 2)


def test_bon_asymptotics_best_of_is_over_all_tuples_of_the_answers():
    rewards = [[0.0, 1.0, 0.5, 0.5], [2.0, 2.0, 2.0, 2.0]]
    found = economy(rewards)["best_of"]
    assert list(found) == ["1", "2", "4"]
    for m in (1, 2, 4):
        means, costs = [], []
        for row in rewards:
            tuples = list(product(range(4), repeat=m))
            means.append(np.mean([max(row[i] for i in t) for t in tuples]))
            # Ties are shared: each level's chance, spread over its answers.
            level = {r: np.mean([max(row[i] for i in t) == r for t in tuples]) for r in set(row)}
            pmf = [level[r] / row.count(r) for r in row]
            costs.append(math.log(4) - entropy(pmf))
        assert found[str(m)]["reward"] == pytest.approx(np.mean(means))
        assert found[str(m)]["kl"] == pytest.approx(np.mean(costs), abs=1e-12)
        assert found[str(m)]["bound"] == pytest.approx(math.log(m) - (m - 1) / m)
        assert found[str(m)]["kl"] <= found[str(m)]["bound"] + 1e-12


def test_vb_vs_vf_heterogeneity_and_anti_concentration_by_hand():
    """σ² of (0, 0, 0, 1) and (0, 1, 1, 1) is 1/4; of the first one is a σ above the mean; the last does not vary."""
    found = economy([[0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    assert found["heterogeneity"] == pytest.approx((1 / 4 + 1 / 4 + 0) / 3)
    assert found["anti_concentration"] == pytest.approx((1 / 4 + 0) / 2)
    assert economy([[1, 1], [0, 0]])["anti_concentration"] is None
    assert economy([[1, 1], [0, 0]])["heterogeneity"] == 0


def test_prompts_with_an_answer_that_has_no_score_are_in_no_number():
    nan = math.nan
    found = economy([[0, 1], [1, nan], [1, 1]], [[0, 1], [0, 1], [nan, 0]], kl=[[0.2, 0.4], [9, 9], [0.6, 0.8]])
    assert found["reward"] == 0.75
    assert found["kl"] == pytest.approx(0.5)
    assert found["regret"] == pytest.approx(0.3)  # of the first alone, as at the start
    assert set(economy([[nan, 1]]).values()) == {None}
    assert frontier.curve(np.array([[0.0, 1.0]]), np.array([[True, False]])) is None


def test_the_curve_goes_from_the_start_to_the_best_and_is_least_kl():
    rewards = np.array([[0.0, 0.0, 0.3, 1.0], [0.5, 0.5, 0.5, 0.5]])
    found = frontier.curve(rewards, np.ones((2, 4), bool))
    kl, reward = np.array(found["kl"]), np.array(found["reward"])
    assert (kl[0], reward[0]) == (pytest.approx(0, abs=1e-12), pytest.approx(rewards.mean()))
    assert (kl[-1], reward[-1]) == (pytest.approx(math.log(4) / 2), pytest.approx(0.75))
    assert (np.diff(kl) >= 0).all()
    assert (np.diff(reward) >= 0).all()
    for k in (3, 12, 20):
        assert frontier.least_kl(rewards, float(reward[k])) == pytest.approx(kl[k], rel=1e-6)
    assert frontier.least_kl(100 * rewards, 100 * float(reward[12])) == pytest.approx(kl[12], rel=1e-6)


def test_the_kl_of_answers_is_that_of_the_two_policies_over_all_there_are(tiny, tmp_path, monkeypatch):
    """Every answer of at most two tokens, weighed by its chance: the estimates have the exact KL as their mean."""
    of = tiny(
        steps=3, sampling={"max_tokens": 2},
        evaluation={"prompts": 2, "samples": 2, "accuracy": ODD, "frontier": True},
    )  # fmt: skip
    jobs = []
    own = evaluation._frontier
    monkeypatch.setattr(evaluation, "_frontier", lambda job, *rest: (jobs.append(job), own(job, *rest))[1])
    loop.train(of, tmp_path / "run")
    job = jobs[-1]
    prompt, temperature = job.held_out[0]["prompt"], 0.7
    begin, size = job.tokenizer(prompt).input_ids, job.policy.config.vocab_size

    def table(ids):
        """log π of each token behind a prefix, under the policy and where it began."""
        now = (job.policy(torch.tensor([[*begin, *ids]])).logits[0, -1] / temperature).log_softmax(-1)
        with frontier.borrowed(job.policy, job.reference):
            start = (job.policy(torch.tensor([[*begin, *ids]])).logits[0, -1] / temperature).log_softmax(-1)
        return now.double(), start.double()

    with torch.no_grad():
        first = table([])
        behind = [table([k]) for k in range(size)]
    answers = [[2], *([k, j] for k in range(size) if k != 2 for j in range(size))]
    logp = [sum(x[0][i] for x, i in zip((first, behind[a[0]]), a, strict=False)).item() for a in answers]
    start = [sum(x[1][i] for x, i in zip((first, behind[a[0]]), a, strict=False)).item() for a in answers]
    exact = sum(math.exp(p) * (p - q) for p, q in zip(logp, start, strict=True))
    assert sum(map(math.exp, logp)) == pytest.approx(1.0, abs=1e-5)
    assert exact > 1e-3
    ids, there = np.zeros((len(answers), 2), int), np.zeros((len(answers), 2), bool)
    told = np.zeros((len(answers), 2))
    for i, answer in enumerate(answers):
        ids[i, : len(answer)], there[i, : len(answer)] = answer, True
        told[i, : len(answer)] = [x[0][k] for x, k in zip((first, behind[answer[0]]), answer, strict=False)]
    rollouts = Rollouts([prompt] * len(answers), [""] * len(answers), tokens=Tokens(ids, there, there, logp=told))
    each = frontier.kl_to_start(job, rollouts, temperature=temperature)
    assert (each >= 0).all()
    assert np.exp(logp) @ each == pytest.approx(exact, rel=1e-3)


@pytest.fixture
def recipe(tiny):
    """`recipe(steps=2)`: a run whose evaluations measure what they cost, of four answers to each prompt."""

    def build(evaluation=None, **changes):
        measured = {"prompts": 6, "samples": 4, "accuracy": ODD, "frontier": True, "every": 1} | (evaluation or {})
        return tiny(evaluation=measured, **changes)

    return build


def test_a_run_is_held_against_the_answers_it_began_with(recipe, tmp_path, monkeypatch):
    """The record of each evaluation, from its answers: their scores now and at first, and the KL between."""
    seen = []
    own = evaluation._frontier

    def watched(job, scores, kl, samples):
        seen.append((np.array(scores.read(0.0)).reshape(6, 4), np.array(kl).reshape(6, 4)))
        return own(job, scores, kl, samples)

    monkeypatch.setattr(evaluation, "_frontier", watched)
    summary = loop.train(recipe(steps=2), tmp_path / "run")
    records = Run(tmp_path / "run").evaluations()
    assert [record["step"] for record in records] == [0, 1, 2]
    assert (records[0]["frontier"], records[2]["frontier"]) == (
        summary["before"]["frontier"],
        summary["after"]["frontier"],
    )
    first = seen[0][0]
    assert records[0]["rewards"] == first.flatten().tolist()
    assert records[0]["frontier"]["kl"] == pytest.approx(0, abs=1e-6)
    costs = []
    for record, (rewards, kl) in zip(records, seen, strict=True):
        found = record["frontier"]
        assert (found["reward"], found["kl"]) == (pytest.approx(rewards.mean()), pytest.approx(kl.mean()))
        assert found["reward"] == pytest.approx(record["accuracy"])
        least = 0.0
        if rewards.mean() > first.mean():  # the least over odds of one λ
            shares, odds = first.mean(1), np.exp(np.linspace(0, 12, 200001))[:, None]
            tilted = shares * odds / (1 - shares + shares * odds)
            row = tilted[np.argmin(np.abs(tilted.mean(1) - rewards.mean()))]
            least = np.mean([kl_of_two(b, a) if 0 < a < 1 else 0.0 for b, a in zip(row, shares, strict=True)])
        assert found["regret"] == pytest.approx(kl.mean() - least, abs=1e-4)
        costs.append(least)
        assert found["heterogeneity"] == pytest.approx(rewards.var(1, ddof=1).mean())
    assert costs[2] > 0
    assert records[2]["frontier"]["kl"] > 0.01
    assert "rewards" not in records[1]
    assert "curve" in records[0]


def test_a_run_that_goes_on_is_held_against_the_same_answers(recipe, tmp_path, monkeypatch):
    of = recipe(steps=4, evaluation={"prompts": 4})
    loop.train(of, tmp_path / "whole")
    stopped(monkeypatch, loop.train, of, tmp_path / "stopped", after=2)
    assert Run(tmp_path / "stopped").evaluations() == Run(tmp_path / "whole").evaluations()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation": {"samples": 1}}, r"evaluation\.frontier: .*set evaluation\.samples to 2 or more"),
        ({"evaluation": {"temperature": 0}}, r"evaluation\.frontier: .*set evaluation\.temperature above 0"),
        ({"sampling": {"top_p": 0.9}}, r"evaluation\.frontier: .*sampling\.top_p to 1"),
    ],
)
def test_what_cannot_be_measured_is_said_before_any_work(recipe, changes, message):
    with pytest.raises(RecipeError, match=message):
        recipe(**changes)


def test_the_report_draws_the_run_beside_the_frontier(recipe, tmp_path):
    loop.train(recipe(steps=1), tmp_path / "run")
    first, last = Run(tmp_path / "run").evaluations()
    data = drawn([first, last])
    assert data["curve"]["kl"] == [number(x) for x in first["curve"]["kl"]]
    assert data["points"][1] == {"step": 1} | {
        name: number(last["frontier"][name]) for name in ("kl", "reward", "regret")
    }
    assert [best["m"] for best in data["best_of"]] == ["1", "2", "4"]
    assert '"frontier":{"curve":' in (tmp_path / "run" / "report.html").read_text("utf-8")
    assert drawn([{"step": 0}]) is None
    assert drawn([{"step": 0, "frontier": {"kl": 1.0}}]) is None
