"""Thinking that is cut, gone on with and answered, in worlds where it is known what each bit of it is worth."""

from itertools import product
from math import comb

import numpy as np
import pytest
import torch

from guerdon.core import Rollouts, Scores, Spans
from guerdon.credit import budget_relative, group_relative, progress, regret, spread, stretches
from guerdon.data import answer_support, cut_prefixes, grow, prefix_values, top_of_group
from guerdon.objectives import policy_gradient

# MRT. A trace is five episodes, 'a|' or 'b|', and an answer: '!1' is right. Only 'a' helps: J = min(1, #a / 3).

EPISODES, NEEDED = 5, 3


def worth(text):
    return min(1.0, text.count("a") / NEEDED)


def verify(rows):
    return Scores.of([float(text.endswith("!1")) for text in rows.completions])


def episodes(rows):
    found = [[(i, i + 2) for i in range(0, 2 * text.count("|"), 2)] for text in rows.completions]
    return Spans.of(found, unit="character")


class Thinker:
    """Writes 'a' with probability θ; when it answers, it is right with probability J."""

    def __init__(self, theta, seed):
        self.theta, self.rng = theta, np.random.default_rng(seed)

    def answer(self, rows):
        return [f"!{int(self.rng.random() < worth(text))}" for text in rows.completions]

    def think(self, rows):
        """One more episode, and the answer with the last."""
        said = ["ab"[int(self.rng.random() >= self.theta)] + "|" for _ in rows.prompts]
        whole = rows.with_(completions=[a + b for a, b in zip(rows.completions, said, strict=True)])
        answers = self.answer(whole)
        last = [text.count("|") == EPISODES for text in whole.completions]
        return [a + b * end for a, b, end in zip(said, answers, last, strict=True)]

    def traces(self, starts, width):
        ended = lambda rows: ["!" in text for text in rows.completions]  # noqa: E731
        return grow(starts, self.think, steps=EPISODES, width=(width, 1), ended=ended).paths()


def expectation(start, more, theta):
    """The exact mean of J over that many further episodes."""
    ends = map("".join, product("ab", repeat=more))
    return sum(theta ** end.count("a") * (1 - theta) ** end.count("b") * worth(start + end) for end in ends)


def curve(theta):
    """The exact J after 0, 1, … episodes."""
    rows = [expectation("", count, theta) for count in range(EPISODES + 1)]
    return torch.tensor([rows])


def regret_of(theta):
    return float(regret(curve(theta), torch.arange(EPISODES + 1) * 2.0, budget=2.0 * EPISODES))


def test_mrt_fine_tuning_on_right_traces_of_the_most_progress_lowers_the_regret():
    """STaR form: sample, probe each prefix, keep, learn from what is kept, again; beside keeping what is right."""

    def tuned(by_progress):
        policy = Thinker(0.3, 0)
        for _ in range(2):
            traces = policy.traces(Rollouts([f"q{i}" for i in range(60)], [""] * 60), 8).rollouts
            right = verify(traces).read(0.0) > 0.5
            probed = prefix_values(traces, episodes(traces), policy.answer, verify, samples=16)
            gained = progress(torch.as_tensor(probed.values), torch.as_tensor(probed.steps)).sum(1).numpy()
            exact = np.array([worth(text) for text in traces.completions])
            assert np.abs(gained - exact).mean() < 0.1  # the sum telescopes to J at the end, and J is 0 at the start
            order = gained if by_progress else np.zeros(len(traces))
            chosen = np.flatnonzero(top_of_group(order, traces.groups, mask=right))
            for row in chosen.tolist():
                assert right[row]
                assert order[row] == max(order[(traces.groups == traces.groups[row]) & right])
            kept = traces.select(chosen)
            supervised = "".join(record["completion"] for record in kept.to_records())
            policy.theta = supervised.count("a") / (supervised.count("a") + supervised.count("b"))  # its best fit
        return policy.theta

    with_progress, by_outcome = tuned(True), tuned(False)
    assert regret_of(by_outcome) < regret_of(0.3)
    assert regret_of(with_progress) < regret_of(by_outcome) - 0.03


