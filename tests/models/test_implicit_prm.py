"""Implicit PRM from outcomes to a vote: four losses, scores of steps they never saw, and what these choose."""

import numpy as np
import pytest
import torch

from guerdon.core import Spans
from guerdon.data import answer_support, top_of_group
from guerdon.models import at_steps, fit, implicit_loss, implicit_rewards, total
from guerdon.rewards.probe.cut import Cut, cuts
from guerdon.train.language.models import LanguageModel
from guerdon.train.language.policy import ModelShape, PolicyConfig, build

AT_STEP = Cut(markers=("Step",), whole_words=False, first=0, gap=0, sentence=False, until=None)
SHAPE = ModelShape(layers=1, hidden=32, heads=2, mlp=64, context=40, alphabet="Step01234:= ", tied_embeddings=False)


def world(groups, size, rng, wrong=0.2):
    """Three digits are each to be raised by one, modulo 5; a step that errs raises by two.

    Returns prompts, responses, whether each step is right, and the answers, the three raised digits.
    """
    prompts, responses, steps, answers = [], [], [], []
    for _ in range(groups):
        digits = rng.integers(0, 5, 3)
        for _ in range(size):
            errs = rng.random(3) < wrong
            raised = (digits + 1 + errs) % 5
            prompts.append("".join(map(str, digits)) + ":")
            responses.append("".join(f"Step{a}={b} " for a, b in zip(digits, raised, strict=True)))
            steps.append(~errs)
            answers.append("".join(map(str, raised)))
    return prompts, responses, np.array(steps), answers


def auc(right, wrong):
    return float((right[:, None] > wrong).mean() + 0.5 * (right[:, None] == wrong).mean())


def scored(model, reference, prompts, responses, beta):
    """The score of each step, cut at the word 'Step'."""
    with torch.no_grad():
        rewards, mask = implicit_rewards(model, reference, prompts, responses, beta=beta)
    ends = [cuts(text, AT_STEP) for text in responses]
    spans = Spans.of([list(zip([0, *row[:-1]], row, strict=True)) for row in ends])  # a character is a token
    return at_steps(rewards, mask, spans), torch.as_tensor(spans.mask)


@pytest.mark.parametrize("kind", ["ce", "dpo", "nca", "kto"])
def test_implicit_prm_learns_from_outcomes_and_separates_right_steps_from_wrong_ones(kind):
    """A fixed labelled set, one label a response; on new responses, steps are told apart and votes get better."""
    rng, beta = np.random.default_rng(0), 0.5
    model, reference = (LanguageModel(*build(PolicyConfig(SHAPE), seed=0), micro_batch=480) for _ in range(2))
    prompts, responses, steps, _ = world(64, 8, rng)
    labels = torch.as_tensor(steps.all(1)).float()
    groups = np.repeat(np.arange(64), 8)

    def loss(rows):
        rewards, mask = implicit_rewards(
            model, reference, [prompts[i] for i in rows], [responses[i] for i in rows], beta=beta
        )
        scores = total(rewards, mask, how="sum")
        return implicit_loss(scores, labels[rows], kind=kind, groups=torch.as_tensor(groups[rows]))[0]

    losses = fit(model.parameters(), loss, len(prompts), learning_rate=5e-3, epochs=6, batch=64, groups=groups.tolist())
    assert np.mean(losses[-6:]) < 0.95 * losses[0]
    prompts, responses, steps, answers = world(60, 8, np.random.default_rng(1), wrong=0.45)
    values, exists = scored(model, reference, prompts, responses, beta)
    values = values.numpy()
    assert auc(values[steps], values[~steps]) > 0.9
    best = total(torch.as_tensor(values), exists, how="min").numpy()
    groups, right = np.repeat(np.arange(60), 8), steps.all(1)
    solvable = np.bincount(groups, right) > 0

    def accuracy(support):
        return right[top_of_group(support, groups)][solvable].mean()

    majority = accuracy(answer_support(answers, groups))
    weighted = accuracy(answer_support(answers, groups, weights=1 / (1 + np.exp(-best))))
    assert accuracy(best) > majority + 0.1
    assert weighted > majority + 0.1


def test_implicit_prm_without_a_reference_is_beta_times_the_log_probability():
    model = LanguageModel(*build(PolicyConfig(SHAPE), seed=0))
    rewards, mask = implicit_rewards(model, None, ["3:"], ["Step4"], beta=0.05)
    said = model.logprobs(["3:"], ["Step4"])
    assert torch.allclose(rewards, 0.05 * said.logp)
    assert mask.all()
    with pytest.raises(ValueError, match=r"completions\[0\] cannot be read"):
        implicit_rewards(model, model, ["3:"], ["?"])
