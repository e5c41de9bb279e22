"""Supervised learning on a column of the prompts: solutions, or beginnings of them that a run's failures became."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from guerdon.core import Scores
from guerdon.core.errors import GuerdonError, RecipeError
from guerdon.train import recipe as recipes
from guerdon.train.language import loop, teach as teaching
from guerdon.train.language.policy import ModelShape, PolicyConfig, build
from guerdon.train.language.teach import TeachConfig
from guerdon.train.prompts import Prompts, PromptsConfig
from guerdon.train.run import Run

POLICY = PolicyConfig(ModelShape(layers=1, hidden=16, heads=2, mlp=32, context=24, alphabet="0123456789+=;#"))
SAID = {"1+1=": ["1+1;", "2"], "1+2=": "3", "1+3=": None, "1+4=": "", "1+5=": [], "1+6=": "1+6;#7"}
DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def prompts(tmp_path):
    """`prompts(said)`: with a column of texts; others are held out."""

    def build(said=SAID):
        file = write(tmp_path / "train.jsonl", [{"prompt": p, "mended": text} for p, text in said.items()])
        test = write(tmp_path / "test.jsonl", [{"prompt": f"9+{i}=", "mended": None} for i in range(4)])
        return PromptsConfig(file=file, held_out_file=test)

    return build


def config(**changes):
    return TeachConfig(
        **{"demonstrations": "column", "options": {"column": "mended"}, "steps": 1, "batch": 8} | changes
    )


def taught(prompts, **changes):
    model, tokenizer = build(POLICY, seed=0)
    return model, teaching.teach(model, tokenizer, Prompts(prompts, seed=0), config(**changes), seed=0)


def surprise(model, tokenizer, prompt, text, ends):
    """−log π of each token of a text behind a prompt, read at once."""
    before = tokenizer(prompt).input_ids
    after = tokenizer(text, add_special_tokens=False).input_ids + [tokenizer.eos_token_id] * ends
    with torch.no_grad():
        logits = model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
    return (-logits.double().log_softmax(-1)[torch.arange(len(after)), after]).tolist()


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("micro_batch", [64, 2])
def test_the_loss_is_the_mean_over_the_tokens_of_the_texts_and_of_the_end_only_where_they_end(
    prompts, ends, micro_batch
):
    """Batches of the prompts that have a text, one prompt after the other; of a list, any of it."""
    single = {prompt: "1+1;" if isinstance(text, list) and text else text for prompt, text in SAID.items()}
    _, [loss] = taught(prompts(single), ends=ends, batch=3, micro_batch=micro_batch)
    model, tokenizer = build(POLICY, seed=0)
    shown = {"1+1=": "1+1;", "1+2=": "3", "1+6=": "1+6;#7"}
    costs = [cost for p, text in shown.items() for cost in surprise(model, tokenizer, p, text, ends)]
    assert len(costs) == 4 + 1 + 6 + 3 * ends
    assert loss == pytest.approx(sum(costs) / len(costs), abs=1e-5)


def test_int_nothing_is_learned_of_what_follows_a_beginning(prompts):
    """The gradient is that of −log π of prefix and step; at the last token's own place no target stands."""
    said = {"1+1=": "1+1;"}
    steps = {"steps": 1, "batch": 1, "warmup": 0, "schedule": "constant", "max_grad_norm": 1e9}
    model, _ = taught(prompts(said), ends=False, **steps)
    start, tokenizer = build(POLICY, seed=0)
    before, after = tokenizer("1+1=").input_ids, tokenizer("1+1;", add_special_tokens=False).input_ids
    logits = start(torch.tensor([before + after])).logits[0]
    targets = torch.tensor(before + after)[1:]
    chosen = logits[:-1].log_softmax(-1).gather(-1, targets[:, None])[len(before) - 1 :]
    (-chosen.mean()).backward()
    for old, new in zip(start.parameters(), model.parameters(), strict=True):
        moved = new.detach() - old.detach()
        clear = old.grad.abs() > 1e-5  # Adam's first step: the rate, against the sign of the gradient
        torch.testing.assert_close(moved[clear], -3e-3 * old.grad[clear].sign(), rtol=2e-2, atol=0)


