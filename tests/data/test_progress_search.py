"""Values of prefixes labelled by completing them, learned, and used: in search and as rewards of steps.

The world: eight letters of four are written one by one, and the answer is right if 'abcda' is a subsequence of them.
"""

from functools import partial

import numpy as np
import pytest
import torch

from guerdon.core import Rollouts, Scores
from guerdon.core.spans import Spans
from guerdon.credit import best_of, group_relative, progress
from guerdon.data import effective_value, grow, highest, prefix_values, top_of_group
from guerdon.objectives import policy_gradient

LETTERS, PLANTED, LENGTH = "abcd", "abcda", 8


def matched(text):
    found = 0
    for letter in text:
        found += found < len(PLANTED) and letter == PLANTED[found]
    return found


def chances(policy):
    """The exact chance of success after t letters with m matched; `policy` is that of the next wanted letter."""
    q = np.zeros((LENGTH + 1, len(PLANTED) + 1))
    q[:, -1] = 1.0
    for t in reversed(range(LENGTH)):
        for m in range(len(PLANTED)):
            q[t, m] = policy[m] * q[t + 1, m + 1] + (1 - policy[m]) * q[t + 1, m]
    return q


UNIFORM = chances(np.full(len(PLANTED), 1 / len(LETTERS)))


def verify(rows):
    return Scores.of([float(matched(text) == len(PLANTED)) for text in rows.completions])


def scored(table):
    """A judge by a table of values, of the letters written and matched."""
    return lambda rows: Scores.of([float(table[len(text), matched(text)]) for text in rows.completions])


def learned(rng):
    """A value model as PAV trains one: cross-entropy to the share of right completions of the prefixes of seeds."""
    texts = ["".join(rng.choice(list(LETTERS), LENGTH)) for _ in range(150)]
    texts += ["".join(rng.permutation(list(PLANTED + "bcd"))) for _ in range(50)]  # seeds that get further
    seeds = Rollouts(["q"] * len(texts), texts)
    steps = Spans.of([[(i, i + 1) for i in range(LENGTH)]] * len(texts), unit="character")

    def complete(rows):
        return ["".join(rng.choice(list(LETTERS), LENGTH - len(text))) for text in rows.completions]

    labels = prefix_values(seeds, steps, complete, verify, samples=6)
    assert labels.valid.all()
    logits = torch.full((LENGTH + 1, len(PLANTED) + 1), -4.0, requires_grad=True)
    states = torch.tensor([[matched(text[:t]) for t in range(LENGTH + 1)] for text in texts])
    targets = torch.tensor(labels.values, dtype=torch.float32)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(200):
        predicted = logits[torch.arange(LENGTH + 1), states]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(predicted, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return logits.detach().sigmoid(), torch.zeros_like(logits).index_put(
        (torch.arange(LENGTH + 1).expand_as(states), states), torch.ones_like(targets), accumulate=True
    )


def test_pav_labels_are_learned_and_the_search_by_value_and_progress_finds_what_sampling_does_not():
    rng = np.random.default_rng(0)
    table, seen = learned(rng)
    often = (seen > 40).numpy()
    assert often.sum() >= 15
    assert np.abs(table.numpy() - UNIFORM)[often].max() < 0.12

    judge = effective_value(scored(table), scored(best_of(table, 4)), alpha=1.0)
    starts = Rollouts([f"q{i}" for i in range(100)], [""] * 100)
    policy = lambda rows: rng.choice(list(LETTERS), len(rows)).tolist()  # noqa: E731
    beams, width = 4, 3
    forest = grow(starts, policy, steps=LENGTH, width=width, judge=judge, choose=partial(highest, paths=beams))
    for node in range(0, len(forest), 997):  # what a step was judged by, from the definition
        text = forest.rollouts.completions[node]
        t, m, before = len(text), matched(text), matched(text[:-1])
        after, ahead = (1 - (1 - float(table[i, j])) ** 4 for i, j in ((t, m), (t - 1, before)))
        assert forest.scores[node] == pytest.approx(float(table[t, m]) + after - ahead, abs=1e-5)
    found = forest.paths().rollouts
    assert np.bincount(found.groups).tolist() == [beams] * 100
    best = found.select(top_of_group(scored(table)(found).read(0.0), found.groups))
    assert len(best) == 100
    searched = verify(best).mean()
    drafts = len(forest) / LENGTH / 100  # as many letters, in whole answers, with a perfect outcome reward
    sampled = 1 - (1 - UNIFORM[0, 0]) ** drafts
    assert sampled < 0.4
    assert searched > 0.75


def test_pav_progress_under_a_middling_prover_needs_several_fold_fewer_updates():
    """REINFORCE on the planted subsequence, to a success of one half: outcomes alone, and with α A^μ of Best-of-4."""

    def updates(alpha, seed):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.zeros(len(PLANTED) + 1, len(LETTERS), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([logits], lr=1.0)
        wanted = torch.tensor([LETTERS.index(c) for c in PLANTED] + [-1])
        prover = best_of(torch.tensor(UNIFORM), 4)
        mask, n = torch.ones(16, LENGTH, dtype=torch.bool), 16
        for update in range(400):
            p = logits.detach().softmax(1)
            if chances([float(p[m, wanted[m]]) for m in range(len(PLANTED))])[0, 0] >= 0.5:
                return update
            state, states, ids = torch.zeros(n, dtype=torch.long), [], []
            for _ in range(LENGTH):
                states.append(state)
                ids.append(torch.multinomial(p[state], 1, generator=generator)[:, 0])
                state = state + (ids[-1] == wanted[state])
            outcomes = (state == len(PLANTED)).double()
            states, ids = torch.stack(states, 1), torch.stack(ids, 1)
            potentials = prover[torch.arange(LENGTH + 1), torch.cat([states, state[:, None]], 1)]
            gained = progress(potentials, mask)
            assert torch.allclose(gained.sum(1), potentials[:, -1] - prover[0, 0])
            whole = group_relative(outcomes, torch.zeros(n, dtype=torch.long), scale="none")
            logp = logits.log_softmax(1)[states].gather(2, ids[..., None])[..., 0]
            loss, _ = policy_gradient(logp, logp.detach(), whole[:, None] + alpha * gained, mask, denominator=float(n))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return 400

    alone, shaped = (np.mean([updates(alpha, seed) for seed in range(3)]) for alpha in (0.0, 3.0))
    assert 3 * shaped < alone
