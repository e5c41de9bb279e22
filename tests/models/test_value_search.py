"""Paths are sampled and labelled, a head on a language model learns their values, and search goes by them."""

from itertools import product
from math import comb

import numpy as np
import pytest
import torch

from guerdon.core import Rollouts, Scores, Tokens
from guerdon.core.errors import MissingInput
from guerdon.models import TokenValues, beam_search, fit_values
from guerdon.objectives.value import Critic
from guerdon.train.language.models import LanguageModel
from guerdon.train.language.policy import ModelShape, PolicyConfig, build

LENGTH, WANTED = 6, 5
SHAPE = ModelShape(layers=1, hidden=32, heads=2, mlp=64, context=16, alphabet="01=")


def right(prompt, text):
    """Of six fair digits, at least five are the one that the prompt asks for."""
    return text.count(prompt[0]) >= WANTED


def chance(prompt, text):
    left, need = LENGTH - len(text), max(0, WANTED - text.count(prompt[0]))
    return sum(comb(left, k) for k in range(need, left + 1)) / 2**left


def model(features="shared", seed=0):
    language, tokenizer = build(PolicyConfig(SHAPE), seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Critic(SHAPE.hidden, hidden=(), features=features, start="zero")
    return TokenValues(LanguageModel(language, tokenizer, micro_batch=256), head), tokenizer


def sampled(tokenizer, rng, n):
    prompts = ["0="] * n + ["1="] * n
    texts = ["".join(rng.choice(["0", "1"], LENGTH)) for _ in prompts]
    ids = np.array([tokenizer(text, add_special_tokens=False).input_ids for text in texts])
    there = np.ones_like(ids, bool)
    rollouts = Rollouts(prompts, texts, tokens=Tokens(ids, there, there))
    return rollouts, Scores.of([float(right(*pair)) for pair in zip(prompts, texts, strict=True)])


def error(values):
    """Mean squared distance from the true chance of success, over every prefix of both prompts, level by level."""
    found = []
    for t in range(1, LENGTH + 1):
        pairs = [(prompt, "".join(x)) for prompt in ("0=", "1=") for x in product("01", repeat=t)]
        told = values.last(*zip(*pairs, strict=True))
        found.append(np.mean([(v - chance(*pair)) ** 2 for v, pair in zip(told, pairs, strict=True)]))
    return float(np.mean(found))


def test_tvm_sampled_paths_teach_a_language_model_values_by_which_search_beats_sampling():
    values, tokenizer = model()
    rng = np.random.default_rng(0)
    errors = [error(values)]
    for _ in range(2):
        rollouts, scores = sampled(tokenizer, rng, 200)
        losses = fit_values(values, rollouts, scores, epochs=8, batch=100, rng=rng, learning_rate=3e-3)
        assert len(losses) == 8 * 4
        errors.append(error(values))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 4

    def solved(prompt, seed):
        draw = np.random.default_rng(seed)
        expand = lambda states, n: [[s + draw.choice(["0", "1"]) for _ in range(n)] for s in states]  # noqa: E731
        worth = lambda states: values.last([prompt] * len(states), states)  # noqa: E731
        found = beam_search("", expand, worth, lambda s: len(s) == LENGTH, candidates=4, keep=2, steps=LENGTH)
        return right(prompt, found[0][0])

    searched = np.mean([solved(prompt, seed) for prompt in ("0=", "1=") for seed in range(6)])
    assert chance("0=", "") == 7 / 64
    assert 1 - (1 - 7 / 64) ** 4 < 0.4  # the best of as many letters, in whole answers and by the truth
    assert searched > 0.75


def test_tvm_only_a_shared_trunk_learns_with_its_head():
    for features in ("detached", "shared"):
        values, tokenizer = model(features)
        trunk = {name: weight.clone() for name, weight in values.model.state_dict().items()}
        rollouts, scores = sampled(tokenizer, np.random.default_rng(0), 16)
        fit_values(values, rollouts, scores, batch=8, rng=np.random.default_rng(0))
        moved = [not torch.equal(weight, trunk[name]) for name, weight in values.model.state_dict().items()]
        assert any(moved) == (features == "shared")
        assert any(bool(x.any()) for x in values.head.parameters())


def test_tvm_values_of_a_path_do_not_depend_on_those_beside_it():
    values, _ = model()
    torch.nn.init.normal_(values.head.layers[-1].weight)
    alone = values.last(["1="], ["01"])
    assert values.last(["1=", "0="], ["01", "011011"])[0] == pytest.approx(alone[0], abs=1e-5)
    assert values.last([], []) == []


def test_tvm_what_abstained_is_not_learned_from():
    values, tokenizer = model()
    rollouts, scores = sampled(tokenizer, np.random.default_rng(0), 8)
    none = Scores.abstain(len(rollouts), "the judge is gone")
    assert fit_values(values, rollouts, none, rng=np.random.default_rng(0)) == []
    half = Scores(scores.read(0.0), valid=np.arange(16) < 8, reasons=dict.fromkeys(range(8, 16), "gone"))
    alone, _ = model()
    fit_values(values, rollouts, half, rng=np.random.default_rng(0))
    fit_values(alone, rollouts.select(slice(8)), scores.select(slice(8)), rng=np.random.default_rng(0))
    assert values.last(["0="], ["01"])[0] == pytest.approx(alone.last(["0="], ["01"])[0], abs=1e-5)


def test_what_values_cannot_be_learned_from_is_named():
    values, tokenizer = model()
    rollouts, scores = sampled(tokenizer, np.random.default_rng(0), 2)
    rng = np.random.default_rng(0)
    with pytest.raises(MissingInput, match="'tokens'"):
        fit_values(values, rollouts.with_(tokens=None), scores, rng=rng)
    with pytest.raises(ValueError, match="one per rollout, 4"):
        fit_values(values, rollouts, scores.select(slice(3)), rng=rng)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        fit_values(values, rollouts, scores, epochs=0, rng=rng)
    with pytest.raises(ValueError, match="completion 1 has no token"):
        values.last(["1=", "1="], ["0", ""])