def test_of_several_texts_each_is_shown_by_chance_and_prompts_without_are_passed_over(prompts, monkeypatch):
    seen, losses = [], teaching._losses

    def watched(model, tokenizer, rows, said, config):
        seen.extend((row["prompt"], text) for row, text in zip(rows, said, strict=True))
        return losses(model, tokenizer, rows, said, config)

    monkeypatch.setattr(teaching, "_losses", watched)
    taught(prompts(), steps=60, batch=5)
    assert len(seen) == 300  # batches are full
    assert {prompt for prompt, _ in seen} == {"1+1=", "1+2=", "1+6="}
    assert sum(prompt == "1+6=" for prompt, _ in seen) == 100  # round after round
    share = np.mean([text == "2" for prompt, text in seen if prompt == "1+1="])
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(100)


@pytest.mark.parametrize(
    ("said", "changes", "message"),
    [
        ({"1+1=": None, "1+2=": ""}, {}, r"teach: .*mended.*: no prompt of .*train\.jsonl has anything to show"),
        ({"1+1=": 7}, {}, r"teach\.options\.column: 'mended' holds texts or lists of texts, got 7"),
        (
            SAID,
            {"options": {"column": "mendid"}},
            r"teach\.options\.column: prompts have no 'mendid': did you mean 'me",
        ),
    ],
)
def test_what_cannot_be_shown_is_said_before_any_work(prompts, tiny, tmp_path, said, changes, message):
    data = tiny().data() | {
        "prompts": vars(prompts(said)), "teach": vars(config(**changes)),
        "evaluation": {"prompts": 4, "accuracy": "text.length"},
    }  # fmt: skip
    with pytest.raises(RecipeError, match=message):
        loop.train(recipes.from_data(data), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_column_has_a_name_and_a_demonstration_fits_the_context(prompts):
    with pytest.raises(GuerdonError, match=r"column has no column: set it in teach\.options"):
        config(options={})
    with pytest.raises(RecipeError, match="a prompt and its demonstration are 25 tokens, of the policy's 24"):
        taught(prompts({"1+1=": "1" * 19}))
    with pytest.raises(RecipeError, match="no prompt of"):
        taught(prompts({"1+1=": None}))


def test_int_the_failures_of_a_run_become_what_the_next_one_begins_with(tiny, tmp_path, monkeypatch):
    """The program of docs/recipes.md, with callables by rule: a step that says 1+1=3 is mended, and the rest left."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(1, 5) for b in range(1, 5)]
    path, test = (
        write(tmp_path / "problems.jsonl", rows),
        write(tmp_path / "test.jsonl", [{"prompt": "9+9=", "answer": "18"}]),
    )
    common = {
        "prompts": {"file": path, "held_out_file": test}, "reward": "text.exact", "evaluation": {"prompts": 1},
        "keep": {"rollouts": 16, "rollouts_every": 1},
    }  # fmt: skip
    recipe = tiny(steps=1).data() | common
    loop.train(recipes.from_data(recipe), tmp_path / "runs" / "first")
    text = DOCS.read_text("utf-8")
    [program] = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "mend(" in block]

    def answers(rollouts):
        return Scores.of([1.0] * len(rollouts))

    given = {
        "first_wrong": lambda rollouts, steps: np.where([len(row) > 0 for row in steps.rows()], 0, -1),
        "fix": lambda rollouts: ["7;"] * len(rollouts),
        "complete": lambda rollouts: ["#1"] * len(rollouts),
        "verify": answers,
    }
    exec(program, given)
    made = [json.loads(line) for line in (tmp_path / "mended.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in made] == [row["prompt"] for row in rows]
    mended = [row["mended"] for row in made if row["mended"]]
    assert mended
    assert all(set(texts) == {"7;"} for texts in mended)  # the wrong step is not cloned, and nothing follows
    lesson = {"demonstrations": "column", "options": {"column": "mended"}, "ends": False, "steps": 60, "batch": 4}
    lesson |= {"learning_rate": 2e-2}
    common["prompts"]["file"] = "mended.jsonl"
    again = tiny(steps=1).data() | common | {"method": "dr_grpo", "teach": lesson}
    again["batch"]["prompts"] = 2
    loop.train(recipes.from_data(again), tmp_path / "runs" / "second")
    *_, (_, kept) = Run(tmp_path / "runs" / "second").rollouts()
    assert np.mean([text.startswith("7;") for text in kept["completion"]]) > 0.9
