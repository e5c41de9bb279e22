"""Rollouts that fork at their steps, evaluated at their ends and learned from, in a world of sums with tools."""

from functools import partial

import numpy as np
import pytest
import torch

from guerdon.core import Rollouts, Tokens
from guerdon.credit import branches, fork_relative, group_relative, shared_once, spread, tree_rewards
from guerdon.data import forked, grow
from guerdon.objectives import policy_gradient

TARGET, MOST = 3, 5  # the total to stop at, and the most steps
ACTIONS = ["+1;", "+2;", "+x;", "end"]  # '+x' does not parse
WORDS = [*ACTIONS, *(f"={n};" for n in range(2 * MOST + 1))]
PLACES = 6


def tokens(words):
    ids = np.array([[WORDS.index(word)] for word in words])
    there = np.ones_like(ids, bool)
    return Rollouts([""] * len(words), list(words), tokens=Tokens(ids, there, there))


def totals(ids):
    """The total before each token: what the tool said last."""
    said = torch.where(ids >= len(ACTIONS), ids - len(ACTIONS), -1)
    total, known = torch.zeros(len(ids), dtype=torch.long), []
    for t in range(ids.shape[1]):
        known.append(total)
        total = torch.where(said[:, t] >= 0, said[:, t], total)
    return torch.stack([*known, total], 1)


def tool(rows):
    def run(text, step):
        total = int(text.rsplit("=", 1)[1].split(";")[0]) if "=" in text else 0
        return f"={total + (int(step[1]) if step[1] != 'x' else 0)};"

    return tokens([run(text, step) for text, step in zip(rows.completions, rows.column("step"), strict=True)])


def evaluate(text):
    return float(text.endswith(f"={TARGET};end"))


def slow_credit(texts, formats, gamma):
    """Of each step of each trajectory, from the texts alone: the reward, and the advantage among its siblings."""
    trails = [
        [piece for piece in text.replace("end", "end;").split(";") if piece and piece[0] != "="] for text in texts
    ]
    through = {}
    for trail, text in zip(trails, texts, strict=True):
        for s in range(len(trail)):
            through.setdefault(tuple(trail[: s + 1]), []).append(gamma ** (len(trail) - 1 - s) * evaluate(text))
    reward = {key: np.mean(values) + formats(key[-1]) for key, values in through.items()}
    advantage = {}
    for key in reward:
        siblings = [reward[other] for other in reward if other[:-1] == key[:-1]]
        sigma = np.std(siblings, ddof=1) if len(siblings) > 1 else 0.0
        advantage[key] = (reward[key] - np.mean(siblings)) / (sigma + 1e-6) if sigma > 1e-9 else 0.0
    return [[(reward[tuple(t[: s + 1])], advantage[tuple(t[: s + 1])]) for s in range(len(t))] for t in trails]


class Caller:
    """Which tool to call, by the total: never two of the same among siblings, so that texts tell the steps apart."""

    def __init__(self):
        self.logits = torch.zeros(2 * MOST + 1, len(ACTIONS), dtype=torch.float64, requires_grad=True)
        self.rng = np.random.default_rng(0)

    def logp(self, ids):
        table = self.logits.log_softmax(1)[totals(ids)[:, :-1]]
        return table.gather(2, ids.clamp(max=len(ACTIONS) - 1)[..., None])[..., 0]

    def __call__(self, rows):
        state = torch.zeros(len(rows), dtype=torch.long)
        if rows.tokens is not None:
            state = totals(torch.as_tensor(rows.tokens.ids))[:, -1]
        chances = self.logits.detach().softmax(1)[state].numpy()
        words, before, left = [], None, {}
        for text, p in zip(rows.completions, chances, strict=True):
            if text != before:
                before, left = text, dict(zip(ACTIONS, p, strict=True))
            drawn = self.rng.choice(list(left), p=np.array(list(left.values())) / sum(left.values()))
            del left[drawn]
            words.append(drawn)
        return tokens(words)


