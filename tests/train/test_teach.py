"""Supervised learning: the loss it says it minimises, on demonstrations that are what they say they are."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.core.coerce import coerce
from guerdon.core.errors import GuerdonError, RecipeError
from guerdon.train.language.demonstrations import scratchpad
from guerdon.train.language.policy import ModelShape, PolicyConfig, build
from guerdon.train.language.teach import TeachConfig, teach
from guerdon.train.prompts import Prompts, PromptsConfig

POLICY = PolicyConfig(ModelShape(layers=1, hidden=32, heads=2, mlp=32, alphabet="0123456789+-=;# "))
ONE_DIGIT = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1}


@pytest.fixture(scope="module")
def prompts():
    config = PromptsConfig(dataset="chain_sum", parameters=ONE_DIGIT, size=200, template="{metadata[expression]}=")
    return Prompts(config, seed=0)


def taught(prompts, seed=0, report=None, **options):
    model, tokenizer = build(POLICY, seed=0)
    config = TeachConfig(**{"steps": 3, "batch": 8, **options})
    return model, tokenizer, teach(model, tokenizer, prompts, config, seed=seed, report=report)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_loss_is_the_mean_over_tokens_of_completions_alone(prompts):
    """Row by row, unpadded, from the definition."""
    _, _, losses = taught(prompts, steps=1, micro_batch=3)
    model, tokenizer = build(POLICY, seed=0)
    total, count = 0.0, 0
    for i, row in enumerate(prompts.draw(0, 8, stream=1)):
        said = scratchpad()(row, np.random.default_rng([0, 0, i]))
        before = tokenizer(row["prompt"]).input_ids
        after = [*tokenizer(said, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
        total -= torch.log_softmax(logits.double(), -1)[torch.arange(len(after)), after].sum().item()
        count += len(after)
    assert losses[0] == pytest.approx(total / count, abs=1e-5)


def test_micro_batches_are_one_update(prompts):
    whole, _, losses = taught(prompts)
    cut, _, cut_losses = taught(prompts, micro_batch=3)
    np.testing.assert_allclose(losses, cut_losses, atol=1e-5)
    torch.testing.assert_close(weights(whole), weights(cut), atol=1e-4, rtol=0)


def test_the_first_step_is_adams(prompts):
    """Adam's first step moves every weight that has a gradient by the learning rate, against its sign."""
    model, _, _ = taught(prompts, steps=1, learning_rate=1e-3, warmup=0, schedule="constant")
    start, _ = build(POLICY, seed=0)
    moved = (weights(model) - weights(start)).abs()
    assert moved.max().item() == pytest.approx(1e-3, rel=1e-2)
    assert moved.median().item() == pytest.approx(1e-3, rel=1e-2)


def test_the_schedule_sets_the_rate_of_each_step(prompts):
    """Of Adam's steps, each about as long as its rate, the last along a cosine is nearly nothing; a quarter rises."""
    model, tokenizer = build(POLICY, seed=0)
    places = [weights(model)]
    config = TeachConfig(steps=8, batch=8, warmup=0.25)
    teach(model, tokenizer, prompts, config, seed=0, report=lambda *_: places.append(weights(model)))
    first, *_, last = [(after - before).abs().max().item() for before, after in pairwise(places)]
    assert first == pytest.approx(config.learning_rate / 2, rel=1e-2)
    assert last < 0.1 * config.learning_rate


def test_a_seed_fixes_everything(prompts):
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    one, _, losses = taught(prompts)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    same, _, same_losses = taught(prompts)
    other, _, _ = taught(prompts, seed=1)
    assert losses == same_losses
    assert torch.equal(weights(one), weights(same))
    assert not torch.equal(weights(one), weights(other))


def test_what_is_taught_is_learned(prompts):
    options = {"right": 1.0, "restatements": (0, 0)}
    model, _, losses = taught(prompts, steps=80, batch=32, learning_rate=1e-2, options=options)
    assert losses[0] > 2.5  # about log 19, the size of the vocabulary
    assert losses[-1] < 1.3
    assert not model.training


def test_progress_is_reported(prompts):
    seen = []
    _, _, losses = taught(prompts, report=lambda done, loss: seen.append((done, loss)))
    assert seen == list(enumerate(losses, 1))


