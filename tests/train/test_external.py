"""Completions that others wrote, in the groups of a training step: one, several, or all of a group."""

import json
from dataclasses import replace

import numpy as np
import pytest
from stopping import metrics, stopped

from guerdon.core.errors import RecipeError
from guerdon.train.language import loop, writing
from guerdon.train.prompts import PromptsConfig, completions
from guerdon.train.run import Run

MANY = [str(k) * 3 for k in range(1, 8)]
SAID = {"1+1=": ["2", "1+1;2"], "2+2=": "4", "3+3=": [], "4+4=": None, "5+5=": MANY}


@pytest.fixture
def recipe(tiny, tmp_path):
    """`recipe(said)`: RL-PLUS in groups of 4, on prompts with completions of their own."""

    def build(said=SAID, method=None, **changes):
        rows = [{"prompt": prompt, "demonstration": given} for prompt, given in said.items()]
        for name, lines in (("train", rows), ("test", [{"prompt": "9+9=", "demonstration": "18"}])):
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
        of = tiny(
            method={"preset": "rl_plus", "sampling": {"group": 4}} | (method or {}),
            batch={"prompts": len(said), **changes.pop("batch", {})},
            evaluation={"prompts": 1, "accuracy": "text.length"}, **changes,
        )  # fmt: skip
        file, held_out = str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl")
        return replace(of, prompts=PromptsConfig(file=file, held_out_file=held_out))

    return build


@pytest.fixture
def collected(monkeypatch):
    """What is collected for each step: the texts of each prompt's group, with who wrote them."""
    steps, collect = [], loop.collect

    def watch(job, *rest):
        found = collect(job, *rest)
        rollouts, group = found[0], job.method.sampling.group
        origin, written = rollouts.tokens.origin, rollouts.tokens.written
        outside = origin.any(1)
        assert ((origin != 0) == (written & outside[:, None])).all()
        assert rollouts.groups.tolist() == np.repeat(np.arange(len(outside) // group), group).tolist()
        texts = np.array([*zip(rollouts.completions, outside.tolist(), strict=True)], object).reshape(-1, group, 2)
        steps.append({rollouts.prompts[i * group]: [tuple(row) for row in rows] for i, rows in enumerate(texts)})
        return found

    monkeypatch.setattr(loop, "collect", watch)
    return steps


def test_several_completions_are_the_last_of_their_group(recipe, tmp_path, collected):
    of = recipe()
    loop.train(of, tmp_path / "run")
    for groups in collected:
        outside = {prompt: [text for text, theirs in rows if theirs] for prompt, rows in groups.items()}
        assert outside["1+1="] == ["2", "1+1;2"]
        assert outside["2+2="] == ["4"]
        assert outside["3+3="] == outside["4+4="] == []
        for rows in groups.values():
            assert sorted(theirs for _, theirs in rows) == [theirs for _, theirs in rows]
    assert all(record["external"] > 0 for record in Run(tmp_path / "run").metrics())


def test_of_more_than_a_group_holds_each_step_draws_as_many(recipe, tmp_path, collected):
    loop.train(recipe(steps=3), tmp_path / "run")
    loop.train(recipe(steps=3, batch={"micro": 2}), tmp_path / "again")
    drawn = [[text for text, theirs in groups["5+5="] if theirs] for groups in collected]
    assert all(len(set(texts)) == 4 and set(texts) <= set(MANY) for texts in drawn)
    assert len({tuple(texts) for texts in drawn[:3]}) == 3
    assert drawn[:3] == drawn[3:]


def test_what_the_policy_writes_beside_them_is_what_it_would_have_written_without(recipe, tmp_path, collected):
    """The randomness of a rollout is that of its place."""
    loop.train(recipe(steps=1), tmp_path / "with")
    loop.train(recipe(said=dict.fromkeys(SAID), steps=1), tmp_path / "without")
    mixed, own = collected
    for prompt, rows in mixed.items():
        for (text, theirs), (alone, _) in zip(rows, own[prompt], strict=True):
            assert theirs or text == alone


def test_a_whole_group_may_be_of_others(recipe, tmp_path, collected, monkeypatch):
    monkeypatch.setattr(writing, "sample", None)
    monkeypatch.setattr(loop, "evaluate", lambda job: {"accuracy": 0.0, "ci95": [0.0, 0.0], "mean_length": 0.0})
    of = recipe(said={"1+1=": ["2", "3"], "2+2=": ["4", "44"]}, method={"sampling": {"group": 2}}, steps=1)
    loop.train(of, tmp_path / "run")
    assert collected == [{"1+1=": [("2", True), ("3", True)], "2+2=": [("4", True), ("44", True)]}]


@pytest.mark.parametrize("wrong", [7, ["2", 7], [None], {"text": "2"}])
def test_what_is_no_text_is_named_before_any_work(recipe, tmp_path, wrong):
    with pytest.raises(RecipeError, match=r"method\.sampling\.external: 'demonstration' holds texts or lists of texts"):
        loop.train(recipe(said={"1+1=": "2", "2+2=": wrong}), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_empty_texts_are_no_completions():
    assert completions({"prompt": "", "said": ["", "1", ""]}, "said") == ["1"]
    assert completions({"prompt": "", "said": ""}, "said") == []


def test_a_run_with_drawn_completions_goes_on_bit_for_bit(recipe, tmp_path, monkeypatch):
    of = recipe(steps=4)
    loop.train(of, tmp_path / "whole")

    stopped(monkeypatch, loop.train, of, tmp_path / "stopped", after=2)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")


def test_a_dataset_is_looked_at_in_its_first_task(tiny, tmp_path):
    of = tiny(method={"preset": "rl_plus", "sampling": {"group": 4}})
    with pytest.raises(RecipeError, match="prompts have no 'demonstration'"):
        loop.train(of, tmp_path / "run")
