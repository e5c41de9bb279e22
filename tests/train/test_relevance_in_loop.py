"""A run on R³, by a transformer that reads questions, references and replies."""

import json

import pytest
import torch
from test_catalogue_recipes import RECIPES, ROW
from transformers import BertConfig, BertModel, BertTokenizer

from guerdon.train import recipe as recipes
from guerdon.train.language import loop
from guerdon.train.run import Run


def pooled(model, tokenizer, text):
    """The mean of the last states of a text, by itself."""
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double().mean(0)


def variety(text):
    words = text.split()
    grams = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0


def test_r3_takes_a_step_with_an_encoder_of_the_real_kind(tiny, tmp_path, monkeypatch):
    """A BERT of random weights in Contriever's place: M(x)·M(ŷ) words/100 RP, or M(y)·M(ŷ) on its range, times RP."""
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"0123456789+-=;#", *(f"##{c}" for c in "0123456789")]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(vocab)})
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertModel(BertConfig(vocab_size=len(vocab), **size)).eval()
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "models" / "contriever")
    monkeypatch.chdir(tmp_path)
    lines = [{**ROW, "prompt": f"{i}+{j}=", "kind": ("open", "closed")[j % 2]} for i in range(6) for j in range(6)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    changes = {"prompts": {"file": str(tmp_path / "prompts.jsonl"), "held_out": 0.3}, "steps": 1, **RECIPES[246]}
    recipe = recipes.from_data(tiny(evaluation={"prompts": 4}, keep={"rollouts": 64}).data() | changes)
    assert loop.train(recipe, tmp_path / "run")["steps"] == 1
    [(_, sample)] = Run(tmp_path / "run").rollouts()
    raw = {"open": {}, "closed": {}}
    for i, (kind, prompt, reply) in enumerate(zip(*(sample[x] for x in ("kind", "prompt", "completion")), strict=True)):
        near = pooled(model, tokenizer, prompt if kind == "open" else ROW["answer"]) @ pooled(model, tokenizer, reply)
        raw[kind][i] = float(near) * (len(reply.split()) / 100 if kind == "open" else 1.0) if reply.strip() else 0.0
    low, high = min(raw["open"].values()), max(raw["open"].values())
    least, most = min(raw["closed"].values()), max(raw["closed"].values())
    mapped = raw["open"] | {i: low + (r - least) / (most - least) * (high - low) for i, r in raw["closed"].items()}
    expected = [mapped[i] * variety(text) for i, text in enumerate(sample["completion"])]
    assert sample["score"] == pytest.approx(expected, abs=1e-5)
