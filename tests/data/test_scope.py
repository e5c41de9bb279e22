"""SCOPE whole: step scores, the first error, a mended step, a verified finish, the group's advantages, the loss."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from guerdon.core import Rollouts, Scores
from guerdon.core.spans import split
from guerdon.credit import group_relative, locate, repairable, spread
from guerdon.data import mend
from guerdon.objectives import clip, hybrid_policy_gradient

STEPS, HARD, WIDTH = 4, 2, 3  # characters of a step: a digit, 1 for right, and a blank line
CHANCE = 0.003  # of getting the hard step right

# The policy's own tokens by PPO's clip, the mender's by π/(π + 0.1) of what the policy makes of them.
objective = partial(
    hybrid_policy_gradient,
    clip=clip.ppo,
    external_ratio="probability",
    external_clip=clip.saturating,
    exponent=0.0,
    aggregate="token-mean",
)


def texts_of(digits):
    return ["".join(f"{int(digit)}\n\n" for digit in row) for row in digits]


def digits_of(texts):
    return torch.tensor([[int(step) for step in text.split()] for text in texts])


def solved(rollouts):
    return Scores.of([float(text == "1\n\n" * STEPS) for text in rollouts.completions])


def fixed(rollouts):
    return ["1\n\n"] * len(rollouts)


class Policy:
    """A digit for each step, drawn by itself: nearly always right but at the hard step."""

    def __init__(self, seed=0):
        self.logits = torch.logit(torch.tensor([0.9, 0.9, CHANCE, 0.9], dtype=torch.float64)).requires_grad_()
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, n):
        chances = self.logits.detach().sigmoid().expand(n, STEPS)
        return torch.bernoulli(chances, generator=self.generator)

    def complete(self, rollouts):
        drawn = texts_of(self.draw(len(rollouts)))
        return [text[len(begun) :] for text, begun in zip(drawn, rollouts.completions, strict=True)]

    def logp(self, texts):
        right = digits_of(texts).bool()
        return torch.where(
            right, torch.nn.functional.logsigmoid(self.logits), torch.nn.functional.logsigmoid(-self.logits)
        )


def repaired(batch, complete, *, judge=None, tries=1):
    """The batch with what could be mended, and True at the tokens (one for each step) that the mender wrote."""
    steps = split(batch.completions)
    outcomes = torch.as_tensor(solved(batch).read(0.0))
    scores = 0.1 + 0.8 * digits_of(batch.completions) if judge is None else judge
    first = locate(scores, torch.as_tensor(steps.mask), below=0.5)
    worth = repairable(first, torch.as_tensor(steps.counts), outcomes, torch.as_tensor(batch.groups))
    found = mend(batch, steps, torch.where(worth, first, -1).numpy(), fixed, complete, solved, tries=tries, answer=None)
    mended, foreign = found.swapped(batch)
    offsets = np.broadcast_to(WIDTH * np.arange(STEPS)[:, None] + [0, WIDTH], (len(batch), STEPS, 2))
    there = torch.ones(len(batch), STEPS, dtype=torch.bool)
    spans = foreign.to_tokens(offsets)
    return mended, spread(torch.ones(spans.mask.shape), there, spans, place="all") > 0


def test_scope_from_step_scores_to_the_gradient():
    """Scores .9 .8 .3 .7: h* = 3, two steps kept; of G = 8 failures one is mended: +2.475, −.354; then each token.

    The mended row's gradient is A · dπ/(π + γ) at the mender's token, and A · dlog π at the others.
    """
    batch = Rollouts(["x"] * 8, texts_of([[1, 1, 0, 1]] + [[0, 0, 0, 0]] * 7))
    judged = torch.tensor([[0.9, 0.8, 0.3, 0.7]] + [[0.1, 0.9, 0.9, 0.9]] * 7)
    before = group_relative(torch.as_tensor(solved(batch).read(0.0)), torch.as_tensor(batch.groups))
    assert before.tolist() == [0.0] * 8
    mended, external = repaired(batch, lambda r: ["1\n\n"] * len(r), judge=judged)
    assert mended.completions[0] == batch.completions[0][: 2 * WIDTH] + "1\n\n1\n\n"
    assert mended.completions[1:] == batch.completions[1:]
    assert external.tolist() == [[False, False, True, False]] + [[False] * 4] * 7

    advantages = group_relative(torch.as_tensor(solved(mended).read(0.0)), torch.as_tensor(mended.groups), eps=0.0)
    assert advantages.tolist() == pytest.approx([2.475] + [-0.354] * 7, abs=1e-3)
    policy = Policy()
    logp = policy.logp(mended.completions)
    logp = logp.detach().requires_grad_()
    loss, sums = objective(logp, logp, advantages, torch.ones(8, 4, dtype=torch.bool), external=external)
    loss.backward()
    assert int(sums["external"]) == 1
    expected = -advantages[:, None].expand(8, 4) / 32
    slope = 0.1 * CHANCE / (CHANCE + 0.1) ** 2
    torch.testing.assert_close(logp.grad, torch.where(external, slope * expected, expected))


def updates(mending, seed, most=100):
    """Updates on groups of 8 until the hard step is right nine times of ten."""
    policy = Policy(seed)
    optimizer = torch.optim.SGD([policy.logits], lr=8.0)
    for update in range(1, most):
        batch = Rollouts(["x"] * 8, texts_of(policy.draw(8)))
        external = torch.zeros(8, STEPS, dtype=torch.bool)
        if mending:
            batch, external = repaired(batch, policy.complete)
        advantages = group_relative(torch.as_tensor(solved(batch).read(0.0)), torch.as_tensor(batch.groups))
        logp = policy.logp(batch.completions)
        loss, _ = objective(logp, logp, advantages, torch.ones(8, STEPS, dtype=torch.bool), external=external)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if float(policy.logits.detach()[HARD].sigmoid()) > 0.9:
            return update
    return most


def test_scope_learns_a_hard_step_that_plain_groups_hardly_ever_see_done_right():
    mended, plain = ([updates(mending, seed) for seed in (1, 3)] for mending in (True, False))
    assert 1.5 * max(mended) < min(plain), (mended, plain)


def test_scope_without_an_accepted_repair_is_the_plain_update():
    batch = Rollouts(["x"] * 2, texts_of([[1, 1, 1, 1], [1, 1, 0, 0]]))
    mended, external = repaired(batch, lambda r: ["0\n\n"] * len(r))
    assert mended is batch
    assert not external.any()


@given(st.floats(-20, 0), st.floats(-3, 3), st.floats(0.01, 2))
def test_saturating_is_its_formula_with_its_slope(logp, advantage, gamma):
    """f(π) = π/(π + γ), and γπ/(π + γ)² · A towards log π; in plain Python."""
    x = torch.tensor([[logp]], dtype=torch.float64, requires_grad=True)
    found = clip.saturating(x.exp(), x, torch.tensor([[advantage]], dtype=torch.float64), gamma=gamma)
    found.value.sum().backward()
    pi = math.exp(logp)
    assert float(found.value.detach()) == pytest.approx(pi / (pi + gamma) * advantage)
    assert float(x.grad) == pytest.approx(gamma * pi / (pi + gamma) ** 2 * advantage, abs=1e-12)
    assert not (found.low | found.high).any()


def test_saturating_refuses_a_gamma_that_is_none():
    with pytest.raises(ValueError, match="gamma must be positive"):
        clip.saturating(torch.ones(1, 1), torch.zeros(1, 1), torch.ones(1, 1), gamma=0.0)
