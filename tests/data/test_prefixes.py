import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from guerdon.core import Rollouts, Scores, Spans
from guerdon.core.spans import split
from guerdon.credit import best_of, progress
from guerdon.data import first_drop, prefix_values


def seeds(*texts, prompt="q"):
    return Rollouts([prompt] * len(texts), list(texts)), split(texts, " ")


def all_ones(rollouts):
    return Scores.of([float("0" not in text) for text in rollouts.completions])


class Recorded:
    """A policy that has its answers written down, and what it was asked."""

    def __init__(self, answers):
        self.answers = {prefix: list(rest) for prefix, rest in answers.items()}
        self.asked = []

    def __call__(self, rollouts):
        self.asked += list(rollouts.completions)
        return [self.answers[prefix].pop(0) for prefix in rollouts.completions]


def test_pav_labels_are_the_share_of_right_completions_of_each_prefix():
    batch, steps = seeds("1 1 0")
    policy = Recorded({"": ["1 1 1", "0", "0", "0"], "1 ": ["1 1", "1 1", "0 0", "0 1"], "1 1 ": ["1", "1", "1", "0"]})
    found = prefix_values(batch, steps, policy, all_ones, samples=4)
    assert found.values.tolist() == [[0.25, 0.5, 0.75, 0.0]]
    assert found.samples.tolist() == [[4, 4, 4, 1]]  # the whole rollout is its own completion
    assert found.steps.all()
    gained = progress(torch.tensor(found.values), torch.tensor(found.steps))
    assert gained.sum().item() == pytest.approx(0.0 - 0.25)
    assert gained.tolist() == [[0.25, 0.25, -0.75]]


def test_pav_prefixes_that_seeds_of_a_prompt_share_are_completed_once():
    batch, steps = seeds("1 1", "1 0", "0 1")
    policy = Recorded({"": ["1 1"] * 3, "1 ": ["1", "0", "0"], "0 ": ["1"] * 3})
    found = prefix_values(batch, steps, policy, all_ones, samples=3)
    assert len(policy.asked) == 9
    assert found.values[:2, 1].tolist() == pytest.approx([1 / 3, 1 / 3])
    assert found.values[:, 0].tolist() == [1.0, 1.0, 1.0]
    assert found.values[:, 2].tolist() == [1.0, 0.0, 0.0]


def test_equal_texts_of_two_prompts_are_not_mistaken_for_one():
    batch = Rollouts(["easy", "hard"], ["1 1", "1 1"])

    def policy(rollouts):
        return ["1" if prompt == "easy" else "0" for prompt in rollouts.prompts]

    found = prefix_values(batch, split(batch.completions, " "), policy, all_ones, samples=2)
    assert found.values[:, 1].tolist() == [1.0, 0.0]


def test_pav_labels_are_near_the_true_values_of_a_chain():
    """Each of four steps is right with probability ½: Q after h right ones is 2^−(4−h)."""
    rng = np.random.default_rng(0)
    batch, steps = seeds("1 1 1 1", "1 0 1 1")

    def policy(rollouts):
        return [" ".join(rng.choice(["0", "1"], 4 - text.count(" "))) for text in rollouts.completions]

    found = prefix_values(batch, steps, policy, all_ones, samples=2000)
    assert found.values[0] == pytest.approx([1 / 16, 1 / 8, 1 / 4, 1 / 2, 1], abs=0.04)
    assert found.values[1] == pytest.approx([1 / 16, 1 / 8, 0, 0, 0], abs=0.04)
    prover = best_of(torch.tensor(found.values), 4)
    assert prover[0, 3].item() == pytest.approx(1 - 0.5**4, abs=0.03)


def test_a_completion_that_cannot_be_verified_does_not_count():
    batch, steps = seeds("1 1", "1")

    def verify(rollouts):
        outcome = [None if text.endswith("?") else float("0" not in text) for text in rollouts.completions]
        return Scores.of(outcome)

    policy = Recorded({"": ["?", "?"], "1 ": ["1", "?"]})
    found = prefix_values(batch, steps, policy, verify, samples=2)
    assert found.valid.tolist() == [[False, True, True], [False, True, False]]
    assert found.samples.tolist() == [[0, 1, 1], [0, 1, 0]]
    assert found.steps.tolist() == [[False, True], [False, False]]
    assert not found.values[~found.valid].any()


def test_a_rollout_without_text_has_the_value_of_its_prompt():
    found = prefix_values(*seeds("", "1"), Recorded({"": ["1", "0"]}), all_ones, samples=2)
    assert found.values.tolist() == [[0.5, 0.0], [0.5, 1.0]]
    assert found.valid.tolist() == [[True, False], [True, True]]
    empty = prefix_values(Rollouts([], []), Spans.of([], unit="character"), Recorded({}), all_ones)
    assert empty.values.shape == (0, 1)


def test_pav_pairs_the_prefix_before_the_first_drop_with_the_one_after_it():
    values = np.array([[0.6, 0.75, 0.1, 0.0], [0.6, 0.4, 0.1, 0.0], [0.1, 0.9, 0.9, 0.2], [0.9, 0.0, 0.9, 0.0]])
    mask = np.ones((4, 3), bool)
    assert first_drop(values, mask).tolist() == [1, -1, 2, 0]
    mask[3, 0] = False
    assert first_drop(np.where(values == 0.9, math.nan, values)[:2], mask[:2]).tolist() == [1, -1]
    assert first_drop(values, mask)[3] == 2
    assert first_drop(np.zeros((2, 1)), np.zeros((2, 0), bool)).tolist() == [-1, -1]


@given(st.integers(0, 4), st.integers(0, 5), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_first_drop_is_what_its_definition_says_whatever_is_padded(n, s, more, seed):
    rng = np.random.default_rng(seed)
    values, mask = rng.random((n, s + 1)).round(1), rng.random((n, s)) < 0.8
    expected = [
        next((h for h in range(s) if mask[i, h] and values[i, h] >= 0.5 and values[i, h + 1] <= 0.25), -1)
        for i in range(n)
    ]
    padded = np.concatenate([values, np.full((n, more), math.nan)], 1)
    assert first_drop(padded, np.concatenate([mask, np.zeros((n, more), bool)], 1)).tolist() == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prefix_values(Rollouts(["q"], ["1"]), Spans.of([[(0, 1)]]), None, None), "spans of characters"),
        (lambda: prefix_values(*seeds("1"), Recorded({}), all_ones, samples=0), "samples must be at least 1"),
        (lambda: prefix_values(*seeds("1 1"), lambda r: ["1"], all_ones), "complete gave 1 continuations of 16"),
        (
            lambda: prefix_values(*seeds("1"), lambda r: ["1"] * len(r), lambda r: Scores.of([1.0] * 3)),
            "verify must give one score per rollout",
        ),
        (lambda: first_drop(np.zeros((1, 2)), np.ones((1, 2), bool)), "one column more"),
        (lambda: first_drop(np.full((1, 2), math.nan), np.ones((1, 1), bool)), "not finite"),
        (lambda: first_drop(np.zeros((1, 2)), np.ones((1, 1), bool), low=0.5), "low must be below high"),
    ],
    ids=["unit", "samples", "complete", "verify", "shape", "nan", "order"],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
