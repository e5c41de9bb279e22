"""Truncated steps, sampled, judged, chosen, executed and learned from, in a world of facts that lead to one another."""

from functools import partial

import numpy as np
import pytest
import torch

from guerdon.core import Rollouts, Scores, Tokens
from guerdon.credit import group_relative, spread
from guerdon.data import drawn, grow
from guerdon.objectives import policy_gradient

# Who is asked for leads to whom; 'c' leads nowhere, and is the answer.
FACTS = {"a": "b", "b": "c"}
WORDS = ["?a", "?b", "?c", "!a", "!b", "!c", "[b]", "[c]", "[-]"]
ACTIONS = 6
BUDGET = 4


def tokens(words):
    ids = np.array([[WORDS.index(word)] for word in words])
    there = np.ones_like(ids, bool)
    return Rollouts([""] * len(words), list(words), tokens=Tokens(ids, there, there))


class Searcher:
    """What to do next, by the last thing found: a table of logits for 'a' (asked at first), 'b', 'c' and nothing."""

    def __init__(self, seed):
        self.logits = torch.zeros(4, ACTIONS, dtype=torch.float64, requires_grad=True)
        self.generator = torch.Generator().manual_seed(seed)

    def states(self, ids):
        """The state before each token: that of the last observation, and at first 'a'."""
        found = torch.where(ids >= ACTIONS, ids - ACTIONS + 1, 0)
        place = torch.where(ids >= ACTIONS, torch.arange(1, ids.shape[1] + 1), 0).cummax(1).values
        known = torch.cat([torch.zeros_like(ids[:, :1]), found], 1)
        before = torch.cat([torch.zeros_like(ids[:, :1]), place[:, :-1]], 1)
        return known.gather(1, before)

    def logp(self, ids):
        table = self.logits.log_softmax(1)[self.states(ids)]
        return table.gather(2, ids.clamp(max=ACTIONS - 1)[..., None])[..., 0]

    def __call__(self, rows):
        ids = torch.zeros(len(rows), 1, dtype=torch.long)
        if rows.tokens is not None:
            ids = torch.cat([torch.as_tensor(rows.tokens.ids), ids], 1)
        state = self.states(ids)[torch.arange(len(rows)), torch.as_tensor(rows.lengths("characters")) // 5 * 2]
        probabilities = self.logits.detach().softmax(1)[state]
        return tokens([WORDS[i] for i in torch.multinomial(probabilities, 1, generator=self.generator)[:, 0].tolist()])


def known(text):
    """The last thing found before the step that a text ends with."""
    found = [piece[0] for piece in text.split("[")[1:]]
    return found[-1] if found else "a"


def judge(rows):
    """Ternary scores of thought and query, or of thought and answer with the bonus for an early one."""
    scores = []
    for text, step in zip(rows.completions, rows.column("step"), strict=True):
        thought = 1.0 if step[1] == known(text) else -1.0
        if step[0] == "?":
            scores.append(thought + (1.0 if step[1] in FACTS else 0.0))
        else:
            early = 0.1 * (BUDGET - text.count("[")) / BUDGET
            scores.append(thought + (1.0 if step == "!c" else -1.0) + early)
    return Scores.of(scores)


def test_slate_truncated_steps_are_sampled_judged_executed_and_learned_from():
    """The best policy asks for 'a', then for 'b', then answers 'c'; only what is drawn is searched for."""
    searched = []

    def search(rows):
        searched.extend(rows.column("step"))
        return tokens([f"[{FACTS.get(step[1], '-') if step[0] == '?' else '-'}]" for step in rows.column("step")])

    policy, rng = Searcher(0), np.random.default_rng(0)
    optimizer = torch.optim.Adam([policy.logits], lr=0.1)
    starts = Rollouts(["who?"] * 4, [""] * 4)
    answered = []
    for _ in range(60):
        searched.clear()
        forest = grow(
            starts, policy, steps=BUDGET, width=5, judge=judge, choose=partial(drawn, rng=rng), respond=search,
            ended=lambda rows: [step[0] == "!" for step in rows.column("step")],
            force=lambda rows: tokens(["!c" if known(text) == "c" else "!a" for text in rows.completions]),
        )  # fmt: skip
        paths = forest.paths().rollouts
        assert len(searched) == sum(text.count("[") for text in paths.completions)
        assert len(forest) == 5 * int(forest.taken.sum()) - 4 * sum(
            text.count("[") == BUDGET for text in paths.completions
        )
        answered.append(np.mean([text.endswith("!c") for text in paths.completions]))

        groups = torch.as_tensor(forest.rollouts.groups)
        advantages = group_relative(torch.as_tensor(forest.scores), groups, eps=1e-6)
        for group in groups.unique().tolist():  # from the definition, on the candidates of one prefix
            rows = np.flatnonzero(forest.rollouts.groups == group)
            assert len({(forest.roots[i], forest.parents[i]) for i in rows}) == 1
            own = forest.scores[rows]
            expected = (own - own.mean()) / (own.std(ddof=1) + 1e-6) if len(own) > 1 and own.std() > 0 else 0 * own
            assert advantages[rows].tolist() == pytest.approx(expected.tolist())

        made = forest.rollouts.tokens
        ids, written = torch.as_tensor(made.ids), torch.as_tensor(made.written)
        trained = spread(torch.ones(len(forest), 1), written, forest.steps, place="all") > 0
        assert trained.sum(1).tolist() == [1] * len(forest)
        placed = spread(advantages[:, None], written, forest.steps, place="all")
        logp = policy.logp(ids)
        loss, _ = policy_gradient(logp, logp.detach(), placed, trained, denominator=5.0 * len(starts))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    best = policy.logits.detach().softmax(1)[:3].max(1)
    assert [WORDS[i] for i in best.indices.tolist()] == ["?a", "?b", "!c"]
    assert (best.values > 0.8).all()
    assert np.mean(answered[:3]) < 0.7
    assert np.mean(answered[-10:]) > 0.95


def test_slate_the_policy_reads_the_state_that_the_last_search_led_to():
    ids = torch.tensor([[WORDS.index(word) for word in ("?a", "[b]", "?c", "[-]", "!a")]])
    assert Searcher(0).states(ids).tolist() == [[0, 0, 1, 1, 3]]
