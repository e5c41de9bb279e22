"""Prompts: the same for the same step, never the same in training and evaluation."""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from guerdon.core import tables
from guerdon.core.coerce import coerce
from guerdon.core.errors import GuerdonError, MissingExtra, RecipeError
from guerdon.train.prompts import Prompts, PromptsConfig, fill

SUMS = PromptsConfig(
    dataset="chain_sum",
    parameters={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    size=500,
    template="{metadata[expression]}=",
    held_out=0.3,
)


def texts(rows):
    return [row["prompt"] for row in rows]


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    rows = [{"prompt": f"q{i}", "answer": str(i), "completion": "old", "group": 1} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_row_has_its_prompt_and_what_the_reward_reads():
    row = Prompts(SUMS, seed=0).draw(0, 1)[0]
    assert row["prompt"] == row["metadata"]["expression"] + "="
    assert eval(row["metadata"]["expression"]) == int(row["answer"])


def test_a_step_is_the_same_whatever_was_drawn_before():
    one, other = Prompts(SUMS, seed=0), Prompts(SUMS, seed=0)
    wanted = one.draw(7, 6)
    for step in (0, 90, 91, 3):
        other.draw(step, 6)
    assert other.draw(7, 6) == wanted
    assert texts(Prompts(SUMS, seed=1).draw(7, 6)) != texts(wanted)
    assert texts(one.draw(7, 6, stream=1)) != texts(wanted)


def test_the_seed_of_the_prompts_comes_before_that_of_the_run():
    fixed = PromptsConfig(**{**vars(SUMS), "seed": 4})
    assert Prompts(fixed, seed=0).draw(0, 8) == Prompts(fixed, seed=1).draw(0, 8) == Prompts(SUMS, seed=4).draw(0, 8)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**40), share=st.floats(0.15, 0.6))
def test_no_evaluation_prompt_is_ever_trained_on(seed, share):
    """With 200 possible sums, 500 tasks repeat nearly all of them: only a split by prompt can keep them apart."""
    prompts = Prompts(PromptsConfig(**{**vars(SUMS), "held_out": share}), seed=seed)
    evaluated = texts(prompts.held_out(5))
    trained = set(texts([row for step in range(30) for row in prompts.draw(step, 20)]))
    assert len(set(evaluated)) == 5
    assert not trained & set(evaluated)
    assert not any(prompts.is_held_out(prompt) for prompt in trained)
    assert all(prompts.is_held_out(prompt) for prompt in evaluated)


def test_the_held_out_share_is_about_what_was_asked_for():
    prompts = Prompts(SUMS, seed=0)
    share = sum(prompts.is_held_out(f"prompt {i}") for i in range(4000)) / 4000
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / 4000) ** 0.5


def test_fewer_held_out_prompts_are_the_first_of_more():
    prompts = Prompts(SUMS, seed=0)
    assert prompts.held_out(20)[:7] == prompts.held_out(7)


def test_an_epoch_gives_every_row_of_a_file_once_and_the_next_another_order(questions):
    prompts = Prompts(PromptsConfig(file=str(questions), held_out=0.25), seed=0)
    n = len(prompts)
    assert 20 <= n < 40
    first, second = prompts.draw(0, n), prompts.draw(1, n)
    assert set(Counter(texts(first)).values()) == {1}
    assert Counter(texts(first)) == Counter(texts(second))
    assert texts(first) != texts(second)
    # Steps cut the same order into other pieces, across the end of the epoch too.
    assert prompts.draw(0, 2 * n) == first + second
    held = prompts.held_out(40 - n)
    assert set(texts(first)) | set(texts(held)) == {f"q{i}" for i in range(40)}
    assert all(row["answer"] == row["prompt"][1:] for row in first + held)


def test_columns_of_an_old_rollout_are_left_out(questions):
    row = Prompts(PromptsConfig(file=str(questions))).draw(0, 1)[0]
    assert set(row) == {"prompt", "answer"}


def test_files_of_every_kind_give_the_same_prompts(tmp_path, questions):
    content = questions.read_bytes()
    (tmp_path / "q.jsonl.gz").write_bytes(gzip.compress(content))
    rows = [json.loads(line) for line in content.splitlines()]
    tables.write_parquet(tmp_path / "q.parquet", {name: [row[name] for row in rows] for name in rows[0]})
    drawn = [
        Prompts(PromptsConfig(file=str(path)), seed=3).draw(0, 10)
        for path in (questions, tmp_path / "q.jsonl.gz", tmp_path / "q.parquet")
    ]
    assert drawn[0] == drawn[1] == drawn[2]


def test_a_missing_value_is_none_in_every_row(tmp_path):
    path = tmp_path / "ragged.jsonl"
    path.write_text('{"prompt": "a", "answer": "1"}\n{"prompt": "b", "hint": "h"}\n' * 5)
    rows = Prompts(PromptsConfig(file=str(path), held_out=0.01)).draw(0, 10)
    assert {(row["prompt"], row["answer"], row["hint"]) for row in rows} == {("a", "1", None), ("b", None, "h")}


def test_a_file_for_evaluation_is_kept_from_training(tmp_path, questions):
    test_file = tmp_path / "test.jsonl"
    test_file.write_text("".join(json.dumps({"prompt": f"q{i}", "answer": "?"}) + "\n" for i in range(30, 50)))
    prompts = Prompts(PromptsConfig(file=str(questions), held_out_file=str(test_file)))
    assert len(prompts) == 30
    assert set(texts(prompts.held_out(20))) == {f"q{i}" for i in range(30, 50)}
    assert set(texts(prompts.draw(0, 30))) == {f"q{i}" for i in range(30)}


