"""The KL of each token in the reward, and a critic that serves one part of it, against their equations."""

import math
import statistics
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from guerdon.core import Rollouts, Scores, Spans, Tokens
from guerdon.core.errors import RecipeError
from guerdon.credit import group_relative, returns, spread
from guerdon.rewards import text
from guerdon.train import chains, presets
from guerdon.train.language.critic import targets
from guerdon.train.method import KL, Sum
from guerdon.train.scoring import credited

LOGP = np.log([[0.5, 0.4, 0.9, 0.3], [0.2, 0.6, 0.7, 0.5], [0.8, 0.1, 0.3, 0.4]])
REF = np.log([[0.4, 0.5, 0.9, 0.9], [0.3, 0.3, 0.7, 0.1], [0.2, 0.6, 0.5, 0.8]])
LENGTHS = [4, 2, 3]
SOLVED = [1.0, 0.0, 0.5]


def batch(*, values=None, groups=(0, 0, 0)):
    there = np.arange(4) < np.asarray(LENGTHS)[:, None]
    expected = None if values is None else np.asarray(values, np.float64)
    tokens = Tokens(np.full((3, 4), 5), there, there, logp=LOGP, ref_logp=REF, values=expected)
    return Rollouts(["p"] * 3, ["c"] * 3, groups=np.asarray(groups), tokens=tokens)


def steps(rows, values):
    spans = Spans.of(rows)
    numbers = np.zeros(spans.mask.shape)
    for i, row in enumerate(values):
        numbers[i, : len(row)] = row
    return Scores(numbers, spans=spans)


def of(**parts):
    whole = parts["outcome"]
    return whole.with_values(whole.read(0.0), parts=parts)


def gae(rewards, values, gamma, lam):
    """Aₜ = δₜ + γλ Aₜ₊₁, δₜ = rₜ + γ Vₜ₊₁ − Vₜ; of one rollout."""
    found, later = [0.0] * len(rewards), 0.0
    for t in reversed(range(len(rewards))):
        after = values[t + 1] if t + 1 < len(rewards) else 0.0
        later = rewards[t] + gamma * after - values[t] + gamma * lam * later
        found[t] = later
    return found


def whitened(rows):
    pooled = [x for row in rows for x in row]
    mean, scale = statistics.fmean(pooled), math.sqrt(statistics.variance(pooled) + 1e-8)
    return [[(x - mean) / scale for x in row] for row in rows]


def padded(rows, width=4):
    return np.array([[*row, *[0.0] * (width - len(row))] for row in rows])


def costs(kind="k1", beta=0.05):
    estimate = {"k1": lambda d: -d, "k2": lambda d: d**2 / 2, "k3": lambda d: math.exp(d) - 1 - d}[kind]
    return [[beta * estimate(REF[i, t] - LOGP[i, t]) for t in range(n)] for i, n in enumerate(LENGTHS)]


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_ppo_pays_the_kl_of_each_token_at_the_token(kind):
    """PPO for language: rₜ = −β KLₜ, plus the score at the last token; GAE over tokens; one scale."""
    values = [[0.3, -0.2, 0.5, 0.1], [0.0, 0.4, 9.0, 9.0], [0.2, 0.2, -0.1, 9.0]]
    rows = []
    for i, cost in enumerate(costs(kind)):
        rewards = [-x for x in cost]
        rewards[-1] += SOLVED[i]
        rows.append(gae(rewards, values[i][: LENGTHS[i]], 1.0, 0.95))
    method, rollouts = presets.load("ppo", kl={"kind": kind}), batch(values=values)
    found = credited(method, rollouts, Scores.of(SOLVED))
    np.testing.assert_allclose(found, padded(whitened(rows)), rtol=1e-6, atol=1e-9)
    learned = targets(method, rollouts, Scores.of(SOLVED))
    there = rollouts.tokens.written
    np.testing.assert_allclose(
        learned["targets"].numpy()[there], [a + v for row, own in zip(rows, values, strict=True)
                                            for a, v in zip(row, own, strict=False)], rtol=1e-5, atol=1e-7
    )  # fmt: skip