def test_portool_a_tree_of_tool_calls_is_grown_evaluated_and_learned_from():
    """The best policy is at 3 in two calls and stops; a call that does not parse is never made."""
    policy = Caller()
    optimizer = torch.optim.Adam([policy.logits], lr=0.15)
    starts = Rollouts(["make 3"], [""])
    solved, calls = [], []
    for _ in range(90):
        forest = grow(
            starts, policy, steps=MOST, width=(3, 2), choose=partial(forked, paths=PLACES), respond=tool,
            ended=lambda rows: [step == "end" for step in rows.column("step")],
        )  # fmt: skip
        paths = forest.paths()
        made = paths.rollouts
        assert len(made) <= PLACES

        nodes = torch.as_tensor(paths.nodes)
        found = branches(made.tree, paths.steps)
        assert torch.equal(nodes.flatten()[:, None] == nodes.flatten(), found.flatten()[:, None] == found.flatten())

        outcomes = torch.tensor([evaluate(text) for text in made.completions], dtype=torch.float64)
        runs = np.array([0.0 if step == "+x;" else 0.1 for step in forest.rollouts.column("step")])
        formats = torch.as_tensor(np.where(paths.nodes >= 0, runs[paths.nodes], 0.0))
        rewards = tree_rewards(outcomes, nodes, gamma=0.95, formats=formats)
        groups = torch.as_tensor(made.groups)
        siblings = fork_relative(rewards, nodes, groups)
        for row, steps in enumerate(slow_credit(made.completions, lambda step: 0.0 if step == "+x" else 0.1, 0.95)):
            assert rewards[row, : len(steps)].tolist() == pytest.approx([r for r, _ in steps])
            assert siblings[row, : len(steps)].tolist() == pytest.approx([a for _, a in steps], abs=1e-5)

        exists = nodes >= 0
        whole = group_relative((rewards * exists).sum(1) / exists.sum(1), groups, eps=1e-6)
        written, ids = torch.as_tensor(made.tokens.written), torch.as_tensor(made.tokens.ids)
        once = spread(shared_once(nodes).double(), written, paths.steps, place="all") > 0
        assert int(once.sum()) == len({x for x in paths.nodes.flatten().tolist() if x >= 0})
        assert (ids[once] < len(ACTIONS)).all()
        logp = policy.logp(ids)
        advantages = spread(whole[:, None] + siblings, written, paths.steps, place="all")
        loss, _ = policy_gradient(logp, logp.detach(), advantages, once)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        best = [text for text in made.completions if evaluate(text)]
        solved.append(len(best) / len(made))
        calls.append(min((text.count("=") for text in best), default=MOST))
    table = policy.logits.detach()
    total, said = 0, []
    while not said or (said[-1] != "end" and len(said) < MOST):
        said.append(ACTIONS[int(table[total].argmax())])
        total += int(said[-1][1]) if said[-1][0] == "+" and said[-1][1] != "x" else 0
    assert sorted(said[:-1]) == ["+1;", "+2;"]
    assert said[-1] == "end"
    assert table[0].softmax(0)[ACTIONS.index("+x;")] < 0.1
    assert np.mean(solved[-20:]) > 2 * np.mean(solved[:20])


def test_portool_ends_with_exactly_the_trajectories_wanted():
    """Four first steps, and one fork each where there are places: what ends early keeps its place."""
    said = iter(["a", "b", "c.", "d", *"efghij", *"klmnopqr"])
    forest = grow(
        Rollouts(["q"], [""]), lambda rows: [next(said) for _ in rows.prompts], steps=3, width=(4, 2),
        choose=partial(forked, paths=5), ended=lambda rows: [text.endswith(".") for text in rows.completions],
    )  # fmt: skip
    paths = forest.paths()
    assert paths.rollouts.completions == ["c.", "aek", "afm", "bgo", "diq"]
    assert paths.nodes.tolist() == [[2, -1, -1], [0, 4, 10], [0, 5, 12], [1, 6, 14], [3, 8, 16]]
