"""Runs whose credit reads several parts of a reward: what they learn from, written out row by row."""

import math
import re
import statistics
from itertools import pairwise

import numpy as np
import pytest
import torch
from stopping import equal, last, metrics, stopped

from guerdon.core.errors import RecipeError
from guerdon.train import checkpoint as checkpoints
from guerdon.train.language import loop
from guerdon.train.language.policy import build
from guerdon.train.run import Run

ALPHABET = "0123456789+-=;# "
OUTCOME = {"part": "format.regex", "pattern": "3", "match": "search"}
CUT = {"at": "separator", "separator": "1", "until": None}
KEEP = {"checkpoint_every": 2, "rollouts_every": 1, "rollouts": 64}


def beside(part, how):
    """A reward of steps that only credit reads: at no weight in the whole."""
    return {"of": {"reduce": part, "how": how}, "weight": 0}


def samples(folder):
    """The kept rollouts of each step."""
    return [sample for _, sample in Run(folder).rollouts()]


def steps_of(text):
    """Where the steps of a completion end: behind each run of 1 that something stands before, and at the end."""
    return [piece.end() for piece in re.finditer("1*[^1]+1*|1+", text)]


def on_tokens(data, row, text, values):
    """One value per step on the tokens of the step; a token without a character belongs to the step before it."""
    ends, found, said = steps_of(text), [0.0] * data.ids.shape[1], 0
    for t in torch.nonzero(data.mask[row]).flatten().tolist():
        said += int(data.ids[row, t]) >= 3  # 0 to 2 are special, and no character of the text
        if said:
            found[t] = values[next(k for k, end in enumerate(ends) if said <= end)]
    return found


# PRIME: outcomes and the rewards of tokens of a model that learns beside the policy.

PRIME = {
    "reward": [
        {**OUTCOME, "name": "outcome"},
        beside({"part": "models.implicit_reward", "outcome": OUTCOME, "learning_rate": 1e-2, "name": "process"}, "sum"),
    ],
    "models": {"prm": "policy"},
    "method": {"preset": "prime", "kl": {"coefficient": 0.0}, "sampling": {"rounds": 3}},
    "keep": KEEP,
}