def test_the_kl_of_tokens_and_of_the_rollout_are_one_sum():
    """With plain returns the first token pays for all; the sum in the reward is paid by every token."""
    plain = {"baseline": "none", "scale": "none"}
    by_token = presets.load(
        "grpo", credit=["credit.spread", "credit.returns"], kl={"coefficient": 0.1, "place": "token"}
    )
    whole = presets.load(
        "grpo", credit={"part": "credit.group_relative", **plain}, kl={"coefficient": 0.1, "place": "reward"}
    )
    rollouts = batch()
    found, total = (credited(method, rollouts, Scores.of(SOLVED)) for method in (by_token, whole))
    np.testing.assert_allclose(found[:, 0], total, rtol=1e-9)
    np.testing.assert_allclose(found[0, 2], SOLVED[0] - sum(costs("k3", 0.1)[0][2:]), rtol=1e-9)
    assert (found[~rollouts.tokens.written] == 0).all()


def test_pure_takes_the_kl_of_each_token_from_what_follows():
    rows = [[(0, 2), (2, 4)], [(0, 2)], [(0, 1), (1, 3)]]
    scores = steps(rows, [[0.9, -0.6], [0.4], [0.5, 0.2]])
    method = presets.load("pure", kl={"coefficient": 0.05})
    without = credited(replace(method, kl=KL()), batch(), scores)
    found = credited(method, batch(), scores)
    for i, cost in enumerate(costs("k1")):
        later = [sum(cost[t:]) for t in range(len(cost))]
        np.testing.assert_allclose(found[i, : len(cost)], without[i, : len(cost)] - later, rtol=1e-6, atol=1e-9)


def test_rlfr_adds_outcome_deviation_and_kl_and_sums_what_follows():
    """Token reward = −c·deviation + advantage of the outcome at the last token − β KL; then returns with γ = 1."""
    flow = [[0.0, 0.9, 0.0, 0.3], [0.0, 0.5], [0.2, 0.0, 1.0]]
    by_tokens = steps([[(t, t + 1) for t in range(n)] for n in LENGTHS], [[-0.01 * x for x in row] for row in flow])
    mean, sigma = statistics.fmean(SOLVED), statistics.stdev(SOLVED)
    expected = []
    for i, cost in enumerate(costs("k1", 1e-3)):
        rewards = [-0.01 * x - c for x, c in zip(flow[i], cost, strict=True)]
        rewards[-1] += (SOLVED[i] - mean) / (sigma + 1e-4)
        expected.append([sum(rewards[t:]) for t in range(len(rewards))])
    found = credited(presets.rlfr, batch(), of(outcome=Scores.of(SOLVED), flow=by_tokens))
    np.testing.assert_allclose(found, padded(expected), rtol=1e-6, atol=1e-9)


def test_vsrm_pays_stretches_at_their_end_and_the_outcome_at_the_last_token():
    """acc = (.2, .2, .6, .6) pays .28, .4 and 0: the worked example, one token a stretch, the answer behind them."""
    rows = [[(0, 0), (0, 1), (1, 2), (2, 3)], [(0, 0)], [(0, 0), (0, 2)]]
    potentials = steps(rows, [[0.2, 0.2, 0.6, 0.6], [0.5], [0.5, 0.25]])
    values = [[0.1, 0.0, 0.3, 0.5], [0.4, 0.2, 0.0, 0.0], [0.1, 0.2, 0.3, 0.0]]
    paid = [[0.28, 0.4, 0.0, SOLVED[0]], [0.0, SOLVED[1]], [0.0, -0.25, SOLVED[2]]]
    expected = []
    for i, cost in enumerate(costs("k1", 1e-3)):
        expected.append(gae([r - c for r, c in zip(paid[i], cost, strict=True)], values[i][: LENGTHS[i]], 1.0, 1.0))
    parts = of(outcome=Scores.of(SOLVED), potentials=potentials)
    found = credited(presets.vsrm, batch(values=values), parts)
    np.testing.assert_allclose(found, padded(whitened(expected)), rtol=1e-6, atol=1e-9)
    learned = targets(presets.vsrm, batch(values=values), parts)
    assert learned["valued"].sum(1).tolist() == LENGTHS
    for i, row in enumerate(expected):
        wanted = [a + v for a, v in zip(row, values[i], strict=False)]
        np.testing.assert_allclose(learned["targets"][i, : len(row)], wanted, rtol=1e-5, atol=1e-7)


