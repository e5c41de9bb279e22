"""Sampling: reproducible per row, distributed as the policy says, and measured as training will measure it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from guerdon.core.coerce import coerce
from guerdon.core.errors import GuerdonError, RecipeError
from guerdon.train.language import generation
from guerdon.train.language.generation import SamplingConfig, generate, inverse_cdf, uniforms
from guerdon.train.language.policy import ModelShape, PolicyConfig, build, logprobs
from guerdon.train.language.tokenizer import character_tokenizer

ALPHABET = "0123456789+-= "
SHAPE = ModelShape(layers=2, hidden=32, heads=2, mlp=64, alphabet=ALPHABET, tied_embeddings=False)
PROMPTS = ["1+1=", "12 + 34 - 5=", "9", "1+1=", "0-0=", "7 7 7"]


@pytest.fixture(scope="module")
def policy():
    model, tokenizer = build(PolicyConfig(SHAPE), seed=0)
    with torch.no_grad():
        # At its initial scale the model's distribution is so flat that nothing could tell two temperatures apart.
        model.lm_head.weight.mul_(10)
    return model, tokenizer


def sample(policy, prompts=PROMPTS, rows=None, seed=0, **options):
    config = SamplingConfig(**{"max_tokens": 12, **options})
    rows = range(len(prompts)) if rows is None else rows
    noise = uniforms(rows, config.max_tokens, seed=seed, step=3)
    return generate(*policy, prompts, uniforms=noise, config=config)


def written(generated, row):
    return generated.ids[row][generated.written[row]].tolist()


def naive(policy, prompt, noise, max_tokens, temperature=1.0):
    """One row at a time, no cache, no padding, the cumulative sum in a Python loop."""
    model, tokenizer = policy
    context = tokenizer(prompt).input_ids
    said = []
    for t in range(max_tokens):
        with torch.no_grad():
            logits = model(torch.tensor([context + said])).logits[0, -1].double()
        p = torch.softmax(logits / temperature, -1).tolist()
        token, running = 0, p[0]
        while running <= noise[t]:
            token += 1
            running += p[token]
        said.append(token)
        if token == tokenizer.eos_token_id:
            break
    return said


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_rows_say_what_a_naive_loop_over_single_rows_says(policy, temperature):
    noise = uniforms(range(len(PROMPTS)), 12, seed=0, step=3)
    generated = sample(policy, temperature=temperature)
    for row, prompt in enumerate(PROMPTS):
        assert written(generated, row) == naive(policy, prompt, noise[row], 12, temperature)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(len(PROMPTS))), cut=st.integers(1, len(PROMPTS)), micro=st.integers(1, len(PROMPTS)))
def test_a_row_says_the_same_in_every_batch(policy, order, cut, micro):
    whole = sample(policy)
    for part in (order[:cut], order[cut:]):
        if part:
            split = sample(policy, [PROMPTS[row] for row in part], rows=part, micro_batch=micro)
            assert [written(split, i) for i in range(len(part))] == [written(whole, row) for row in part]


def test_rows_that_share_a_prompt_differ_by_their_randomness_only(policy):
    generated = sample(policy)
    assert PROMPTS[0] == PROMPTS[3]
    assert written(generated, 0) != written(generated, 3)
    again = sample(policy, [PROMPTS[0]], rows=[3])
    assert written(again, 0) == written(generated, 3)


def test_logp_and_entropy_are_those_of_a_forward_pass(policy):
    for temperature in (1.0, 0.7):
        generated = sample(policy, temperature=temperature, top_p=0.9)
        logp, entropy = logprobs(
            policy[0],
            generated.prompt_ids,
            generated.prompt_mask,
            generated.ids,
            generated.written,
            temperature=temperature,
        )
        torch.testing.assert_close(generated.logp, logp.detach(), atol=1e-4, rtol=0)
        torch.testing.assert_close(generated.entropy, entropy, atol=1e-4, rtol=0)
        assert generated.logp[generated.written].max() < 0


def test_temperature_zero_is_greedy_and_the_limit_of_small_temperatures(policy):
    greedy = sample(policy, temperature=0.0)
    cold = sample(policy, temperature=1e-4)
    model, tokenizer = policy
    for row, prompt in enumerate(PROMPTS):
        assert written(greedy, row) == written(cold, row)
        context = tokenizer(prompt).input_ids
        for token in written(greedy, row):
            with torch.no_grad():
                assert token == int(model(torch.tensor([context])).logits[0, -1].argmax())
            context = [*context, token]


def test_samples_are_distributed_as_the_softmax():
    logits = torch.tensor([1.2, -0.3, 0.0, 2.0, -2.5, 0.4])
    n, temperature = 20_000, 1.3
    uniform = torch.as_tensor(uniforms(range(n), 1, seed=11, step=0)[:, 0])
    ids, _, _ = inverse_cdf(logits.expand(n, 6), uniform, temperature=temperature)
    weights = np.exp(logits.double().numpy() / temperature)
    expected = n * weights / weights.sum()
    chi2 = ((np.bincount(ids.numpy(), minlength=6) - expected) ** 2 / expected).sum()
    assert chi2 < 20.5  # the 0.1 % point of χ² with 5 degrees of freedom


def test_top_p_draws_from_the_smallest_sufficient_set_in_its_proportions():
    p = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])
    n = 5_000
    uniform = (torch.arange(n) + 0.5) / n
    ids, logp, _ = inverse_cdf(p.log().expand(n, 5), uniform, top_p=0.75)
    # 0.4 + 0.3 < 0.75 ≤ 0.4 + 0.3 + 0.15
    shares = torch.bincount(ids, minlength=5) / n
    torch.testing.assert_close(shares, torch.tensor([0.0, 0.4, 0.0, 0.3, 0.15]) / 0.85, atol=1e-3, rtol=0)
    torch.testing.assert_close(logp, p.log()[ids])
    only, _, _ = inverse_cdf(p.log().expand(n, 5), uniform, top_p=0.39)
    assert (only == 1).all()


@settings(max_examples=50, deadline=None)
@given(
    logits=st.lists(st.floats(-40, 40), min_size=1, max_size=8),
    u=st.floats(0, 1, exclude_max=True),
    top_p=st.floats(0.01, 1),
)
def test_a_token_without_probability_is_never_drawn(logits, u, top_p):
    z = torch.tensor([[-torch.inf, *logits, -torch.inf]])
    token, logp, entropy = inverse_cdf(z, torch.tensor([u], dtype=torch.float64), top_p=top_p)
    assert 1 <= int(token) <= len(logits)
    assert torch.isfinite(logp).all()
    assert -1e-5 <= float(entropy) <= np.log(len(logits)) + 1e-5


@pytest.mark.parametrize("widest", [torch.float32, torch.float64])
def test_the_largest_uniform_draws_a_token_with_probability(monkeypatch, widest):
    """In float32 it rounds to 1; the last token has no part in Σp."""
    monkeypatch.setattr(generation, "_widest", lambda device: widest)
    logits = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    logits[:, -1] = -torch.inf
    largest = torch.full((200,), 1 - 2**-53, dtype=torch.float64)
    assert (inverse_cdf(logits, largest)[0] == 4).all()


def test_uniforms_depend_on_seed_step_row_and_stream_and_on_nothing_else():
    base = uniforms([0, 5, 9], 16, seed=1, step=2)
    np.testing.assert_array_equal(uniforms([9, 0], 16, seed=1, step=2), base[[2, 0]])
    np.testing.assert_array_equal(uniforms([5], 4, seed=1, step=2), base[1:2, :4])
    others = [
        uniforms([0, 5, 9], 16, seed=2, step=2),
        uniforms([0, 5, 9], 16, seed=1, step=3),
        uniforms([0, 5, 9], 16, seed=1, step=2, stream=1),
        uniforms([1, 6, 10], 16, seed=1, step=2),
    ]
    for other in others:
        assert not np.intersect1d(base, other).size
    many = uniforms(range(2000), 8, seed=0, step=0)
    assert abs(many.mean() - 0.5) < 4 / np.sqrt(12 * many.size)
    assert many.min() >= 0
    assert many.max() < 1


class Scripted:
    """Replaces what a model says by a fixed script, its cache and masks left as they are."""

    def __new__(cls, tokenizer, script):
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
        )
        model = LlamaForCausalLM(config)
        forward = model.forward

        def scripted(*args, position_ids, **options):
            output = forward(*args, position_ids=position_ids, **options)
            output.logits = torch.full_like(output.logits, -100.0)
            for row, place in enumerate(position_ids[:, -1].tolist()):
                output.logits[row, -1, script[place]] = 100.0
            return output

        model.forward = scripted
        return model


def scripted(said, prompt="=", **options):
    """A policy that says `said` after a prompt of one token (and bos), then ends."""
    tokenizer = character_tokenizer("abc</>= \n")
    begin = len(tokenizer(prompt).input_ids) - 1
    ids = [*tokenizer(said, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    model = Scripted(tokenizer, dict(enumerate(ids, begin)))
    config = SamplingConfig(**{"max_tokens": 16, **options})
    return generate(model, tokenizer, [prompt], uniforms=uniforms([0], 16, seed=0, step=0), config=config)


def test_the_end_token_is_written_and_not_said():
    generated = scripted("abc")
    assert generated.texts == ["abc"]
    assert generated.written.tolist() == [[True] * 4]
    assert generated.ids[0, 3] == 2
    assert generated.finished.tolist() == [True]
    assert generated.offsets.tolist() == [[[0, 1], [1, 2], [2, 3], [-1, -1]]]


def test_a_completion_cut_at_the_limit_is_not_finished():
    generated = scripted("abc", max_tokens=3)
    assert generated.texts == ["abc"]
    assert generated.finished.tolist() == [False]
    # One more token, and it is the end.
    assert scripted("abc", max_tokens=4).finished.tolist() == [True]


def test_a_stop_text_ends_the_completion_and_cuts_its_text():
    generated = scripted("ab</a>c", stop=("</c>", "</a>"))
    assert generated.texts == ["ab"]
    assert generated.written.sum() == 6  # the policy wrote the stop text
    assert generated.finished.tolist() == [True]
    assert generated.offsets[0].tolist() == [[0, 1], [1, 2], *[[-1, -1]] * 4]
    kept = scripted("ab</a>c", stop=("</c>", "</a>"), keep_stop=True)
    assert kept.texts == ["ab</a>"]
    assert kept.offsets[0, -1].tolist() == [5, 6]


def test_of_two_stop_texts_the_one_that_begins_first_cuts():
    assert scripted("ab</a>", stop=(">", "</a>")).texts == ["ab"]
    assert scripted("ab</a>", stop=("</a>", ">"), keep_stop=True).texts == ["ab</a>"]


def test_tokens_are_what_rollouts_carry(policy):
    generated = sample(policy)
    tokens = generated.tokens()
    assert len(tokens) == len(PROMPTS)
    assert (tokens.written == tokens.attended).all()
    for row, text in enumerate(generated.texts):
        said = [text[begin:end] for begin, end in tokens.offsets[row] if begin >= 0]
        assert "".join(said) == text
        assert tokens.logp[row][~tokens.written[row]].sum() == 0


def test_no_prompts_give_no_completions(policy):
    generated = sample(policy, [])
    assert generated.texts == []
    assert len(generated.tokens()) == 0


def test_generation_leaves_the_mode_and_the_graph_alone(policy):
    model, _ = policy
    model.train()
    generated = sample(policy)
    assert model.training
    assert not generated.logp.requires_grad
    assert not generated.logp.is_inference()  # old log-probabilities enter the loss
    model.eval()


def test_chat_messages_are_read_through_the_template():
    template = "{% for m in messages %}{{ m.content }}={% endfor %}{% if add_generation_prompt %}+{% endif %}"
    config = PolicyConfig(ModelShape(layers=1, hidden=16, heads=2, mlp=16, alphabet=ALPHABET), chat_template=template)
    model, tokenizer = build(config, seed=0)
    noise = uniforms([0], 4, seed=0, step=0)
    chat = generate(
        model, tokenizer, [[{"role": "user", "content": "12"}]], uniforms=noise, config=SamplingConfig(max_tokens=4)
    )
    assert tokenizer.decode(chat.prompt_ids[0]) == "12=+"


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"temperature": "nan"}, "temperature must be at least 0"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"micro_batch": 0}, "micro_batch"),
        ({"stop": [""]}, "empty stop"),
        ({"temprature": 1}, "did you mean 'temperature'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings_, message):
    with pytest.raises(GuerdonError, match=message):
        coerce(settings_, SamplingConfig, "sampling")


def test_a_prompt_that_leaves_no_room_is_refused_before_any_work(policy):
    with pytest.raises(RecipeError, match=r"prompt of 121 tokens and max_tokens 12 do not fit .* context of 128"):
        sample(policy, ["1" * 120])


def test_a_prompt_outside_the_alphabet_is_named(policy):
    with pytest.raises(RecipeError, match="'×' is not in the policy's alphabet; it stands in '2×2='"):
        sample(policy, ["1+1=", "2×2="])


def test_too_few_uniforms_are_refused(policy):
    with pytest.raises(ValueError, match="need as many uniforms"):
        generate(*policy, ["1", "2"], uniforms=np.zeros((1, 8)), config=SamplingConfig(max_tokens=8))