def test_prompts_as_chat_messages(questions):
    asked = Prompts(PromptsConfig(file=str(questions), chat=True)).draw(0, 1)[0]["prompt"]
    told = Prompts(PromptsConfig(file=str(questions), system="Be brief.")).draw(0, 1)[0]["prompt"]
    assert [(m["role"], m["content"][0]) for m in asked] == [("user", "q")]
    assert told[0] == {"role": "system", "content": "Be brief."}
    assert [(m["role"], m["content"][0]) for m in told[1:]] == [("user", "q")]


def test_a_systems_message_of_the_files_own_stays(tmp_path):
    path = tmp_path / "chats.jsonl"
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "hi"}]
    path.write_text("".join(json.dumps({"messages": m}) + "\n" for m in (own, own[1:])) * 4)
    config = PromptsConfig(file=str(path), prompt_column="messages", system="recipe's", held_out=0.01)
    drawn = [row["prompt"] for row in Prompts(config).draw(0, 8)]
    assert own in drawn
    assert [{"role": "system", "content": "recipe's"}, own[1]] in drawn


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{a}", "1"),
        ("{b[c]} {b[d][1]}", "x 3"),
        ("{{{a}}}", "{1}"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_a_template_writes_values(template, text):
    assert fill(template, {"a": 1, "b": {"c": "x", "d": [2, 3]}}) == text


@pytest.mark.parametrize(
    "template",
    [
        "{a.__class__}",
        "{a!r}",
        "{a:>99}",
        "{a:{b}}",
        "{}",
        "{0.real}",
        "{a[b].c}",
        "{a",
        "a}",
        "{a[]}",
        "{a[b}",
        "{a[b]c}",
    ],
)
def test_a_template_is_names_and_keys_and_nothing_else(template):
    with pytest.raises(RecipeError, match="template"):
        PromptsConfig(dataset="chain_sum", template=template)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{answr}", "there is no 'answr': did you mean 'answer'"),
        ("{meta[expresion]}", "there is no 'expresion': did you mean 'expression'"),
        ("{answer[0]}", "'12' holds no keys"),
        ("{nothing}", "'nothing' is empty"),
        ("{list[2]}", "there is no '2'"),
    ],
)
def test_a_value_that_is_not_there_is_named(template, message):
    row = {"answer": "12", "meta": {"expression": "1+1"}, "nothing": None, "list": [1]}
    with pytest.raises(RecipeError, match=message):
        fill(template, row)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "neither given"),
        ({"dataset": "chain_sum", "file": "x.jsonl"}, "both given"),
        ({"file": "x.jsonl", "parameters": {"a": 1}}, "parameters are a dataset's"),
        ({"dataset": "chain_sum", "template": "{a}", "prompt_column": "a"}, "both given"),
        ({"dataset": "chain_sum", "held_out": 0}, "held_out is a share"),
        ({"dataset": "chain_sum", "held_out": 1}, "held_out is a share"),
        ({"dataset": "chain_sum", "size": 0}, "size must be at least 1"),
        ({"dataset": "chain_sum", "seed": -1}, "seed at least 0"),
        ({"dataset": "chain_sums"}, "did you mean 'chain_sum'"),
        ({"dataset": "chain_sum", "parameters": {"min_term": 2}}, "min_term"),
        ({"dataset": "chain_sum", "parameters": {"min_terms": 5, "max_terms": 2}}, "max_terms must be >= min_terms"),
        ({"dataset": "chain_sum", "prompt_column": "questions"}, "did you mean 'question'"),
        ({"file": "nowhere.jsonl"}, "there is no file 'nowhere.jsonl'"),
    ],
)
def test_bad_settings_are_refused_before_any_work(data, message):
    with pytest.raises(GuerdonError, match=message):
        Prompts(coerce(data, PromptsConfig, "prompts"))


def test_a_file_of_another_kind_or_with_a_broken_line_says_so(tmp_path):
    (tmp_path / "a.csv").write_text("prompt\n1\n")
    with pytest.raises(RecipeError, match=r"read from \.jsonl, \.jsonl\.gz and \.parquet"):
        Prompts(PromptsConfig(file=str(tmp_path / "a.csv")))
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n{"prompt": \n')
    with pytest.raises(GuerdonError, match="line 2: not JSON"):
        Prompts(PromptsConfig(file=str(tmp_path / "a.jsonl")))
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(RecipeError, match="has no rows"):
        Prompts(PromptsConfig(file=str(tmp_path / "a.jsonl")))


def test_more_evaluation_prompts_than_there_are_is_an_error(questions):
    with pytest.raises(RecipeError, match="distinct held-out prompts, 60 are to be evaluated"):
        Prompts(PromptsConfig(file=str(questions))).held_out(60)


def test_a_dataset_that_repeats_itself_runs_out_of_prompts():
    with pytest.raises(RecipeError, match=r"chain_sum has .* distinct held-out prompts, 150 are to be evaluated"):
        Prompts(SUMS, seed=0).held_out(150)


def test_missing_reasoning_gym_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(MissingExtra, match=r"chain_sum.*guerdon\[tasks\]"):
        Prompts(SUMS)
