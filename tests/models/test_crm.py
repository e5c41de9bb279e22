"""CRM and CRF end to end: a scorer that is trained to rate, the reward it gates, and the collapse it avoids."""

import math

import numpy as np
import pytest

from guerdon import Context, Rollouts, reward
from guerdon.algebra import product
from guerdon.data import collapses
from guerdon.models import concise, demonstrations, discriminative, fit, language_loss
from guerdon.train.language.models import LanguageModel
from guerdon.train.language.policy import ModelShape, PolicyConfig, build

QUESTION = "{problem}|{solution}="


@reward(range=(0, 1), lane="batch")
def outcome(right):
    return [float(r) for r in right]


def pairs(n, rng):
    """A solution is two letters; a redundant one says them again. Annotators are not always clear."""
    found = []
    for _ in range(n):
        problem, said = ("".join(rng.choice(list("abcdef"), 2)) for _ in range(2))
        times = int(rng.integers(2, 4))
        clear = rng.random() < 0.8
        scores = (
            {"concise_score": 0.9, "redundant_score": 0.3} if clear else {"concise_score": 0.5, "redundant_score": 0.5}
        )
        found.append({"problem": problem, "concise": said, "redundant": " ".join([said] * times), **scores})
    return found


def test_crm_braces_in_a_solution_are_left_as_they_are():
    record = {
        "problem": "{solution}",
        "concise": "{x}",
        "redundant": "{problem}",
        "concise_score": 1,
        "redundant_score": 0.1,
    }
    assert [d["prompt"] for d in demonstrations([record], question=QUESTION)] == [
        "{solution}|{x}=",
        "{solution}|{problem}=",
    ]


def test_crm_is_trained_as_a_generative_scorer_and_gates_the_reward():
    """Annotated pairs → the clear ones → demonstrations → a language model → its replies → R · (1 + α c (s + d))."""
    rng = np.random.default_rng(0)
    records = pairs(200, rng)
    clear = discriminative(records)
    assert 0 < len(clear) < len(records)
    taught = demonstrations(clear, question=QUESTION)
    shape = ModelShape(
        layers=1, hidden=32, heads=2, mlp=64, context=24, alphabet="abcdef |=.0123456789", tied_embeddings=False
    )
    scorer = LanguageModel(*build(PolicyConfig(shape), seed=0))
    losses = fit(
        scorer.parameters(),
        lambda rows: language_loss(scorer, [taught[row] for row in rows]),
        len(taught),
        learning_rate=1e-2,
        epochs=10,
        batch=32,
    )
    assert losses[-1] < 0.1 * losses[0]
    leaf = concise(
        scorer=lambda questions: scorer.generate(questions, max_tokens=3, temperature=0.1).completions,
        question=QUESTION,
    )
    new = pairs(20, np.random.default_rng(7))
    batch = Rollouts(
        [r["problem"] for r in new] * 2,
        [r["concise"] for r in new] + [r["redundant"] for r in new],
        {"right": [1] * 40},
    )
    rated = leaf.score(batch).read(math.nan)
    assert (rated[:20] == 0.9).mean() >= 0.95
    assert (rated[20:] == 0.3).mean() >= 0.95
    alpha, s, d = 0.2, 1.0, 0.5
    whole = product(outcome(), 1 + alpha * (s + d) * leaf)
    mixed = batch.with_(columns={"right": [1, 0] * 20})
    scores = whole.score(mixed, Context(mixed)).read(math.nan)
    assert scores[0] == pytest.approx(1 + 0.2 * 0.9 * 1.5)
    assert scores[20] == pytest.approx(1 + 0.2 * 0.3 * 1.5)
    assert (scores[1::2] == 0).all()
    assert scores[1::2].max() < scores[::2].min()


def course(gated, alpha=1.0, steps=160):
    """Policy gradient, exact, over (right and long, right and brief, wrong and brief); lengths, rewards, accuracy.

    Being brief and wrong is easy to come by, being brief and right is rare.
    """
    right, brevity, length = np.array([1.0, 1.0, 0.0]), np.array([0.3, 0.9, 0.9]), np.array([1000.0, 300.0, 100.0])
    bonus = alpha * brevity * 2.0  # s + d = 2
    rewards = right * (1 + bonus) if gated else right + bonus
    logits = np.log([0.6, 0.001, 0.399])
    history = []
    for _ in range(steps):
        policy = np.exp(logits) / np.exp(logits).sum()
        history.append((policy @ length, policy @ rewards, policy @ right))
        logits = logits + 1.0 * policy * (rewards - policy @ rewards)
    return map(np.array, zip(*history, strict=True))


def test_crf_gated_brevity_is_learned_without_the_collapse_of_an_added_bonus():
    lengths, rewards, accuracy = course(gated=False)
    assert accuracy[-1] < 0.3 < accuracy[0]
    assert collapses(lengths, rewards).length.any(), "length falls fast while the reward rises"
    lengths, rewards, accuracy = course(gated=True)
    assert accuracy[-1] > 0.95
    assert not collapses(lengths, rewards).length.any()