def test_a_loss_that_is_not_finite_stops(prompts):
    model, tokenizer = build(POLICY, seed=0)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(GuerdonError, match="step 0: the loss is nan"):
        teach(model, tokenizer, prompts, TeachConfig(steps=1, batch=2), seed=0)


def test_only_adapters_are_taught_where_there_are_any(prompts):
    pytest.importorskip("peft")
    config = coerce({"from_config": vars(POLICY.from_config), "lora": {"rank": 2}}, PolicyConfig, "policy")
    model, tokenizer = build(config, seed=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    teach(model, tokenizer, prompts, TeachConfig(steps=2, batch=4), seed=0)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)


terms = st.lists(st.integers(0, 99), min_size=2, max_size=5)
signs = st.lists(st.sampled_from("+-"), min_size=5, max_size=5)


def expression(numbers, operators):
    text = str(numbers[0])
    for operator, number in zip(operators, numbers[1:], strict=False):
        text += f" {operator} {number}"
    return text


@settings(max_examples=80, deadline=None)
@given(terms, signs, st.integers(0, 2**32), st.booleans(), st.integers(0, 6), st.integers(0, 3))
def test_a_scratchpad_is_running_sums_said_again_and_an_answer(numbers, operators, seed, right, fewest, more):
    text = expression(numbers, operators)
    row = {"metadata": {"expression": text}}
    said = scratchpad(right=float(right), restatements=(fewest, fewest + more))(row, np.random.default_rng(seed))
    *steps, answer = said.split(";")
    total = eval(text)

    final = re.fullmatch(r"#### (-?\d+)", answer)
    assert final
    assert (int(final[1]) == total) is right

    equations = [step for step in steps if "=" in step]
    assert len(equations) == len(numbers) - 1
    running = numbers[0]
    for equation, operator, number in zip(equations, operators, numbers[1:], strict=False):
        after = running + number if operator == "+" else running - number
        assert equation == f"{running}{operator}{number}={after}"
        running = after
    assert fewest <= len(steps) - len(equations) <= fewest + more
    for i, step in enumerate(steps):
        if "=" not in step:
            assert step == steps[i - 1].split("=")[-1]


def test_demonstrations_are_right_as_often_as_asked():
    row = {"metadata": {"expression": "7 + 8 - 9"}}
    n = 2000
    demonstrate = scratchpad(right=0.35)
    said = [demonstrate(row, np.random.default_rng(i)) for i in range(n)]
    share = np.mean([text.endswith("#### 6") for text in said])
    assert abs(share - 0.35) < 4 * np.sqrt(0.35 * 0.65 / n)
    repeats = np.bincount([text.count(";") - 2 for text in said], minlength=7) / n
    assert repeats.shape == (7,)
    assert np.abs(repeats - 1 / 7).max() < 4 * np.sqrt(6 / 49 / n)


@pytest.mark.parametrize(
    "row", [{}, {"metadata": {}}, {"metadata": {"expression": "3 * 4"}}, {"metadata": {"expression": "3"}}]
)
def test_scratchpads_are_for_sums(row):
    with pytest.raises(RecipeError, match="scratchpad"):
        scratchpad()(row, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"steps": 0}, "must be positive"),
        ({"learning_rate": 0}, "must be positive"),
        ({"micro_batch": 0}, "must be positive"),
        ({"warmup": 1}, "warmup is a share"),
        ({"demonstrations": "scratch"}, "did you mean 'scratchpad'"),
        ({"demonstrations": "np"}, "there are no demonstrations"),
        ({"options": {"rigth": 1}}, "did you mean 'right'"),
        ({"options": {"right": "often"}}, "options.right: expected a number"),
        ({"options": {"right": 2}}, "right is a probability"),
        ({"options": {"restatements": [3, 1]}}, "restatements"),
        ({"options": {"answer": "so"}}, "answer"),
        ({"schedule": "linear"}, "not a choice"),
    ],
)
def test_bad_settings_are_refused_before_any_work(data, message):
    with pytest.raises(GuerdonError, match=message):
        coerce(data, TeachConfig, "teach")
