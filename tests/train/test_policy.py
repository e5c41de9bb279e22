"""Policies and tokenizers: built from a seed, measured by the definition of log-probability."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from guerdon.core.coerce import coerce
from guerdon.core.errors import GuerdonError, MissingExtra, RecipeError
from guerdon.train.language import policy as policy_module
from guerdon.train.language.policy import Lora, ModelShape, PolicyConfig, build, logprobs
from guerdon.train.language.tokenizer import PRINTABLE, character_tokenizer, decode, encode_prompts, pad

TINY = ModelShape(layers=2, hidden=32, heads=2, mlp=48, alphabet="0123456789+-=")


@pytest.fixture(scope="module")
def model():
    model, _ = build(PolicyConfig(TINY), seed=0)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(20)
    return model


def batch(prompts, completions):
    prompt_ids, prompt_mask = pad(prompts, 0, side="left")
    ids, mask = pad(completions, 0, side="right")
    return prompt_ids, prompt_mask, ids, mask


PROMPTS = [[1, 4, 5], [1, 4, 5, 6, 7, 8], [1]]
COMPLETIONS = [[5, 6, 2], [7], [3, 4, 5, 6, 2]]


def test_logprobs_are_those_of_each_row_alone(model):
    """Row by row, unpadded, every logit in float64, from log softmax and −Σ p log p as they are written."""
    for temperature in (1.0, 0.6):
        logp, entropy = logprobs(model, *batch(PROMPTS, COMPLETIONS), temperature=temperature)
        assert logp.dtype == torch.float32
        for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
            logits = model(torch.tensor([prompt + completion])).logits[0].detach().double().numpy() / temperature
            for t, token in enumerate(completion):
                weights = np.exp(logits[len(prompt) + t - 1])
                p = weights / weights.sum()
                assert logp[row, t].item() == pytest.approx(np.log(p[token]), abs=1e-4)
                assert entropy[row, t].item() == pytest.approx(-(p * np.log(p)).sum(), abs=1e-4)
            assert not logp[row, len(completion) :].any()
            assert not entropy[row, len(completion) :].any()


@settings(max_examples=15, deadline=None)
@given(
    left=st.integers(0, 5), right=st.integers(0, 5), micro=st.integers(1, 4), chunk=st.sampled_from([1, 200, 1 << 26])
)
def test_padding_micro_batches_and_chunks_change_nothing(model, left, right, micro, chunk):
    prompt_ids, prompt_mask, ids, mask = batch(PROMPTS, COMPLETIONS)
    expected, expected_entropy = logprobs(model, prompt_ids, prompt_mask, ids, mask)
    (expected * torch.arange(1.0, 6)).sum().backward()
    gradient = model.get_input_embeddings().weight.grad.clone()
    model.zero_grad()

    prompt_ids, prompt_mask = (torch.nn.functional.pad(x, (left, 0)) for x in (prompt_ids, prompt_mask))
    ids, mask = (torch.nn.functional.pad(x, (0, right)) for x in (ids, mask))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy_module, "CHUNK", chunk)
        logp, entropy = logprobs(model, prompt_ids, prompt_mask, ids, mask, micro_batch=micro)
        (logp[:, :5] * torch.arange(1.0, 6)).sum().backward()
    torch.testing.assert_close(logp[:, :5], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy[:, :5], expected_entropy, atol=1e-5, rtol=1e-5)
    assert not logp[:, 5:].any()
    torch.testing.assert_close(model.get_input_embeddings().weight.grad, gradient, atol=1e-4, rtol=1e-4)
    model.zero_grad()


def test_logprobs_of_half_precision_weights_are_widened_before_the_softmax():
    model, _ = build(PolicyConfig(TINY, dtype="bfloat16"), seed=0)
    assert model.dtype == torch.bfloat16
    logp, _ = logprobs(model, *batch([[1, 4]], [[5, 6]]))
    logits = model(torch.tensor([[1, 4, 5, 6]])).logits[0, 1:3].float()
    torch.testing.assert_close(logp[0], torch.log_softmax(logits, -1)[[0, 1], [5, 6]], atol=1e-6, rtol=0)


def test_logprobs_of_nothing_are_nothing(model):
    logp, entropy = logprobs(model, *batch([[1], [1, 4]], [[], []]))
    assert logp.shape == entropy.shape == (2, 0)
    ids = torch.zeros(0, 3, dtype=torch.long)
    assert logprobs(model, ids, ids.bool(), ids, ids.bool())[0].shape == (0, 3)


def test_logprobs_refuse_shapes_and_temperatures_that_do_not_fit(model):
    prompt_ids, prompt_mask, ids, mask = batch(PROMPTS, COMPLETIONS)
    with pytest.raises(ValueError, match="masks of their shapes"):
        logprobs(model, prompt_ids, prompt_mask, ids, mask[:2])
    with pytest.raises(ValueError, match="temperature above 0, got 0"):
        logprobs(model, prompt_ids, prompt_mask, ids, mask, temperature=0)


def test_a_seed_fixes_the_weights_and_nothing_outside():
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    one, _ = build(PolicyConfig(TINY), seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(8)
    same, _ = build(PolicyConfig(TINY), seed=3)
    other, _ = build(PolicyConfig(TINY), seed=4)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, same.state_dict()[name])
    assert not torch.equal(one.get_input_embeddings().weight, other.get_input_embeddings().weight)


def test_the_shape_is_the_one_asked_for():
    model, tokenizer = build(PolicyConfig(TINY), seed=0)
    vocabulary = 3 + len(TINY.alphabet)
    block = 4 * 32 * 32 + 3 * 32 * 48 + 2 * 32  # attention, gated feed-forward, two norms
    assert sum(p.numel() for p in model.parameters()) == vocabulary * 32 + 2 * block + 32
    assert len(tokenizer) == vocabulary
    untied = ModelShape(**{**vars(TINY), "tied_embeddings": False})
    wider, _ = build(PolicyConfig(untied), seed=0)
    assert sum(p.numel() for p in wider.parameters()) == 2 * vocabulary * 32 + 2 * block + 32


def test_a_saved_policy_is_loaded_with_its_tokenizer(tmp_path):
    model, tokenizer = build(PolicyConfig(TINY), seed=0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, same = build(PolicyConfig(path=str(tmp_path), dtype="bfloat16", attention="eager"), seed=5)
    assert loaded.dtype == torch.bfloat16
    assert loaded.config._attn_implementation == "eager"
    expected = model.get_input_embeddings().weight.bfloat16()
    assert torch.equal(loaded.get_input_embeddings().weight, expected)
    assert encode_prompts(same, ["1+1="]) == encode_prompts(tokenizer, ["1+1="]) == [[1, 4, 13, 4, 15]]


def test_adapters_are_all_that_learns(tmp_path):
    config = PolicyConfig(TINY, lora=Lora(rank=2, target_modules=("q_proj",)), gradient_checkpointing=True)
    model, _ = build(config, seed=0)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(names) == 2 * TINY.layers
    assert all("lora_" in name and "q_proj" in name for name in names)
    model.train()
    logp, _ = logprobs(model, *batch(PROMPTS, COMPLETIONS))
    logp.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)
    plain, _ = build(PolicyConfig(TINY), seed=0)
    expected, _ = logprobs(plain, *batch(PROMPTS, COMPLETIONS))
    torch.testing.assert_close(logp, expected)  # B starts at 0: an adapted model is the model


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model, _ = build(PolicyConfig(TINY, gradient_checkpointing=checkpointing), seed=0)
        model.train()
        passes = []
        model.model.layers[0].self_attn.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        logprobs(model, *batch(PROMPTS, COMPLETIONS))[0].sum().backward()
        assert len(passes) == 1 + checkpointing
        gradients.append(model.get_input_embeddings().weight.grad)
    torch.testing.assert_close(*gradients)


def test_missing_peft_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"policy\.lora .*guerdon\[lora\]"):
        build(PolicyConfig(TINY, lora=Lora()), seed=0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "neither given"),
        ({"path": "x", "from_config": {}}, "both given"),
        ({"from_config": {"hidden": 100, "heads": 3}}, "multiple of twice the heads"),
        ({"from_config": {"hidden": 12, "heads": 4}}, "multiple of twice the heads"),
        ({"from_config": {"layers": 0}}, "layers must be at least 1"),
        ({"from_config": {"alphabet": "aba"}}, "'a' twice"),
        ({"from_config": {"alphabet": ""}}, "alphabet is empty"),
        ({"from_config": {}, "revision": "main"}, "revision belongs to a path"),
        ({"from_config": {}, "dtype": "float8"}, "not a choice"),
        ({"from_config": {"widht": 3}}, "no such setting"),
        ({"from_config": {}, "lora": {"rank": 0}}, "rank must be at least 1"),
    ],
)
def test_bad_settings_are_refused_before_any_work(data, message):
    with pytest.raises(GuerdonError, match=message):
        coerce(data, PolicyConfig, "policy")


def test_a_path_that_is_no_model_says_so(tmp_path):
    with pytest.raises(RecipeError, match="cannot be loaded as a folder"):
        build(PolicyConfig(path=str(tmp_path)), seed=0)


def test_adapters_of_modules_that_do_not_exist_say_so():
    with pytest.raises(RecipeError, match=r"policy\.lora.*nowhere"):
        build(PolicyConfig(TINY, lora=Lora(target_modules=("nowhere",))), seed=0)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=PRINTABLE, max_size=40))
def test_characters_survive_the_round_trip(text):
    tokenizer = character_tokenizer()
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text
    ((decoded, offsets),) = decode(tokenizer, [ids])
    assert decoded == text
    assert offsets.tolist() == [[i, i + 1] for i in range(len(text))]


def test_text_that_spells_a_special_token_is_text():
    tokenizer = character_tokenizer()
    ids = tokenizer("<eos>", add_special_tokens=False).input_ids
    assert len(ids) == 5
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<eos>"


def test_a_saved_tokenizer_is_the_same_tokenizer(tmp_path):
    tokenizer = character_tokenizer("01 +,.'\n", context=64)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("", "1 + 0 .'", "0 , 1\n\n"):
        assert loaded(text).input_ids == tokenizer(text).input_ids
        assert loaded.decode(loaded(text, add_special_tokens=False).input_ids) == text
    assert loaded.padding_side == "left"
    assert loaded.model_max_length == 64
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id) == (0, 1, 2)


def byte_level():
    """A tokenizer whose tokens are bytes: a character outside ASCII takes several."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({token: i for i, token in enumerate([*bytes_, "<eos>"])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab é€😀", max_size=12))