def test_mrt_branches_from_prefixes_are_compared_with_stopping_there():
    """From a random number of episodes, go on or stop; A = outcome + α progress − the mean of those that stopped."""
    alpha, n = 1.0, 400
    policy = Thinker(0.4, 1)
    rng = np.random.default_rng(0)

    def batch(n):
        seeds = policy.traces(Rollouts([f"q{i}" for i in range(n)], [""] * n), 1).rollouts
        counts = rng.integers(0, EPISODES, (n, 1))
        prefixes = cut_prefixes(seeds, episodes(seeds), counts)
        stopped = cut_prefixes(seeds, episodes(seeds), counts, stop="#")
        on = policy.traces(prefixes, 4)
        stops = grow(stopped, policy.answer, steps=1, width=4).paths().rollouts
        whole = Rollouts.concat([on.rollouts, stops], keep_groups=True)
        probed = prefix_values(on.rollouts, episodes(on.rollouts), policy.answer, verify, samples=4)
        later = np.arange(EPISODES) >= counts[:, 0].repeat(4)[:, None]
        gained = progress(torch.as_tensor(probed.values), torch.as_tensor(probed.steps & later)).sum(1)
        bonus = torch.cat([alpha * gained, torch.zeros(len(stops), dtype=torch.float64)])
        rewards = torch.as_tensor(verify(whole).read(0.0)) + bonus
        rows = torch.arange(len(whole)) >= len(on.rollouts)
        found = group_relative(rewards, torch.as_tensor(whole.groups), scale="none", baseline_rows=rows)
        return prefixes, on, found[: len(on.rollouts)]

    prefixes, on, advantages = batch(n)
    starts = np.array(prefixes.completions).repeat(4)
    assert all(map(str.startswith, on.rollouts.completions, starts.tolist()))
    for start in ("", "a|", "b|"):
        expected = (1 + alpha) * (expectation(start, EPISODES - start.count("|"), 0.4) - worth(start))
        assert float(advantages[starts == start].mean()) == pytest.approx(expected, abs=0.15)

    logit = torch.tensor(np.log(0.4 / 0.6), requires_grad=True)
    optimizer = torch.optim.SGD([logit], lr=1.0)
    for _ in range(30):
        policy.theta = float(logit.detach().sigmoid())
        _, on, advantages = batch(24)
        texts, mask = on.rollouts.completions, torch.as_tensor(on.steps.mask)
        letters = [[texts[row][a] == "a" for a, _ in steps] for row, steps in enumerate(on.steps.rows())]
        wrote = torch.zeros(mask.shape, dtype=torch.bool)
        wrote[mask] = torch.tensor([letter for row in letters for letter in row])
        logp = torch.where(wrote, logit, -logit).sigmoid().log()
        loss, _ = policy_gradient(logp, logp.detach(), advantages, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(logit.detach().sigmoid()) > 0.75
    assert regret_of(float(logit.detach().sigmoid())) < regret_of(0.4) - 0.1


def test_mrt_the_majority_of_answers_forced_at_each_episode():
    """[maj@5]ⱼ: where one answer is right with chance J, the majority of five is with Σ_{k≥3} C(5, k) Jᵏ (1 − J)⁵⁻ᵏ."""
    policy, n = Thinker(0.5, 3), 300
    traces = Rollouts([f"q{i}" for i in range(n)], ["a|b|a|b|a|!1"] * n)
    cut = cut_prefixes(traces, episodes(traces), np.tile([1, 2, 3, 5], (n, 1)), stop="#")
    forced = grow(cut, policy.answer, steps=1, width=5).paths().rollouts
    votes = answer_support([text[-1] for text in forced.completions], forced.groups)
    chosen = forced.select(top_of_group(votes, forced.groups))
    found = verify(chosen).read(0.0).reshape(n, 4).mean(0)
    chances = [1 / 3, 1 / 3, 2 / 3, 1.0]
    expected = [sum(comb(5, k) * j**k * (1 - j) ** (5 - k) for k in (3, 4, 5)) for j in chances]
    assert found == pytest.approx(expected, abs=0.08)


# AnytimeReasoner. A thought is up to eight tokens, 'x' or '.', and is over with its third 'x'; then it is solved.

LONGEST, GROUP, SUMMARIES = 8, 8, 4
STOP = "</think>"


class Reasoner:
    """Thinks 'x' with chance σ(θ), and sums up in the form asked for, 'A', with chance σ(φ)."""

    def __init__(self, seed):
        self.theta = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
        self.phi = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
        self.rng = np.random.default_rng(seed)

    def think(self, rows):
        p, texts = float(self.theta.detach().sigmoid()), []
        for _ in rows.prompts:
            text = ""
            while len(text) < LONGEST and text.count("x") < NEEDED:
                text += "x" if self.rng.random() < p else "."
            texts.append(text)
        return texts

    def sum_up(self, rows):
        assert all(text.endswith(STOP) for text in rows.completions)
        p = float(self.phi.detach().sigmoid())
        return ["A" if self.rng.random() < p else "B" for _ in rows.prompts]


def summary_scores(rows):
    return Scores.of([float(t.endswith("A") and t.count("x") >= NEEDED) for t in rows.completions])


def anytime(theta, phi):
    """The exact chance to answer, were one stopped after 1 … 8 tokens with equal chance."""
    solved = [sum(theta ** sum(x) * (1 - theta) ** (k - sum(x)) for x in product((0, 1), repeat=k) if sum(x) >= NEEDED)
              for k in range(1, LONGEST + 1)]  # fmt: skip
    return phi * float(np.mean(solved))


def test_anytime_thoughts_are_cut_at_sampled_budgets_summed_up_and_both_policies_learn():
    policy, rng = Reasoner(0), np.random.default_rng(1)
    optimizer = torch.optim.SGD([policy.theta, policy.phi], lr=3.0)
    starts = Rollouts(["p", "q"], ["", ""])
    merged = 0
    for step in range(60):
        thoughts = grow(starts, policy.think, steps=1, width=GROUP).paths().rollouts
        lengths = torch.as_tensor(thoughts.lengths("characters"))
        budgets = torch.as_tensor(sorted([*rng.choice(LONGEST - 1, 3, replace=False) + 1, LONGEST]))
        prior = (0.25,) * 4
        spans = stretches(lengths, budgets)
        places = Spans(spans.begin.numpy(), spans.end.numpy(), spans.mask.numpy(), "character")
        cut = cut_prefixes(thoughts, places, np.tile(np.arange(1, 5), (len(thoughts), 1)), stop=STOP)
        assert cut.completions == [text[:b] + STOP for text in thoughts.completions for b in budgets.tolist()]
        summed = grow(cut, policy.sum_up, steps=1, width=SUMMARIES).paths()
        rewards = torch.as_tensor(summary_scores(summed.rollouts).read(0.0))
        cells = torch.as_tensor(summed.rollouts.groups)
        counts = torch.bincount(cells)
        merged += int((counts > SUMMARIES).sum())
        pooled = torch.zeros(len(counts), dtype=torch.float64).index_add(0, cells, rewards) / counts
        scores = pooled[cells].view(len(thoughts), 4, SUMMARIES)[:, :, 0]

        groups = torch.as_tensor(thoughts.groups)
        found = budget_relative(scores, groups, prior=prior)
        if step == 0:  # from the definition, on what was graded
            earned = scores.flip(1).cumsum(1).flip(1) / 4
            for i, s in product(range(len(thoughts)), range(4)):
                second = float(earned[groups == groups[i], s].mean())
                weights = [2.0**j for j in range(s)]
                first = sum(w * float(scores[i, j]) for j, w in enumerate(weights)) / max(sum(weights), 1) * (4 - s) / 4
                assert float(found[i, s]) == pytest.approx(float(earned[i, s]) - (s * first + (4 - s) * second) / 4)
        thinking = torch.arange(LONGEST) < lengths[:, None]
        crosses = torch.tensor([[c == "x" for c in text.ljust(LONGEST)] for text in thoughts.completions])
        logp = torch.where(crosses, policy.theta, -policy.theta).sigmoid().log()
        advantages = spread(found, thinking, spans, place="all")
        thought_loss, _ = policy_gradient(logp, logp.detach(), advantages, thinking)

        own = group_relative(rewards, cells, scale="none")
        assert torch.zeros(len(counts)).double().index_add(0, cells, own).abs().max() < 1e-9
        texts = summed.rollouts.completions
        assert [text[a:b] for text, [(a, b)] in zip(texts, summed.steps.rows(), strict=True)] == [t[-1] for t in texts]
        formed = torch.tensor([text[-1] == "A" for text in texts])
        said = torch.where(formed, policy.phi, -policy.phi).sigmoid().log()[:, None]
        summary_loss, _ = policy_gradient(said, said.detach(), own, torch.ones_like(said, dtype=torch.bool))
        optimizer.zero_grad()
        (thought_loss + summary_loss).backward()
        optimizer.step()
    theta, phi = (float(x.detach().sigmoid()) for x in (policy.theta, policy.phi))
    assert merged > 0
    assert theta > 0.7
    assert phi > 0.85
    before = anytime(float(torch.tensor(-0.5).sigmoid()), 0.5)
    assert anytime(theta, phi) > 2 * before