def prime_by_hand(rows, solved):
    """Groups of four in turn: each source less the mean of the other rollouts, from each token on, summed, whitened."""
    largest = max(abs(sum(row[t:])) for row in rows for t in range(len(row))) + 1e-6
    rows = [[x / largest for x in row] for row in rows]
    means = [statistics.fmean(row) for row in rows]
    found = []
    for i, row in enumerate(rows):
        group = range(i // 4 * 4, i // 4 * 4 + 4)
        flat = len({round(means[j], 9) for j in group}) == 1
        centred = [0.0 if flat else 4 / 3 * (x - statistics.fmean(means[j] for j in group)) for x in row]
        verified = solved[i] - statistics.fmean(solved[j] for j in group if j != i)
        found.append([sum(centred[t:]) + verified for t in range(len(row))])
    pooled = [x for row in found for x in row]
    mean, scale = statistics.fmean(pooled), math.sqrt(statistics.variance(pooled) + 1e-8)
    return [[(x - mean) / scale for x in row] for row in found]


def test_prime_trains_policy_and_reward_model_from_outcomes_and_tokens(tiny, tmp_path, learned):
    recipe = tiny(**PRIME, steps=2)
    loop.train(recipe, tmp_path / "run")
    records, kept = metrics(tmp_path / "run"), samples(tmp_path / "run")
    for data, sample in zip(learned, kept, strict=True):
        expected = prime_by_hand(sample["part.process"], sample["part.outcome"])
        for i, row in enumerate(expected):
            assert data.mask[i].sum() == len(row)
            np.testing.assert_allclose(data.advantages[i, : len(row)], row, rtol=1e-4, atol=1e-4)
            assert (data.advantages[i, len(row) :] == 0).all()
    # φ begins as the reference and pays nothing; then its rewards differ from token to token.
    assert np.abs(np.concatenate(kept[0]["part.process"])).max() < 1e-6
    assert np.std(np.concatenate(kept[-1]["part.process"])) > 1e-4
    assert records[0]["models.implicit_reward/loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert any(0 < record["kept"] < 1 for record in records)
    assert any(record["rounds"] > 1 for record in records)
    whole = [np.asarray(sample["part.outcome"]).reshape(4, 4).mean(1) for sample in kept]
    assert all(((means >= 0.2) & (means <= 0.8)).all() for means in whole)
    start, end = (dict(c.weights) for c in (first(recipe), last(tmp_path / "run")))
    [state] = [state for name, state in last(tmp_path / "run").reward.items() if "implicit" in name]
    assert state["updates"] == 2
    moved = [float((state["weights"][name].cpu() - value).abs().max()) for name, value in start.items()]
    assert max(moved) > 1e-3
    assert any(not torch.equal(value, start[name]) for name, value in end.items())


def first(recipe):
    """The policy before any step, as a checkpoint has it."""
    policy, _ = build(recipe.policy, seed=recipe.seed)
    return checkpoints.Checkpoint(0, policy.state_dict(), {}, {}, {})


def test_prime_a_stopped_run_goes_on_bit_for_bit(tiny, tmp_path, monkeypatch):
    recipe = tiny(**PRIME, steps=3)
    loop.train(recipe, tmp_path / "whole")
    stopped(monkeypatch, loop.train, recipe, tmp_path / "stopped", after=2)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    assert equal(*(last(tmp_path / name).weights for name in ("stopped", "whole")))


def test_prime_says_before_any_work_which_part_of_the_reward_it_lacks(tiny):
    with pytest.raises(RecipeError, match="credit: the reward has no part 'process'"):
        tiny(**PRIME | {"reward": [{**OUTCOME, "name": "outcome"}], "models": {}})


# Potentials that are probed: the answer's probability, or the accuracy of answers forced there.


def probability(policy, prompt, answer):
    """exp of the mean log-probability of an answer, token by token, after the beginning of a document."""
    model, tokenizer = policy
    before, after = (tokenizer(x, add_special_tokens=False).input_ids for x in (prompt, answer))
    before = [tokenizer.bos_token_id, *before]
    with torch.no_grad():
        logp = model(torch.tensor([before + after])).logits[0].log_softmax(-1)
    return math.exp(statistics.fmean(float(logp[len(before) + k - 1, x]) for k, x in enumerate(after)))


def test_a_run_learns_from_probed_potentials_alone(tiny, tmp_path, learned):
    probe = {"part": "probe.likelihood", "cut": CUT, "stop": "#"}
    recipe = tiny(reward=[probe], method={"credit": ["credit.progress"]}, steps=2, keep=KEEP)
    loop.train(recipe, tmp_path / "run")
    policy = build(recipe.policy, seed=recipe.seed)
    [sample, _] = samples(tmp_path / "run")
    several = 0
    for i, (prompt, text, answer) in enumerate(
        zip(sample["prompt"], sample["completion"], sample["answer"], strict=True)
    ):
        ends = [0, *steps_of(text)] if text else [0]
        potentials = [probability(policy, prompt + text[:end] + "#", str(answer)) for end in ends]
        gains = [after - before for before, after in pairwise(potentials)]
        several += len(gains) > 1
        row = on_tokens(learned[0], i, text, gains) if gains else [0.0] * learned[0].ids.shape[1]
        np.testing.assert_allclose(learned[0].advantages[i], row, atol=1e-7)
    assert several > 3
    assert learned[1].advantages.abs().max() > 0
    before, after = first(recipe).weights, last(tmp_path / "run").weights
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


def test_vsrm_a_run_adds_the_outcome_and_what_follows_from_probed_steps(tiny, tmp_path, learned):
    """Accuracies of answers sampled at each cut; steps that change nothing share in the next change."""
    grade = {"part": "format.regex", "pattern": "#.*[0-4].*"}
    probe = {"part": "probe.accuracy", "grade": grade, "samples": 2, "max_tokens": 2, "cut": CUT, "stop": "#"}
    credit = {
        "sum": {
            "outcome": "credit.group_relative",
            "potentials": [
                {"part": "credit.progress", "lookahead": 4, "decay": 0.7, "tolerance": 1e-5},
                "credit.returns",
            ],
        }
    }
    reward = [{**OUTCOME, "name": "outcome"}, beside({**probe, "start": True, "name": "potentials"}, "last")]
    loop.train(tiny(reward=reward, method={"credit": credit}, steps=2, keep=KEEP), tmp_path / "run")
    shared = 0
    for data, sample in zip(learned, samples(tmp_path / "run"), strict=True):
        solved = sample["part.outcome"]
        for i, (text, potentials) in enumerate(zip(sample["completion"], sample["part.potentials"], strict=True)):
            group = solved[i // 4 * 4 : i // 4 * 4 + 4]
            sigma = statistics.stdev(group)
            own = (solved[i] - statistics.fmean(group)) / (sigma + 1e-4) if sigma else 0.0
            change = [after - before for before, after in pairwise(potentials)]
            paid = []
            for j in range(len(change)):
                ahead = next((k for k in range(j, min(j + 5, len(change))) if abs(change[k]) >= 1e-5), None)
                paid.append(0.0 if ahead is None else change[ahead] * 0.7 ** (ahead - j))
                shared += ahead is not None and ahead > j
            later = [sum(paid[j:]) for j in range(len(paid))]
            steps = on_tokens(data, i, text, later) if later else [0.0] * data.ids.shape[1]
            expected = np.where(data.mask[i], own + np.asarray(steps), 0.0)
            np.testing.assert_allclose(data.advantages[i], expected, atol=1e-5)
    assert shared


@pytest.mark.parametrize("preset", ["spae", "igpo", "istar"])
def test_spae_igpo_and_istar_train_by_their_names(tiny, tmp_path, learned, preset):
    probe = {"part": "probe.likelihood", "cut": CUT, "stop": "#", "name": "potentials"}
    part = {
        "spae": {**probe, "how": "mean-exp", "start": False},
        "igpo": probe,
        "istar": {
            "part": "models.implicit_reward",
            "outcome": OUTCOME,
            "loss": "dpo",
            "granularity": "step",
            "separator": "1",
            "mean": True,
            "learning_rate": 1e-2,
            "name": "process",
        },
    }[preset]
    sampling = {"group": 4} | ({"rounds": 2} if preset == "spae" else {})
    recipe = tiny(
        reward=[{**OUTCOME, "name": "outcome"}, beside(part, "sum")],
        models={"prm": "policy"},
        method={"preset": preset, "kl": {"coefficient": 0.0}, "sampling": sampling},
        max_abstain=0.5,
        steps=2,
    )
    loop.train(recipe, tmp_path / "run")
    data = learned[-1]
    rows = [set(row[there].tolist()) for row, there in zip(data.advantages, data.mask, strict=True)]
    assert any(len(row) > 1 for row in rows)  # credit within a rollout
    before, after = first(recipe).weights, last(tmp_path / "run").weights
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


IMPORTANCE = beside({"part": "probe.likelihood", "cut": CUT, "stop": "#", "start": False, "name": "importance"}, "sum")
BUDGETS = {
    "part": "probe.accuracy",
    "grade": {"part": "format.regex", "pattern": "#.*[0-4].*"},
    "samples": 2,
    "max_tokens": 2,
    "cut": {"at": "budgets", "budgets": [2, 4, 8], "until": None},
    "stop": "#",
}


@pytest.mark.parametrize(
    ("reward", "credit"),
    [
        ([OUTCOME], ["credit.tree_rewards", "credit.fork_relative"]),
        (
            [{**OUTCOME, "pattern": "[2-9]"}, IMPORTANCE],
            ["credit.redistribute", {"part": "credit.spread", "place": "last"}, "credit.returns"],
        ),
        ([BUDGETS], {"part": "credit.budget_relative", "prior": [0.2, 0.3, 0.5]}),
        ([OUTCOME], [{"part": "credit.group_relative"}, {"part": "credit.spread", "place": "all"}, "credit.smooth"]),
    ],
    ids=["forks", "importance", "budgets", "windows"],
)
def test_forks_shares_budgets_and_windows_train(tiny, tmp_path, learned, reward, credit):
    loop.train(tiny(reward=reward, method={"credit": credit}, max_abstain=0.5, steps=1), tmp_path / "run")
    [data] = learned
    assert data.advantages.shape == data.ids.shape
    rows = [set(row[there].tolist()) for row, there in zip(data.advantages, data.mask, strict=True)]
    assert any(len(row) > 1 for row in rows)