def test_offsets_of_tokens_that_are_parts_of_characters(text):
    tokenizer = byte_level()
    ids = [*tokenizer(text).input_ids, tokenizer.eos_token_id]
    ((decoded, offsets),) = decode(tokenizer, [ids])
    assert decoded == text
    expected = []
    for place, character in enumerate(text):
        size = len(character.encode())
        expected += [[place, place]] * (size - 1) + [[place, place + 1]]
    assert offsets.tolist() == [*expected, [-1, -1]]


def test_a_character_cut_short_is_shown_as_broken():
    tokenizer = byte_level()
    ids = tokenizer("a€").input_ids
    ((text, offsets),) = decode(tokenizer, [ids[:-1]])
    assert text == "a\N{REPLACEMENT CHARACTER}"
    assert offsets.tolist() == [[0, 1], [1, 1], [1, 2]]


def test_offsets_when_a_token_alone_decodes_to_something_else():
    """As in Llama's tokenizer, which drops the space before a first word."""
    vocabulary = {"▁a": 0, "▁b": 1, "c": 2, "<eos>": 3}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>"))
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")
    ((text, offsets),) = decode(tokenizer, [[0, 2, 1, 1, 3]])
    assert text == "ac b b"
    assert offsets.tolist() == [[0, 1], [1, 2], [2, 4], [4, 6], [-1, -1]]


def test_a_model_of_another_architecture_is_measured_alike(tmp_path):
    """Learned absolute positions (GPT-2) show a wrong position under left padding, which rotary ones hide."""
    from transformers import GPT2Config

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=20, n_positions=32, n_embd=16, n_layer=1, n_head=2, initializer_range=1.0)
    model = AutoModelForCausalLM.from_config(config).eval()
    logp, _ = logprobs(model, *batch(PROMPTS, COMPLETIONS))
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits, -1)[torch.arange(len(completion)), completion]
        torch.testing.assert_close(logp[row, : len(completion)], expected, atol=1e-4, rtol=1e-4)