GAE = {"kind": "gae", "gamma": 0.9, "lam": 0.8}


def test_a_critic_in_a_sum_expects_what_its_own_chain_makes_of_its_part():
    rows = [[(0, 1), (1, 4)], [(0, 2)], [(0, 2), (2, 3)]]
    process = [[0.5, -1.0], [0.7], [0.1, 0.2]]
    values = [[0.3, -0.2, 9.0, 9.0], [0.4, 9.0, 9.0, 9.0], [0.2, 9.0, -0.1, 9.0]]
    method = presets.load(
        "grpo",
        kl={"coefficient": 0},
        credit={"sum": {"outcome": "credit.group_relative", "process": {"part": "credit.returns", **GAE}}},
    )
    parts = of(outcome=Scores.of(SOLVED), process=steps(rows, process))
    mean, sigma = statistics.fmean(SOLVED), statistics.stdev(SOLVED)
    expected, wanted = np.zeros((3, 4)), {}
    for i, row in enumerate(rows):
        own = gae(process[i], [values[i][begin] for begin, _ in row], 0.9, 0.8)
        for (begin, end), a in zip(row, own, strict=True):
            expected[i, begin:end] = a + (SOLVED[i] - mean) / (sigma + 1e-4)
            wanted[i, begin] = a + values[i][begin]
    rollouts = batch(values=values)
    np.testing.assert_allclose(credited(method, rollouts, parts), expected, rtol=1e-6, atol=1e-9)
    learned = targets(method, rollouts, parts)
    assert {tuple(x) for x in torch.nonzero(learned["valued"]).tolist()} == set(wanted)
    for place, value in wanted.items():
        assert float(learned["targets"][place]) == pytest.approx(value, rel=1e-5)


def test_a_rollout_on_which_a_part_abstains_is_no_target_of_a_critic():
    process = steps([[(0, 1), (1, 4)], [(0, 2)], [(0, 3)]], [[0.5, -1.0], [0.7], [0.1]])
    silent = process.valid & (np.arange(3) != 1)[:, None]
    process = Scores(process.read(0.0), spans=process.spans, mask=process.mask, valid=silent, reasons={1: "late"})
    method = presets.load("vl_dac", kl={"coefficient": 0}, credit={"sum": {"outcome": "credit.group_relative",
                          "process": {"part": "credit.returns", **GAE}}})  # fmt: skip
    learned = targets(method, batch(values=np.zeros((3, 4))), of(outcome=Scores.of(SOLVED), process=process))
    assert learned["valued"].any(1).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("credit", "message"),
    [
        ([spread, returns, returns], None),
        (Sum({"text.length": (spread, "gae")}), None),
        (Sum({"text.length": (spread, "gae", "gae")}), "critic: 2 parts of the credit read its values"),
        ((Sum({"text.length": (spread, "gae")}), "gae"), "critic: 2 parts of the credit read its values"),
    ],
    ids=["none", "in a sum", "twice in a chain", "in a sum and behind it"],
)
def test_one_critic_serves_one_part_of_the_credit(credit, message):
    def built(one):
        if isinstance(one, Sum):
            return Sum({name: built(chain) for name, chain in one.chains.items()})
        if isinstance(one, list | tuple):
            return tuple(built(x) for x in one)
        return partial(returns, kind="gae") if one == "gae" else one

    method = replace(presets.grpo, credit=built(credit), kl=KL())
    if message is None:
        chains.check(method, text.length(), critic=True)
        return
    with pytest.raises(RecipeError, match=message):
        chains.check(method, text.length(), critic=True)


def test_a_kl_of_tokens_needs_values_of_tokens():
    kl = KL(0.1, place="token")
    with pytest.raises(RecipeError, match=r"method\.kl\.place: the KL of a token is taken .* has one per rollout: put"):
        chains.check(replace(presets.grpo, credit=group_relative, kl=kl), text.length())
    chains.check(replace(presets.grpo, credit=(group_relative, spread), kl=kl), text.length())
